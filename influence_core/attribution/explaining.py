"""Many test rows' rankings at a time: their queries' arrays in as few passes as memory allows."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from influence_core.attribution.base import Query
from influence_core.attribution.methods import method_for
from influence_core.errors import RunFailedError, UserError
from influence_core.events import Events, Progress, Result
from influence_core.specs import ExplainSpec, PredictSpec

if TYPE_CHECKING:
    from influence_core.workspace import Workspace


def queries(workspace: "Workspace", spec: ExplainSpec) -> list[Query] | None:
    """Return the queries that a spec asks for; None while predictions are unknown. NumPy only."""
    predictions = workspace.predictions(spec.split, spec.checkpoint)
    if predictions is None:
        return None
    examples = list(spec.examples) or workspace.mispredictions(spec.split, spec.checkpoint)["id"].tolist()
    predicted = dict(zip(predictions["id"], predictions["prediction"], strict=True))
    for example in examples:
        if example not in predicted:
            raise UserError(f"example {example!r} is not in the {spec.split} split: take ids of that split")
    if spec.target == "predicted":
        return [Query(example, int(predicted[example])) for example in examples]
    if spec.target == "gold":
        return [Query(example, workspace.truth(example)) for example in examples]
    return [Query(example, workspace.label_index(spec.target)) for example in examples]


def run(spec: ExplainSpec, result: Path) -> Events:
    """Compute and keep what the rankings of these rows need; afterwards each follows from what is kept."""
    from influence_core.models.predict import run as predict
    from influence_core.workspace import Workspace

    started = time.monotonic()
    workspace = Workspace.open(spec.workspace)
    if spec.split == "train":
        raise UserError("split train: rankings explain validation and test rows, choose one of these splits")
    if workspace.predictions(spec.split, spec.checkpoint) is None:
        asked = PredictSpec(workspace=spec.workspace, checkpoint=spec.checkpoint, split=spec.split)
        yield from (event for event in predict(asked, result) if isinstance(event, Progress))
    found = queries(workspace, spec)
    assert found is not None
    method = method_for(workspace, spec)
    if (why := method.unavailable(workspace, spec)) is not None:
        raise UserError(f"{method.name} cannot be used here: {why}")
    missing = [query for query in found if method.ready(workspace, spec, query) is None]
    if missing:
        yield from method.compute(workspace, spec, missing)
        if any(method.ready(workspace, spec, query) is None for query in missing):
            raise RunFailedError(f"another run has replaced the {method.name} products meanwhile: explain again")
    yield Result(
        value={
            "method": method.name,
            "examples": len(found),
            "computed": len(missing),
            "seconds": time.monotonic() - started,
        }
    )
