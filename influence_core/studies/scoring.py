"""Each method's scores of a few training rows for a few test rows, without a pass over all training rows."""

import hashlib
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from influence_core.artefacts import base_key
from influence_core.attribution.abif import Abif, has_basis, read_index
from influence_core.attribution.base import Attributor, Query
from influence_core.attribution.ekfac import Ekfac
from influence_core.attribution.gradient import GradientMethod, Pass
from influence_core.attribution.methods import METHODS
from influence_core.attribution.projection import Projection, load_basis
from influence_core.attribution.tables import Table
from influence_core.attribution.tracin import TracIn
from influence_core.attribution.tracin_multi import TracInMulti
from influence_core.errors import RunFailedError, UserError
from influence_core.events import Progress
from influence_core.settings import Method
from influence_core.specs import Attributed, Scoped
from influence_core.workspace import Workspace

Scoring = Generator[Progress, None, np.ndarray]


def usable(workspace: Workspace, spec: Scoped, wanted: Sequence[Method]) -> tuple[list[Method], dict[str, str]]:
    """Return the methods to score with, and why others were left out.

    Those that are ``wanted``, of which each must be usable (`UserError` says why one is not), or all
    but EK-FAC, whose library scores all training rows each time.
    """
    names = list(dict.fromkeys(wanted)) or [method.name for method in METHODS.values() if method.name != Ekfac.name]
    reasons: dict[str, str] = {}
    for name in names:
        if (why := _why_not(workspace, spec.of_method(name))) is None:
            continue
        if wanted:
            raise UserError(f"{name} cannot be used here: {why}")
        reasons[name] = why
    return [name for name in names if name not in reasons], reasons


def scores_key(workspace: Workspace, spec: Attributed) -> dict[str, Any]:
    """Return what a method's scores of given rows depend on; H and g_x have the labels that stand now."""
    assert spec.method is not None
    method = METHODS[spec.method]
    labels = hashlib.sha256(workspace.labels().values.tobytes()).hexdigest()[:16]
    key = {**base_key(workspace, spec.checkpoint, spec.scope), "method": method.name, "labels": labels}
    if isinstance(method, Abif):
        table = method.table(workspace, spec)
        return {**key, "index": None if table is None else [table.key, table.manifest["made"]]}
    if isinstance(method, GradientMethod):
        return {**key, **method.depends_on(workspace, spec)}
    key |= {"settings": spec.settings} if spec.settings else {}
    if isinstance(method, TracInMulti):
        names = [entry.name for entry in workspace.checkpoints()]
        key["checkpoints"] = [workspace.checkpoint(name).key for name in names]
    return key


def score(
    workspace: Workspace, spec: Attributed, numbers: np.ndarray, queries: Sequence[Query], *, few: bool = False
) -> Scoring:
    """Return the scores [X, Z] of training rows ``numbers`` [X] for the queries, with labels as they stand.

    With ``few`` a method that needs only these rows has the frozen part's outputs made for them alone.
    TracIn's η is left at 1 for the caller to choose; TracIn over checkpoints weighs them by their own.
    """
    assert spec.method is not None
    method = METHODS[spec.method]
    if isinstance(method, Abif):
        return (yield from _by_index(workspace, spec, method, numbers, queries, few))
    if isinstance(method, TracInMulti):
        return (yield from _at_checkpoints(workspace, spec, method, numbers, queries))
    if isinstance(method, GradientMethod) and not isinstance(method, Ekfac):
        few &= method.name == TracIn.name  # the others train, or multiply by H, over rows of their own
        return (yield from _by_gradients(workspace, spec, method, numbers, queries, few))
    return (yield from _by_table(workspace, spec, method, numbers, queries))


def _why_not(workspace: Workspace, spec: Attributed) -> str | None:
    assert spec.method is not None
    method = METHODS[spec.method]
    if isinstance(method, Abif) and _with_basis(workspace, spec, method) is None:
        return f"it needs an index with its eigenvectors: run python -m influence_core index {workspace.name} first"
    return method.unavailable(workspace, spec)


def _with_basis(workspace: Workspace, spec: Attributed, method: Abif) -> Table | None:
    table = method.table(workspace, spec)
    return table if table is not None and has_basis(table) else None


def _by_gradients(
    workspace: Workspace,
    spec: Attributed,
    method: GradientMethod,
    numbers: np.ndarray,
    queries: Sequence[Query],
    few: bool = False,
) -> Scoring:
    """Project the rows on the method's directions, under its metric."""
    labels = workspace.labels()
    work = Projection(workspace, spec.checkpoint, spec.scope, asked=few)
    metric = yield from method.metric(work, spec)
    given = Pass(work, spec, method.table(workspace, spec), metric, labels.cursor)
    found, size = np.zeros((len(numbers), len(queries))), method.group(work.size, len(numbers))
    for start in range(0, len(queries), size):
        columns = slice(start, start + size)
        directions = yield from method.directions(given, queries[columns])
        phase = f"scoring by {method.name}"
        found[:, columns], _ = yield from work.collect(numbers, directions.values, labels.values, phase, metric.values)
    return found


def _at_checkpoints(
    workspace: Workspace, spec: Attributed, method: TracInMulti, numbers: np.ndarray, queries: Sequence[Query]
) -> Scoring:
    """Sum TracIn over the checkpoints that the method chooses (Eq. 2)."""
    yield from method.compute(workspace, spec, [])  # makes what it chooses by
    names = method.chosen(workspace, spec)
    assert names is not None
    single = TracIn()
    places = [spec.model_copy(update={"method": single.name, "checkpoint": name, "settings": {}}) for name in names]
    rates = [single.rate(workspace, place) for place in places]
    total = np.zeros((len(numbers), len(queries)))
    for place, rate in zip(places, rates, strict=True):
        own = yield from _by_gradients(workspace, place, single, numbers, queries)
        total += (1.0 if None in rates or rate is None else rate) * own
    return total


def _by_index(
    workspace: Workspace, spec: Attributed, method: Abif, numbers: np.ndarray, queries: Sequence[Query], few: bool
) -> Scoring:
    """Project rows and queries on the index's eigenvectors."""
    table = _with_basis(workspace, spec, method)
    if table is None:
        raise RunFailedError("the ABIF index was removed meanwhile: build it again")
    index = read_index(table)
    work = Projection(workspace, spec.checkpoint, spec.scope, asked=few)
    basis = load_basis(table, work)
    asked_for = (yield from work.project_queries(queries, basis)).astype(np.float64)[:, index.kept]
    phase = f"scoring by {method.name}"
    rows, _ = yield from work.collect(numbers, basis, workspace.labels().values, phase)
    scores: np.ndarray = (rows.astype(np.float64)[:, index.kept] / index.values) @ asked_for.T
    return scores


def _by_table(
    workspace: Workspace, spec: Attributed, method: Attributor, numbers: np.ndarray, queries: Sequence[Query]
) -> Scoring:
    """Take the rows out of what the method keeps for all of them (controls, and a library's own products)."""
    labels, columns = workspace.labels().values[numbers], []
    for refresh in (False, True):
        yield from method.compute(workspace, spec, queries, refresh)
        ready = [method.ready(workspace, spec, query) for query in queries]
        columns = [method.scores(each) for each in ready if each is not None]
        if all((each.labels[numbers] == labels).all() for each in columns):
            break
    if len(columns) < len(queries):
        raise RunFailedError(f"another run has replaced the {method.name} products meanwhile: start again")
    return np.stack([each.scores[numbers] for each in columns], 1)
