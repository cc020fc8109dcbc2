"""Suspects: the training rows most influential on themselves (self-influence)."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from influence_core.attribution.base import Attributor, SelfScores
from influence_core.attribution.methods import method_for
from influence_core.data.dataset import words
from influence_core.errors import RunFailedError, UserError
from influence_core.events import Events, Result
from influence_core.rankings import Suspect, Suspects
from influence_core.specs import SuspectsSpec

if TYPE_CHECKING:
    from influence_core.workspace import Workspace


def ready(workspace: "Workspace", spec: SuspectsSpec) -> Suspects | None:
    """Return the suspects if they follow from what is kept, with NumPy alone; None if a run is needed."""
    method = method_for(workspace, spec)
    found = None if spec.refresh else method.self_scores(workspace, spec)
    return None if found is None else assemble(workspace, spec, method, found)


def assemble(workspace: "Workspace", spec: SuspectsSpec, method: Attributor, found: SelfScores) -> Suspects:
    """Order the rows, by score always (DEFINITIONS, Self-influence)."""
    labels, frame, names = workspace.labels(), workspace.train, workspace.label_names
    stale = found.labels != labels.values
    rows = [
        Suspect(
            id=frame["id"].iloc[row],
            rank=place,
            score=float(found.scores[row]),
            label=names[int(labels.values[row])],
            gold=names[int(frame["gold"].iloc[row])] if "gold" in frame else None,
            text=words(frame, int(row)),
            stale=bool(stale[row]),
        )
        for place, row in enumerate(np.argsort(-found.scores, kind="stable")[: spec.top], start=1)
    ]
    return Suspects(
        method=method.name,
        scope=spec.scope or workspace.scope,
        checkpoint=workspace.checkpoint(spec.checkpoint).name,
        cursor=labels.cursor,
        rows=len(labels.values),
        stale=int(stale.sum()),
        made=found.made,
        suspects=rows,
    )


def run(spec: SuspectsSpec, result: Path) -> Events:
    """Find the suspects; computes and keeps what is missing."""
    from influence_core.workspace import Workspace

    workspace = Workspace.open(spec.workspace)
    method = method_for(workspace, spec)
    if (why := method.unavailable(workspace, spec)) is not None:
        raise UserError(f"{method.name} cannot be used here: {why}")
    found = ready(workspace, spec)
    if found is None:
        yield from method.compute_self(workspace, spec, spec.refresh)
        scores = method.self_scores(workspace, spec)
        if scores is None:
            raise RunFailedError(f"another run has replaced the {method.name} products meanwhile: ask again")
        found = assemble(workspace, spec, method, scores)
    yield Result(value=found.model_dump())
