"""What can be known of a correction before it runs, without torch: page and run ask the same."""

import numpy as np

from influence_core.errors import UserError
from influence_core.specs import CorrectionSpec, RankSpec
from influence_core.workspace import Workspace


def desired_label(workspace: Workspace, spec: CorrectionSpec) -> int:
    """Return the desired label's class number; ``gold`` is the example's true label."""
    return workspace.truth(spec.example) if spec.desired == "gold" else workspace.label_index(spec.desired)


def ranking_spec(spec: CorrectionSpec) -> RankSpec:
    """Return the ranking that the correction picks its rows from."""
    shared = ("workspace", "checkpoint", "scope", "example", "method", "settings", "target", "by")
    return RankSpec(**{name: getattr(spec, name) for name in shared}, top=spec.k)


def check_correction(workspace: Workspace, spec: CorrectionSpec, predicted: int, labels: np.ndarray) -> None:
    """Raise the `UserError` that the run would end with, as far as data and labels ([N]) tell."""
    split, _ = workspace.locate(spec.example)
    if split == "train":
        raise UserError(f"example {spec.example!r} is a training row: corrections work on validation and test rows")
    n = len(labels)
    for name, value in (("k", spec.k), ("batch size", spec.batch_size)):
        if value > n:
            raise UserError(f"{name} = {value} but there are {n} training rows: give at most {n}")
    name = workspace.label_names[predicted]
    if desired_label(workspace, spec) == predicted:
        raise UserError(
            f"example {spec.example!r} is already predicted {name}, the desired label: "
            "choose another example or another desired label"
        )
    if spec.strategy == "random":
        check_count(spec, int((labels == predicted).sum()), f"labelled {name}")


def check_count(spec: CorrectionSpec, found: int, kind: str) -> None:
    """Raise unless there are k rows of a kind."""
    if found < spec.k:
        advice = f"lower k to {found}" if found else "choose another strategy"
        raise UserError(f"k = {spec.k} but only {found} training rows are {kind}: {advice}")
