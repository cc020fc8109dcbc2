"""Whole splits before and after a correction."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from influence_core.artefacts import write_parquet
from influence_core.events import Progress, through
from influence_core.keeping import AFTER, FEATURES
from influence_core.models.classifier import Parameters
from influence_core.models.loading import rows_of
from influence_core.models.predict import Predictions, predict
from influence_core.models.predict import run as predict_split
from influence_core.models.prefix import Opened
from influence_core.specs import PredictSpec, Split
from influence_core.workspace import Workspace

SPLIT: Split = "test"  # whose figures are the result's own


def compare(
    workspace: Workspace, checkpoint: str | None, opened: Opened, parameters: Parameters, result: Path
) -> Iterator[Progress | dict[str, Any]]:
    """Predict test and, where the workspace has one, validation with the corrected parameters.

    Yields progress, then test's split, before, after, fixed and broken; validation's are under its name.
    """
    found: dict[Split, dict[str, Any]] = {}
    for split in AFTER:
        if len(workspace.dataset.splits.get(split, ())):
            asked = _compare(workspace, checkpoint, opened, parameters, result, split)
            found[split] = yield from through(asked, dict)
    yield {**found[SPLIT], **{str(split): about for split, about in found.items() if split != SPLIT}}


def _compare(
    workspace: Workspace, checkpoint: str | None, opened: Opened, parameters: Parameters, result: Path, split: Split
) -> Iterator[Progress | dict[str, Any]]:
    if workspace.predictions(split, checkpoint) is None:
        asked = PredictSpec(workspace=workspace.name, checkpoint=checkpoint, split=split)
        yield from (event for event in predict_split(asked, result) if isinstance(event, Progress))
    rows = rows_of(workspace, opened.whole, split)
    for event in predict(opened.whole, rows, parameters, phase=f"comparing on the whole {split} split"):
        if not isinstance(event, Predictions):
            yield event
            continue
        before = workspace.predict(split, checkpoint)
        table = event.frame(before["id"])
        write_parquet(result / AFTER[split], table)
        # a correction of the kept checkpoint tells near from far rows by them
        np.save((result / AFTER[split]).with_suffix(FEATURES), event.half_features, allow_pickle=False)
        was = before["prediction"].to_numpy() == rows.labels
        now_right = table["prediction"].to_numpy() == rows.labels
        yield {
            "split": split,
            "before": float(was.mean()),
            "after": float(now_right.mean()),
            "fixed": before["id"][~was & now_right].tolist(),
            "broken": before["id"][was & ~now_right].tolist(),
        }
