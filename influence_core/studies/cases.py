"""Mispredictions that a study of corrections works on, drawn by a seed, and who gets whose proponents."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from influence_core.events import Progress
from influence_core.models.predict import run as predict
from influence_core.partners import permuted
from influence_core.specs import PredictSpec, Split
from influence_core.study_checks import SPLIT, truths
from influence_core.workspace import Workspace


@dataclass(frozen=True)
class Case:
    """One misprediction of the test split."""

    example: str
    row: int
    predicted: int  # class number
    desired: int  # the true label


def predicted(workspace: Workspace, checkpoint: str | None, result: Path, split: Split = SPLIT) -> Iterator[Progress]:
    """Predict a split where that has not been done; yields progress."""
    if workspace.predictions(split, checkpoint) is None:
        asked = PredictSpec(workspace=workspace.name, checkpoint=checkpoint, split=split)
        yield from (event for event in predict(asked, result) if isinstance(event, Progress))


def cases(workspace: Workspace, checkpoint: str | None, seed: int) -> list[Case]:
    """Return all mispredictions of a predicted test split in an order drawn by the seed."""
    frame = workspace.dataset.splits[SPLIT]
    found, truth = workspace.predict(SPLIT, checkpoint)["prediction"].to_numpy(dtype=np.int64), truths(workspace)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(found != truth))
    return [Case(str(frame["id"].iloc[row]), int(row), int(found[row]), int(truth[row])) for row in order]


def partners(drawn: Iterable[Case], seed: int) -> dict[str, Case]:
    """Return by example whose rows it gets: within its prediction and true label, nobody its own (App. I).

    One of a set of its own has no partner and is left out. Seeded as a correction's `permuted` is.
    """
    sets: dict[tuple[int, int], dict[int, Case]] = defaultdict(dict)
    for case in drawn:
        sets[case.predicted, case.desired][case.row] = case
    return {
        own[row].example: own[other]
        for pair, own in sets.items()
        for row, other in permuted(np.array(list(own), dtype=np.int64), *pair, seed).items()
    }
