"""``demo check``: rebuild a demo's scores from its checkpoint and compare them with the shipped ones."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from influence_core.attribution.abif import Abif
from influence_core.attribution.agreement import agreement
from influence_core.attribution.base import Attributor, Query, Ready
from influence_core.attribution.indexing import index_key
from influence_core.attribution.indexing import run as build_index
from influence_core.attribution.projection import Projection, load_basis
from influence_core.attribution.tables import Table
from influence_core.attribution.tracin import TracIn
from influence_core.demo.demos import CHECKPOINT, find
from influence_core.demo.prepare import prepare, queries
from influence_core.errors import RunFailedError
from influence_core.events import Events, Progress, Result
from influence_core.specs import IndexSpec, RankSpec
from influence_core.workspace import Workspace

QUERIES = 16  # mispredicted rows compared, spread over all of them
TOP = 20
OVERLAP = 0.9  # smallest mean share of the top 20 in common
SPEARMAN = 0.99  # smallest mean rank correlation over all training rows

Rebuild = Callable[[Workspace, list[Query], list[Ready]], Iterator[Progress | Ready]]


def check(name: str = "demo:movie-reviews") -> Events:
    """Rebuild and compare; raises `RunFailedError` when shipped and rebuilt scores differ too much."""
    started = time.monotonic()
    demo = find(name)
    yield from (event for event in prepare(name) if isinstance(event, Progress))
    workspace = Workspace.open(demo.name)
    asked = queries(workspace)
    chosen = [asked[place] for place in np.linspace(0, len(asked) - 1, QUERIES).astype(int)]
    found: dict[str, Any] = {}
    methods: list[tuple[Attributor, Rebuild]] = [(Abif(), _abif)]
    if demo.tracin:
        methods.insert(0, (TracIn(), _tracin))
    for method, rebuilt in methods:
        shipped = [_ready(method, workspace, query) for query in chosen]
        fresh: list[Ready] = []
        for item in rebuilt(workspace, chosen, shipped):
            if isinstance(item, Progress):
                yield item
            else:
                fresh.append(item)
        for field in ("cosines", "scores"):
            pairs = [
                (getattr(method.scores(a), field), getattr(method.scores(b), field))
                for a, b in zip(shipped, fresh, strict=True)
            ]
            found[f"{method.name}_{field}"] = agreement(pairs, TOP)
    failed = [field for field, own in found.items() if own["overlap"] < OVERLAP or own["spearman"] < SPEARMAN]
    if failed:
        raise RunFailedError(f"shipped and rebuilt scores differ: {', '.join(f'{f} {found[f]}' for f in failed)}")
    yield Result(value={**found, "queries": len(chosen), "seconds": time.monotonic() - started})


def _ready(method: Attributor, workspace: Workspace, query: Query) -> Ready:
    spec = RankSpec(workspace=workspace.name, example=query.example, method=method.name)
    ready = method.ready(workspace, spec, query) if method.name == "tracin" else _shipped_abif(workspace, query)
    if ready is None:
        raise RunFailedError(f"the shipped {method.name} products of {query.example!r} are missing: restore the assets")
    return ready


def _shipped_abif(workspace: Workspace, query: Query) -> Ready | None:
    """Return the shipped index's arrays even where a local index stands beside it."""
    spec = IndexSpec(workspace=workspace.name)
    key = index_key(workspace, spec, origin="shipped")
    return Abif().read(Table(workspace.artefacts.path("abif", key), key), query)


def _tracin(workspace: Workspace, queries: list[Query], shipped: list[Ready]) -> Iterator[Progress | Ready]:
    work = Projection(workspace, CHECKPOINT, None)
    directions, norms = work.query_directions(queries)
    labels = shipped[0].table["labels"]
    phase = "projecting the training rows (tracin)"
    dots, sqnorms = yield from work.collect(np.arange(len(labels)), directions, labels, phase)
    for place, old in enumerate(shipped):
        table = {"norms": np.sqrt(sqnorms), "labels": labels}
        query = {"products": dots[:, place], "norm": norms[place : place + 1]}
        yield Ready(table, query, old.key, old.made, old.notes, "rebuilt")


def _abif(workspace: Workspace, queries: list[Query], shipped: list[Ready]) -> Iterator[Progress | Ready]:
    spec = IndexSpec(workspace=workspace.name, checkpoint=CHECKPOINT)
    for event in build_index(spec, Path(workspace.path)):
        if isinstance(event, Progress):
            yield event
    key = index_key(workspace, spec)
    table = Table(workspace.artefacts.path("abif", key), key)
    work = Projection(workspace, CHECKPOINT, None)
    basis = load_basis(table, work)
    products = yield from work.project_queries(queries, basis)
    for place, query in enumerate(queries):
        table.write_query(query, {"products": products[place]})
        ready = Abif().read(table, query)
        assert ready is not None
        yield ready
