"""How well an order of the training rows finds those that are truly mislabelled: precision at k."""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from influence_core.attribution.methods import METHODS
from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.runs.stopping import stop_requested
from influence_core.settings import Method
from influence_core.specs import MislabelledSpec
from influence_core.studies.intervals import wilson
from influence_core.workspace import Workspace


def judges(workspace: Workspace, spec: MislabelledSpec) -> list[Method]:
    """Return the methods whose self-influence is looked at; raises `UserError` for one that gives none here."""
    found: list[Method] = []
    for name in spec.methods or METHODS:
        method = METHODS[name]
        why = None if method.judges_itself else "it gives no self-influence"
        why = why or method.unavailable(workspace, spec.of_method(method.name))
        if why is None:
            found.append(method.name)
        elif spec.methods:
            raise UserError(f"{name} cannot be used here: {why}")
    return found


def precision_rows(
    workspace: Workspace, spec: MislabelledSpec, methods: Sequence[Method], wrong: np.ndarray, result: Path
) -> Generator[Progress, None, list[dict[str, Any]]]:
    """Return a row per order: each method's self-influence, the loss of each row's label, and chance.

    ``wrong`` [N] says which rows are mislabelled. Chance is what a random order has on average: their
    share. Methods not yet begun when a stop is asked for are left out.
    """
    rows: list[dict[str, Any]] = []
    for name in methods:
        if rows and stop_requested(result):
            break
        method, own = METHODS[name], spec.of_method(name)
        yield from method.compute_self(workspace, own)
        found = method.self_scores(workspace, own)
        assert found is not None
        rows.append(row("self-influence", name, found.scores, wrong, spec.at))
    labels, predictions = workspace.labels().values, workspace.predict("train", spec.checkpoint)
    probabilities = predictions[[f"p{label}" for label in range(len(workspace.label_names))]].to_numpy()
    own_probability = probabilities[np.arange(len(labels)), labels]
    rows.append(row("loss", None, -own_probability, wrong, spec.at))  # −log p, in the same order
    share = float(wrong.mean())
    chance = [{"k": k, "value": share, "low": None, "high": None, "n": k} for k in _within(spec.at, len(wrong))]
    return [*rows, {"order": "chance", "method": None, "precision": chance}]


def row(order: str, method: Method | None, scores: np.ndarray, wrong: np.ndarray, at: Sequence[int]) -> dict[str, Any]:
    """Return the precision at each k of the rows by falling score [N], ties in row order, with Wilson intervals."""
    hits = np.cumsum(wrong[np.argsort(-scores, kind="stable")])
    found = [{"k": k, **wilson(int(hits[k - 1]), k).as_json()} for k in _within(at, len(wrong))]
    return {"order": order, "method": method, "precision": found}


def _within(at: Sequence[int], rows: int) -> list[int]:
    return sorted({k for k in at if k <= rows})
