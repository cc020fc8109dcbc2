"""Predictions and penultimate features of a split, kept as artefacts."""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from influence_core.artefacts import write_parquet
from influence_core.errors import UserError
from influence_core.events import Events, Progress, Result
from influence_core.models.classifier import Batch, Classifier, Parameters, Rows
from influence_core.models.loading import load, rows_of
from influence_core.rates import record
from influence_core.specs import PredictSpec, Split
from influence_core.workspace import Workspace

BATCH = 64


@dataclass(frozen=True)
class Predictions:
    """Eval-mode outputs for N rows."""

    probabilities: np.ndarray  # [N, C] float64
    losses: np.ndarray  # [N], nats, of the rows' labels
    features: np.ndarray  # [N, d] float32, the input of the last linear layer

    @property
    def half_features(self) -> np.ndarray:
        """The features as they are kept, [N, d] float16, cut to what that can hold."""
        largest = float(np.finfo(np.float16).max)
        kept: np.ndarray = np.clip(self.features, -largest, largest).astype(np.float16)
        return kept

    def frame(self, ids: pd.Series) -> pd.DataFrame:
        """Return columns id, prediction, loss, p0 … p(C−1)."""
        table = pd.DataFrame({"id": ids.to_numpy(), "prediction": self.probabilities.argmax(1), "loss": self.losses})
        for label in range(self.probabilities.shape[1]):
            table[f"p{label}"] = self.probabilities[:, label]
        return table


def last_linear(classifier: Classifier) -> nn.Linear:
    """Return the layer that makes the logits: the last linear module."""
    return [module for module in classifier.module.modules() if isinstance(module, nn.Linear)][-1]


def logits_and_features(
    classifier: Classifier, batch: Batch, parameters: Parameters | None = None
) -> tuple[Tensor, Tensor]:
    """Return logits [B, C] and features [B, d], the input of the last linear layer; to be called without gradients.

    A classifier that makes its logits in several passes (`models.seq2seq`) has the features of the first.
    """
    seen: list[Tensor] = []
    hook = last_linear(classifier).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    try:
        logits = classifier.logits(batch, parameters)
    finally:
        hook.remove()
    return logits, _first_position(seen[0])


def _first_position(states: Tensor) -> Tensor:
    """Return [B, d] of [B, d] or [B, L, d]: a decoder's first position, before it has seen a label word."""
    return states if states.dim() == 2 else states[:, 0]


def predict(
    classifier: Classifier, rows: Rows, parameters: Parameters | None = None, phase: str = "predicting"
) -> Iterator[Progress | Predictions]:
    """Predict all rows in eval mode, with other scope parameters if given; yields progress, then the outputs."""
    n, done = len(rows), 0
    logits: Tensor | None = None
    features: Tensor | None = None
    losses = torch.zeros(n, dtype=torch.float64)
    with torch.no_grad():
        for numbers, batch in rows.buckets(0, n, BATCH):
            out, own = logits_and_features(classifier, batch, parameters)
            if logits is None or features is None:
                logits = torch.zeros(n, out.shape[1], dtype=torch.float64)
                features = torch.zeros(n, own.shape[-1])
            where = torch.from_numpy(numbers)
            logits[where] = out.double().cpu()
            features[where] = own.float().cpu()
            losses[where] = classifier.losses_of(out.double(), batch.labels).cpu()
            done += len(numbers)
            yield Progress(phase=phase, done=done, total=n)
    assert logits is not None
    assert features is not None
    if not torch.isfinite(losses).all():
        row = int((~torch.isfinite(losses)).nonzero()[0, 0])
        raise UserError(
            f"the checkpoint's output for row {row + 1} is not a finite number: its weights are broken, use another one"
        )
    yield Predictions(logits.softmax(1).numpy(), losses.numpy(), features.numpy())


def run(spec: PredictSpec, result: Path) -> Events:
    """Predict a split of a workspace; the outputs become its artefact ``predictions``."""
    workspace = Workspace.open(spec.workspace)
    classifier = load(workspace, spec.checkpoint)
    rows = rows_of(workspace, classifier, spec.split)
    started = time.monotonic()
    for event in predict(classifier, rows, phase=f"predicting the {spec.split} split"):
        if isinstance(event, Predictions):
            record(workspace.checkpoint(spec.checkpoint).fingerprint, len(rows), time.monotonic() - started)
            table = save(workspace, spec.split, spec.checkpoint, event)
            right = float((table["prediction"].to_numpy() == rows.labels).mean())
            yield Result(value={"split": spec.split, "rows": len(rows), "accuracy": right})
        else:
            yield event


def save(workspace: Workspace, split: Split, checkpoint: str | None, predictions: Predictions) -> pd.DataFrame:
    """Keep a split's predictions and features as artefacts; returns the table."""
    table = predictions.frame(workspace.dataset.splits[split]["id"])
    folder = workspace.artefacts.make("predictions", workspace.prediction_key(split, checkpoint))
    write_parquet(folder / "predictions.parquet", table)
    temporary = folder / f".features.{uuid.uuid4().hex}.npy"
    np.save(temporary, predictions.half_features, allow_pickle=False)
    temporary.replace(folder / "features.npy")
    return table
