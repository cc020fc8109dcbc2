"""A tiny random classifier of each model family, in float64, with dropout, and inputs for it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from models import VOCABULARY, random_tokens, tiny_bert

from influence_core.models.classifier import Classifier, Rows
from influence_core.models.image import ImageClassifier
from influence_core.models.seq2seq import T5Classifier
from influence_core.models.text import TextClassifier

NAMES = ("class 0", "class 1", "class 2")
ROWS = 11


class Tokens:
    """Stands for a tokenizer: its texts are lists of token ids."""

    pad_token_id = 0

    def __call__(self, texts: list[list[int]], truncation: bool, max_length: int) -> dict[str, Any]:
        return {"input_ids": [text[:max_length] for text in texts]}


@dataclass(frozen=True)
class Family:
    """How to build one, what goes in, and what each scope has to own (prefixes of parameter names)."""

    build: Callable[[], Classifier]
    raw: Callable[[], list[Any]]
    head: tuple[str, ...]
    last: str  # what last:1 adds to the head
    blocks: int


def seeded(build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """Build from a seed; biases, norms and running statistics off their special values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build().double()
        for parameter in module.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer += 0.1 * torch.randn_like(buffer)
            elif name.endswith("running_var"):
                buffer += 0.5 * torch.rand_like(buffer)
    return module


def bert() -> Classifier:
    return TextClassifier(tiny_bert(layers=3, dropout=0.2).module, Tokens(), NAMES)


def roberta() -> Classifier:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=12,
        type_vocab_size=1,
        pad_token_id=0,
        num_labels=3,
        attn_implementation="eager",
    )
    return TextClassifier(seeded(lambda: RobertaForSequenceClassification(config)), Tokens(), NAMES)


def distilbert() -> Classifier:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=16,
        n_layers=2,
        n_heads=2,
        hidden_dim=24,
        max_position_embeddings=32,
        num_labels=3,
        attn_implementation="eager",
    )
    return TextClassifier(seeded(lambda: DistilBertForSequenceClassification(config)), Tokens(), NAMES)


def t5() -> Classifier:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        dropout_rate=0.2,
    )
    sequences = [[5, 1], [6, 7, 1], [8, 1]]
    return T5Classifier(seeded(lambda: T5ForConditionalGeneration(config)), Tokens(), NAMES, sequences)


def vit() -> Classifier:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=8,
        patch_size=4,
        num_labels=3,
        hidden_dropout_prob=0.2,
        attention_probs_dropout_prob=0.2,
    )
    return ImageClassifier(seeded(lambda: ViTForImageClassification(config)), NAMES)


def resnet() -> Classifier:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=6, hidden_sizes=[6, 8], depths=[1, 1], layer_type="basic", num_labels=3)
    return ImageClassifier(seeded(lambda: ResNetForImageClassification(config)), NAMES)


def torchvision_resnet() -> Classifier:
    from torchvision.models.resnet import BasicBlock, ResNet

    def build() -> ResNet:
        module = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3)
        module.inplanes = 64  # the blocks again, narrower
        for number, planes in enumerate((6, 6, 8, 8), start=1):
            setattr(module, f"layer{number}", module._make_layer(BasicBlock, planes, 1, stride=2 if number > 2 else 1))
        module.fc = torch.nn.Linear(8, 3)
        return module

    return ImageClassifier(seeded(build), NAMES)


def token_rows() -> list[Any]:
    return random_tokens(ROWS)[0]


def images(size: int) -> Callable[[], list[Any]]:
    return lambda: list(np.random.default_rng(1).normal(size=(ROWS, 3, size, size)))


FAMILIES = {
    "bert": Family(bert, token_rows, ("bert.pooler.", "classifier."), "bert.encoder.layer.2.", 3),
    "roberta": Family(roberta, token_rows, ("classifier.",), "roberta.encoder.layer.1.", 2),
    "distilbert": Family(
        distilbert, token_rows, ("pre_classifier.", "classifier."), "distilbert.transformer.layer.1.", 2
    ),
    "t5": Family(t5, token_rows, ("decoder.final_layer_norm.",), "decoder.block.1.", 2),
    "vit": Family(vit, images(8), ("vit.layernorm.", "classifier."), "vit.layers.1.", 2),
    "resnet": Family(resnet, images(16), ("classifier.",), "resnet.encoder.stages.1.", 2),
    "torchvision": Family(torchvision_resnet, images(32), ("fc.",), "layer4.", 4),
}


def rows(classifier: Classifier, raw: list[Any]) -> Rows:
    """Encode, with random labels."""
    labels = np.random.default_rng(3).integers(0, len(NAMES), len(raw))
    return Rows(classifier, classifier.encode(raw), labels)
