"""A checkpoint folder of each model family as users have it, and data files for it: tiny, briefly trained."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkpoints import NAMES, WORDS, save_tiny_checkpoint, sentences, write_data
from PIL import Image
from torch import nn

from influence_core.home import write_json

TEXT = ("bert", "roberta", "distilbert", "t5")
IMAGES = ("torchvision", "resnet", "vit")
FAMILIES = TEXT + IMAGES
SIZE = 16  # pixels, height and width
PREFIX = "review: "  # what the T5 checkpoint was trained with
LABEL_WORDS = ("bad", "good")  # what it says for the first two classes


def save_family(folder: Path, family: str, names: tuple[str, ...] = NAMES, seed: int = 0) -> Path:
    """Write a checkpoint of one of FAMILIES; returns its folder."""
    if family == "bert":
        return save_tiny_checkpoint(folder, names, seed)
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _text(folder, family, names) if family in TEXT else _image(folder, family, names)
    if family == "torchvision":
        save_torchvision(folder, module, names)
    else:
        module.save_pretrained(folder)
    return folder


def write_family_data(
    folder: Path, family: str, names: tuple[str, ...] = NAMES, train_rows: int = 96, test_rows: int = 32
) -> tuple[Path, Path]:
    """Write train and test: CSV files for text, folders of PNG files (one folder a class) for images."""
    folder.mkdir(parents=True, exist_ok=True)
    if family in TEXT:
        return write_data(folder, train_rows, test_rows)
    for split, count, seed in (("train", train_rows, 1), ("test", test_rows, 2)):
        pixels, labels = pictures(count, len(names), seed)
        for number, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
            place = folder / split / names[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(place / f"{number}.png")
    return folder / "train", folder / "test"


def pictures(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy pictures [N, 16, 16, 3] uint8 with a bright stripe at the class's place, and labels [N].

    A tenth of the labels is wrong.
    """
    rng = np.random.default_rng(seed)
    gold = np.arange(count) % classes
    pixels = rng.integers(0, 90, (count, SIZE, SIZE, 3), dtype=np.uint8)
    width = SIZE // classes
    for row, label in enumerate(gold):
        pixels[row, :, label * width : (label + 1) * width] += 120
    wrong = rng.random(count) < 0.1
    return pixels, np.where(wrong, (gold + 1) % classes, gold)


def labelled(names: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields of a configuration that name the classes."""
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
    }


def save_torchvision(folder: Path, module: nn.Module, names: tuple[str, ...]) -> None:
    """Write a torchvision ResNet-18 with the CIFAR stem: model.safetensors, and a config.json that says what it is."""
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, folder / "model.safetensors")
    write_json(
        folder / "config.json",
        {
            "model_type": "torchvision",
            "architecture": "resnet18",
            "stem": "cifar",
            "id2label": {str(number): name for number, name in enumerate(names)},
            "image_size": SIZE,
            "image_mean": [0.3, 0.3, 0.3],
            "image_std": [0.25, 0.25, 0.25],
        },
    )


def _text(folder: Path, family: str, names: tuple[str, ...]) -> Any:
    from transformers import (
        DistilBertConfig,
        DistilBertForSequenceClassification,
        RobertaConfig,
        RobertaForSequenceClassification,
        T5Config,
        T5ForConditionalGeneration,
    )

    tokenizer = tokenizer_of(family, names)
    tokenizer.save_pretrained(folder)
    size = len(tokenizer)
    if family == "roberta":
        config = RobertaConfig(
            vocab_size=size,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=66,
            type_vocab_size=1,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **labelled(names),
        )
        module: Any = RobertaForSequenceClassification(config)
    elif family == "distilbert":
        config = DistilBertConfig(
            vocab_size=size, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=64, **labelled(names)
        )
        module = DistilBertForSequenceClassification(config)
    else:
        words = dict(zip(names, (*LABEL_WORDS, *names[2:]), strict=False))
        config = T5Config(
            vocab_size=size,
            d_model=16,
            d_kv=8,
            d_ff=24,
            num_layers=2,
            num_decoder_layers=2,
            num_heads=2,
            decoder_start_token_id=0,
            label_words=words,
            prefix=PREFIX,
        )
        module = T5ForConditionalGeneration(config)
    _train_text(module, tokenizer, names)
    return module


def tokenizer_of(family: str, names: tuple[str, ...]) -> Any:
    """Return a fast tokenizer, made offline."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import DistilBertTokenizerFast, RobertaTokenizerFast, T5TokenizerFast

    if family == "roberta":  # byte-level pairs, as the real one's
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        pairs = ByteLevelBPETokenizer()
        texts = sentences(200, seed=98)["text"].tolist()
        pairs.train_from_iterator(texts, vocab_size=320, min_frequency=1, special_tokens=special, show_progress=False)
        model = json.loads(pairs.to_str())["model"]
        return RobertaTokenizerFast(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    if family == "distilbert":
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
        return DistilBertTokenizerFast(vocab={word: number for number, word in enumerate(vocabulary)})
    words = dict.fromkeys([*WORDS, *names, PREFIX.strip()])  # T5's: unigrams
    pieces = ["<pad>", "</s>", "<unk>", *(f"▁{word}" for word in words)]
    return T5TokenizerFast(vocab=[(piece, -1.0) for piece in pieces], extra_ids=0)


def _train_text(module: Any, tokenizer: Any, names: tuple[str, ...]) -> None:
    """A few epochs by transformers' own loss."""
    frame = sentences(160, seed=99)
    generation = module.config.model_type == "t5"
    texts = [f"{PREFIX if generation else ''}{text}" for text in frame["text"]]
    inputs = dict(tokenizer(texts, padding=True, return_tensors="pt"))
    inputs.pop("token_type_ids", None)
    classes = [names.index(label) if label in names else 0 for label in frame["label"]]
    if generation:
        labels = tokenizer([module.config.label_words[names[label]] for label in classes], return_tensors="pt")
        inputs["labels"] = labels["input_ids"]
    else:
        inputs["labels"] = torch.tensor(classes)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    module.train()
    for _ in range(6):
        for rows in torch.randperm(len(texts)).split(16):
            optimizer.zero_grad()
            module(**{name: value[rows] for name, value in inputs.items()}).loss.backward()
            optimizer.step()
    module.eval()


def _image(folder: Path, family: str, names: tuple[str, ...]) -> Any:
    from torchvision.models import resnet18
    from transformers import (
        ConvNextImageProcessor,
        ResNetConfig,
        ResNetForImageClassification,
        ViTConfig,
        ViTForImageClassification,
        ViTImageProcessor,
    )

    if family == "torchvision":
        module: Any = resnet18(num_classes=len(names))
        module.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        module.maxpool = nn.Identity()
        head, mean, std = module.fc, 0.3, 0.25
    elif family == "resnet":
        config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
        config.update(labelled(names))
        module, mean, std = ResNetForImageClassification(config), 0.4, 0.3
        head = module.classifier[1]
        ConvNextImageProcessor(
            size={"shortest_edge": SIZE}, crop_pct=0.875, image_mean=[mean] * 3, image_std=[std] * 3
        ).save_pretrained(folder)
    else:
        config = ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            image_size=SIZE,
            patch_size=8,
            initializer_range=0.3,
            **labelled(names),
        )
        module, mean, std = ViTForImageClassification(config), 0.5, 0.5
        head = module.classifier
        ViTImageProcessor(
            size={"height": SIZE, "width": SIZE}, image_mean=[mean] * 3, image_std=[std] * 3
        ).save_pretrained(folder)
    _fit_head(module.eval(), head, mean, std)
    return module


def _fit_head(module: Any, head: nn.Linear, mean: float, std: float) -> None:
    """Set the last layer by ridge regression on the random network's features."""
    pixels, labels = pictures(192, head.out_features, seed=99)
    seen: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        module((torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std)
        hook.remove()
        features = torch.cat([seen[0], torch.ones(len(labels), 1)], 1).double()  # [N, d + 1]
        gram = features.T @ features
        gram += 1e-2 * gram.trace() / len(gram) * torch.eye(len(gram))
        targets = 4.0 * (nn.functional.one_hot(torch.from_numpy(labels)).double() - 1 / head.out_features)
        solved = torch.linalg.solve(gram, features.T @ targets).T.float()  # [C, d + 1]
        head.weight.copy_(solved[:, :-1])
        head.bias.copy_(solved[:, -1])
