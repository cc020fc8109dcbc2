"""From a spec to a ranking: cached scores where there are any, a run where not."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from influence_core.attribution import cache
from influence_core.attribution.base import Attributor, Query, Ready, Scores
from influence_core.attribution.methods import method_for
from influence_core.data.dataset import words
from influence_core.errors import RunFailedError, UserError
from influence_core.events import Events, Progress, Result
from influence_core.rankings import RankedRow, Ranking
from influence_core.specs import RankSpec

if TYPE_CHECKING:
    from influence_core.workspace import Workspace


def resolve(workspace: "Workspace", spec: RankSpec) -> Query | None:
    """Return the query with its target as a class number; None while the prediction is unknown.

    The target names the label whose loss the scores speak of: ``predicted``, ``gold`` or a label.
    """
    split, row = workspace.locate(spec.example)
    if spec.target == "gold":
        return Query(spec.example, workspace.truth(spec.example))
    if spec.target == "predicted":
        predictions = workspace.predictions(split, spec.checkpoint)
        return None if predictions is None else Query(spec.example, int(predictions["prediction"].iloc[row]))
    return Query(spec.example, workspace.label_index(spec.target))


def scores_of(method: Attributor, ready: Ready, query: Query) -> Scores:
    """Return a query's scores, from the cache if they are there."""
    key = {**ready.key, "query": query.example, "target": query.target, "revision": ready.revision}
    key["eta"] = ready.notes.get("eta")  # of the checkpoint, which may learn its rate later
    found = cache.get(key)
    if found is None:
        found = method.scores(ready)
        cache.put(key, found)
    return found


def assemble(
    workspace: "Workspace", spec: RankSpec, method: Attributor, query: Query, ready: Ready, fresh: bool = False
) -> Ranking:
    """Order the rows and describe the two ends."""
    scores = scores_of(method, ready, query)
    labels = workspace.labels()
    stale = scores.labels != labels.values
    values = scores.cosines if spec.by == "cosine" else scores.scores
    if spec.only_annotated:
        values = np.where(labels.values != workspace.train["label"].to_numpy(), values, 0)  # rows of 0 are on no side
    frame, names, n = workspace.train, workspace.label_names, len(values)

    def rows(numbers: np.ndarray) -> list[RankedRow]:
        return [
            RankedRow(
                id=frame["id"].iloc[row],
                rank=place,
                percentile=100 * (n - place) / n,
                score=float(scores.scores[row]),
                cosine=float(scores.cosines[row]),
                label=names[int(labels.values[row])],
                gold=names[int(frame["gold"].iloc[row])] if "gold" in frame else None,
                text=words(frame, int(row)),
                stale=bool(stale[row]),
                zero_norm=bool(scores.zero_norm[row]),
            )
            for place, row in enumerate(numbers, start=1)
        ]

    return Ranking(
        example=query.example,
        target=names[query.target],
        method=method.name,
        by=spec.by,
        scope=spec.scope or workspace.scope,
        checkpoint=", ".join(ready.notes.get("checkpoints", [workspace.checkpoint(spec.checkpoint).name])),
        cursor=labels.cursor,
        rows=n,
        stale=int(stale.sum()),
        made=ready.made,
        fresh=fresh,
        notes=ready.notes,
        proponents=rows(largest(values, spec.top)),
        opponents=rows(largest(-values, spec.top)),
    )


def largest(values: np.ndarray, top: int) -> np.ndarray:
    """Return the rows of the ``top`` largest values that are positive, largest first, ties in row order.

    Only the rows that are returned get sorted: of a million, the sort would take most of the time.
    """
    count = min(top, int(np.count_nonzero(values > 0)))
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    least = np.partition(values, len(values) - count)[len(values) - count]
    rows = np.flatnonzero(values >= least)
    return rows[np.argsort(-values[rows], kind="stable")][:count]


def ready(workspace: "Workspace", spec: RankSpec) -> Ranking | None:
    """Return the ranking if it follows from what is kept, with NumPy alone; None if a run is needed."""
    query = resolve(workspace, spec)
    if query is None or spec.refresh:
        return None
    method = method_for(workspace, spec)
    kept = None if method.unavailable(workspace, spec) is not None else method.ready(workspace, spec, query)
    return None if kept is None else assemble(workspace, spec, method, query, kept)


def run(spec: RankSpec, result: Path) -> Events:
    """Rank; computes and keeps what is missing."""
    from influence_core.workspace import Workspace

    workspace = Workspace.open(spec.workspace)
    split, _ = workspace.locate(spec.example)
    if split == "train":
        raise UserError(f"example {spec.example!r} is a training row: rank explains validation and test rows")
    if spec.target == "predicted" and workspace.predictions(split, spec.checkpoint) is None:
        from influence_core.models.predict import run as predict
        from influence_core.specs import PredictSpec

        asked = PredictSpec(workspace=spec.workspace, checkpoint=spec.checkpoint, split=split)
        yield from (event for event in predict(asked, result) if isinstance(event, Progress))
    query = resolve(workspace, spec)
    assert query is not None
    method = method_for(workspace, spec)
    if (why := method.unavailable(workspace, spec)) is not None:
        raise UserError(f"{method.name} cannot be used here: {why}")
    kept = method.ready(workspace, spec, query)
    fresh = kept is None or spec.refresh
    if fresh:
        yield from method.compute(workspace, spec, [query], spec.refresh)
        kept = method.ready(workspace, spec, query)
    if kept is None:  # between computing and reading
        raise RunFailedError(f"another run has replaced the {method.name} products meanwhile: rank again")
    yield Result(value=assemble(workspace, spec, method, query, kept, fresh).model_dump())
