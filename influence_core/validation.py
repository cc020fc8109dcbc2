"""The fixed validation rows whose mean loss may end a correction, and what it is before the first step; no torch."""

import math
from collections.abc import Collection
from itertools import islice

import numpy as np

from influence_core.errors import UserError
from influence_core.specs import VALIDATION_ROWS, Correcting, Split
from influence_core.workspace import Workspace

SPLIT: Split = "validation"
SEED = 0
SCALE = 10_000  # of what is said of a loss: four digits behind the point


def validation_rows(workspace: Workspace, corrected: Collection[str] = ()) -> list[int]:
    """Return the numbers of the fixed seeded validation rows, without the corrected ones, whose loss may end a run."""
    n = len(workspace.dataset.splits[SPLIT])
    own = {row for split, row in workspace.places(corrected).values() if split == SPLIT}
    order = np.random.default_rng(SEED).permutation(n).tolist()
    return sorted(islice((row for row in order if row not in own), VALIDATION_ROWS))


def loss_before(workspace: Workspace, checkpoint: str | None, corrected: Collection[str]) -> float | None:
    """Return those rows' mean loss (nats) before a correction; None where they are not predicted yet, or are none."""
    if SPLIT not in workspace.dataset.splits or (found := workspace.predictions(SPLIT, checkpoint)) is None:
        return None
    rows = validation_rows(workspace, corrected)
    return float(found["loss"].iloc[rows].mean()) if rows else None


def rounded_up(loss: float) -> float:
    """Round a loss so that it can be given as a limit."""
    return math.ceil(loss * SCALE) / SCALE


def check_limit(workspace: Workspace, spec: Correcting, corrected: Collection[str]) -> None:
    """Raise `UserError` for a limit that would end the run before its first step, as far as predictions tell."""
    if (limit := spec.max_validation_loss) is None:
        return
    if (now := loss_before(workspace, spec.checkpoint, corrected)) is not None and now > limit:
        raise UserError(
            f"max_validation_loss = {limit:g} but the validation loss is {rounded_up(now):g} before the first step: "
            "give more than that, or leave it out"
        )
