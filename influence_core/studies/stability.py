"""How much an ABIF ranking depends on the Hessian's rows: overlap of top lists between samples and seeds."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from influence_core.attribution.abif import Abif
from influence_core.attribution.agreement import agreement
from influence_core.attribution.base import Query
from influence_core.attribution.explaining import queries as explained
from influence_core.attribution.indexing import build
from influence_core.attribution.sample import sample_size
from influence_core.errors import UserError
from influence_core.events import Events, Progress, Result
from influence_core.specs import ExplainSpec, IndexSpec, RankSpec, StabilitySpec
from influence_core.workspace import Workspace


def run(spec: StabilitySpec, result: Path) -> Events:
    """Build an index for each sample, then compare their rankings of the same mispredictions, two by two.

    Each index stays among the workspace's artefacts, so an interrupted study goes on with what is
    missing; it answers no ranking that does not ask for its settings. The mispredictions are spread
    over all of them by confidence; the lists are by cosine.
    """
    started = time.monotonic()
    workspace = Workspace.open(spec.workspace)
    samples = [(sample_size(workspace, rows), 0) for rows in spec.hessian_rows]
    samples += [(sample_size(workspace, spec.hessian_rows[0]), seed) for seed in spec.seeds if seed != 0]
    chosen = spread(workspace, spec)
    found: dict[tuple[int, int], list[np.ndarray]] = {}
    for place, (rows, seed) in enumerate(samples, start=1):
        prefix = f"index {place} of {len(samples)} ({rows} Hessian rows, seed {seed}): "
        for event in _scores(workspace, spec, rows, seed, chosen):
            if isinstance(event, Progress):
                yield event.model_copy(update={"phase": prefix + event.phase})
            else:
                found[(rows, seed)] = event
    table = [
        {
            "rows": [first[0], second[0]],
            "seeds": [first[1], second[1]],
            **agreement(list(zip(found[first], found[second], strict=True)), spec.top),
        }
        for first, second in itertools.combinations(samples, 2)
    ]
    about = {"queries": len(chosen), "top": spec.top, "k": spec.k, "iterations": spec.iterations}
    yield Result(value={"pairs": table, **about, "seconds": time.monotonic() - started})


def spread(workspace: Workspace, spec: StabilitySpec) -> list[Query]:
    """Return the mispredictions that are compared, evenly spread from the most to the least confident."""
    every = explained(workspace, ExplainSpec(workspace=spec.workspace, checkpoint=spec.checkpoint))
    if not every:
        raise UserError(f"{workspace.name} has no predicted mistakes on its test split: list its mispredictions first")
    places = np.linspace(0, len(every) - 1, min(spec.queries, len(every))).astype(int)
    return [every[place] for place in places]


def _scores(
    workspace: Workspace, spec: StabilitySpec, rows: int, seed: int, chosen: list[Query]
) -> Iterator[Progress | list[np.ndarray]]:
    settings = {"k": spec.k, "iterations": spec.iterations, "hessian_rows": rows, "seed": seed}
    shared = {"workspace": spec.workspace, "checkpoint": spec.checkpoint, "scope": spec.scope}
    for event in build(workspace, IndexSpec(**shared, **settings), origin="study"):
        if isinstance(event, Progress):
            yield event
    exact = RankSpec(**shared, example=chosen[0].example, method="abif", settings=settings)
    method = Abif()
    yield from method.compute(workspace, exact, chosen)
    ready = [method.ready(workspace, exact, query) for query in chosen]
    yield [method.scores(each).cosines for each in ready if each is not None]
