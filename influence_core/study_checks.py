"""What can be known of a study before it runs, without torch: the command, before its estimate, and the run ask it."""

import numpy as np

from influence_core.errors import UserError
from influence_core.specs import CorrectionStudySpec, FadingSpec, RetrainSpec, Split, TrajectorySpec
from influence_core.workspace import Workspace

SPLIT: Split = "test"  # whose mispredictions studies of corrections draw


def check_study(workspace: Workspace, spec: TrajectorySpec | RetrainSpec) -> None:
    """Raise the `UserError` that the study would end with, as far as data and kept predictions tell."""
    if isinstance(spec, FadingSpec):
        check_drawn(workspace, spec.train_rows, spec.test_rows)
    elif isinstance(spec, CorrectionStudySpec | RetrainSpec):
        others = spec.tuning if isinstance(spec, CorrectionStudySpec) and spec.tune else 0
        if (found := workspace.predictions(SPLIT, spec.checkpoint)) is not None:
            wrong = int((found["prediction"].to_numpy() != truths(workspace)).sum())
            check_enough(workspace, wrong, spec.mispredictions, others)


def truths(workspace: Workspace) -> np.ndarray:
    """Return the true labels of the test split, [N] class numbers: gold where it is known, else the own ones."""
    frame = workspace.dataset.splits[SPLIT]
    return (frame["gold"] if "gold" in frame else frame["label"]).to_numpy(dtype=np.int64)


def check_enough(workspace: Workspace, found: int, reported: int, others: int = 0) -> None:
    """Raise unless there are so many mispredictions to report on, and others to tune on."""
    if found < reported + others:
        besides = f" and {others} others to tune on" if others else ""
        raise UserError(
            f"mispredictions = {reported}{besides}, but {workspace.name} has {found} in its {SPLIT} split: "
            f"give at most {max(0, found - others)}"
        )


def check_drawn(workspace: Workspace, train_rows: int, test_rows: int) -> None:
    """Raise unless a study can draw so many rows of both splits."""
    splits = workspace.dataset.splits
    asked_for: dict[Split, int] = {"train": train_rows, "test": test_rows}
    for name, asked in asked_for.items():
        there = len(splits[name]) if name in splits else 0
        if asked > there:
            raise UserError(f"{name}_rows = {asked} but {workspace.name} has {there} {name} rows: give at most {there}")
