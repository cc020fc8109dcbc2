"""Checkpoints of the paper's and users' real sizes, with random weights: what no registry here carries trained."""

from pathlib import Path
from typing import Any

import torch
from checkpoints import NAMES
from family_checkpoints import LABEL_WORDS, PREFIX, labelled, tokenizer_of

SIZES = {  # parameters, as the published models of these configurations have (two classes)
    "bert": 109_483_778,
    "roberta": 124_647_170,
    "distilbert": 66_955_010,
    "t5": 60_506_624,
    "torchvision": 11_177_538,
    "resnet": 11_177_538,
    "vit": 85_800_194,
}


def save_real(folder: Path, family: str) -> Path:
    """Write a random checkpoint as large as bert-base, roberta-base, distilbert-base, t5-small, resnet-18, vit-base."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = _module(folder, family)
    if family == "torchvision":
        from safetensors.torch import save_file

        save_file(
            {name: value.contiguous() for name, value in module.state_dict().items()}, folder / "resnet.safetensors"
        )
    else:
        module.save_pretrained(folder)
    return folder / "resnet.safetensors" if family == "torchvision" else folder


def _module(folder: Path, family: str) -> Any:
    import transformers as hf

    if family in ("bert", "roberta", "distilbert", "t5"):
        tokenizer_of(family, NAMES).save_pretrained(folder)
    if family == "bert":
        return hf.BertForSequenceClassification(hf.BertConfig(**labelled(NAMES)))
    if family == "roberta":
        config = hf.RobertaConfig(vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1, **labelled(NAMES))
        return hf.RobertaForSequenceClassification(config)
    if family == "distilbert":
        return hf.DistilBertForSequenceClassification(hf.DistilBertConfig(**labelled(NAMES)))
    if family == "t5":
        words = dict(zip(NAMES, LABEL_WORDS, strict=True))
        config = hf.T5Config(decoder_start_token_id=0, label_words=words, prefix=PREFIX)
        return hf.T5ForConditionalGeneration(config)
    if family == "vit":
        hf.ViTImageProcessor().save_pretrained(folder)
        return hf.ViTForImageClassification(hf.ViTConfig(**labelled(NAMES)))
    if family == "resnet":
        hf.ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875).save_pretrained(folder)
        config = hf.ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic")
        config.update(labelled(NAMES))
        return hf.ResNetForImageClassification(config)
    from torchvision.models import resnet18

    return resnet18(num_classes=len(NAMES))
