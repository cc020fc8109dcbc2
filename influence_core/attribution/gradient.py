"""What the methods share whose score is one inner product ⟨d_z, g_x⟩: a direction a query, a table of norms."""

from abc import abstractmethod
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from influence_core.artefacts import base_key
from influence_core.attribution.base import Arrays, Attributor, Cost, Query, Ready, Scores, SelfScores, safe_cosine
from influence_core.attribution.tables import Table, write_arrays
from influence_core.events import Progress
from influence_core.runs.locks import locked
from influence_core.sizes import scope_size
from influence_core.specs import Attributed

if TYPE_CHECKING:
    from influence_core.attribution.projection import Projection
    from influence_core.models.classifier import Parameters
    from influence_core.workspace import Workspace

GROUP_BYTES = 2 * 2**30  # of directions held at once; more queries are projected in further passes


@dataclass(frozen=True)
class Directions:
    """What the training rows' gradients are multiplied with, for Q queries."""

    values: "Parameters"  # {name: [Q, *shape]}
    norms: np.ndarray  # [Q] float32, under the metric
    extras: list[Arrays] = field(default_factory=list)  # kept in each query's file, if any: [Q]


@dataclass(frozen=True)
class Pass:
    """What one computation works with: all of its products are of one metric and of the labels at one cursor."""

    work: "Projection"
    spec: Attributed
    table: Table
    metric: "Metric"
    cursor: int  # of the table: H, where there is one, has the labels at it


@dataclass(frozen=True)
class Metric:
    """A diagonal metric {name: shape}, or None for the plain inner product; with what to show of it."""

    values: "Parameters | None" = None
    notes: dict[str, Any] = field(default_factory=dict)


class GradientMethod(Attributor):
    """score = η · ⟨d_z, g_x⟩, cosine = ⟨d_z, g_x⟩ / (‖d_z‖ ‖g_x‖), products and norms under a diagonal metric.

    Table: ``norms`` [N] and ``labels`` [N]. Query: ``products`` [N], ``norm`` [1] and what
    `directions` adds; where training rows were relabelled since and asked for again also ``rows``,
    ``row_labels``, ``row_products``, ``row_norms``, which take the place of the table's. The same
    without products, for self-influence, lies in ``self.safetensors``.

    A new method says what its directions are; if it needs one, which metric; and which settings the
    products depend on.
    """

    judges_itself: ClassVar[bool] = True

    @staticmethod
    def group(parameters: int, rows: int) -> int:
        """Return how many queries go together: their directions and products each fit `GROUP_BYTES`; at least 1."""
        return max(1, GROUP_BYTES // (4 * max(parameters, rows)))

    def depends_on(self, workspace: "Workspace", spec: Attributed) -> dict[str, Any]:
        """Return the settings that table and queries depend on; part of their key."""
        return spec.own.model_dump()

    @abstractmethod
    def directions(self, given: Pass, queries: Sequence[Query]) -> Generator[Progress, None, Directions]:
        """Return d_z for each query; the projection applies the metric, its norm is under it."""

    def metric(self, work: "Projection", spec: Attributed) -> Generator[Progress, None, Metric]:
        """Return the metric."""
        yield from ()
        return Metric()

    def rate(self, workspace: "Workspace", spec: Attributed) -> float | None:
        """η of the score, or None where it is unknown (then 1)."""
        return 1.0

    def notes(self, arrays: Arrays) -> dict[str, Any]:
        """Return what a query's own arrays tell, to be shown."""
        return {}

    def table(self, workspace: "Workspace", spec: Attributed) -> Table:
        """Return the method's table for this checkpoint, scope and these settings."""
        key = {
            **base_key(workspace, spec.checkpoint, spec.scope),
            "method": self.name,
            **self.depends_on(workspace, spec),
        }
        return Table(workspace.artefacts.path(self.name, key), key)

    def ready(self, workspace: "Workspace", spec: Attributed, query: Query) -> Ready | None:
        """See base."""
        table = self.table(workspace, spec)
        revision = table.revision(query)  # before the arrays: a write in between makes it older, never newer
        arrays = table.query(query)
        if not table.complete or arrays is None:
            return None
        rate = self.rate(workspace, spec)
        manifest = table.manifest
        eta = {"eta": rate if rate is not None else 1.0, "eta_known": rate is not None}
        return Ready(
            table=table.read_arrays("train"),
            query=arrays,
            key=table.key,
            made=manifest["made"],
            notes={**manifest.get("notes", {}), **eta, **self.notes(arrays)},
            revision=revision,
        )

    def scores(self, ready: Ready) -> Scores:
        """See base."""
        products = ready.query["products"].astype(np.float64)
        norms = ready.table["norms"].astype(np.float64)
        labels = ready.table["labels"].copy()
        if "rows" in ready.query:
            rows = ready.query["rows"]
            products[rows] = ready.query["row_products"]
            norms[rows] = ready.query["row_norms"]
            labels[rows] = ready.query["row_labels"]
        cosines, zero = safe_cosine(products, norms * float(ready.query["norm"][0]))
        return Scores(float(ready.notes["eta"]) * products, np.clip(cosines, -1, 1), zero, labels)

    def compute(
        self, workspace: "Workspace", spec: Attributed, queries: Sequence[Query], refresh: bool = False
    ) -> Iterator[Progress]:
        """Project all training rows on the missing queries' directions, or, to refresh, the relabelled rows.

        Queries go in groups whose directions fit in `GROUP_BYTES`, each a pass over the rows.
        """
        table = self.table(workspace, spec)
        with locked(table.lock):
            missing = [query for query in queries if not table.complete or table.query(query) is None]
            if not missing and not refresh:
                return
            given = yield from self._begin(workspace, spec, table, few=not missing)
            size = self.group(given.work.size, len(workspace.train))
            for start in range(0, len(missing), size):
                yield from self._fill(given, missing[start : start + size])
            if refresh:
                for start in range(0, len(queries), size):
                    yield from self._refresh(given, queries[start : start + size])

    def _begin(
        self, workspace: "Workspace", spec: Attributed, table: Table, *, few: bool
    ) -> Generator[Progress, None, Pass]:
        """Load what a computation needs, at the table's cursor or, for a new table, the one that stands now."""
        from influence_core.attribution.projection import Projection

        work = Projection(workspace, spec.checkpoint, spec.scope, few=few)
        cursor = int(table.manifest["cursor"]) if table.complete else workspace.labels().cursor
        return Pass(work, spec, table, (yield from self.metric(work, spec)), cursor)

    def _fill(self, given: Pass, queries: Sequence[Query]) -> Iterator[Progress]:
        """Project all training rows on some queries' directions in one pass; keep table and queries."""
        directions = yield from self.directions(given, queries)
        table, labels = given.table, given.work.workspace.labels(given.cursor).values
        phase = "projecting the training rows"
        metric = given.metric.values
        dots, sqnorms = yield from given.work.collect(np.arange(len(labels)), directions.values, labels, phase, metric)
        if not table.complete:
            self._keep_norms(given, sqnorms, labels)
        for column, query in enumerate(queries):
            extras = directions.extras[column] if directions.extras else {}
            norm = directions.norms[column : column + 1]
            table.write_query(query, {"products": dots[:, column], "norm": norm, **extras})

    def _refresh(self, given: Pass, queries: Sequence[Query]) -> Iterator[Progress]:
        """Project the rows relabelled since once more, beside the table's own products."""
        overlays: list[Arrays] = [{} for _ in queries]
        stale, labels = self._stale(given)
        if len(stale):
            directions = yield from self.directions(given, queries)
            phase, metric = "projecting relabelled rows", given.metric.values
            dots, sqnorms = yield from given.work.collect(stale, directions.values, labels, phase, metric)
            overlays = [
                {**_overlay(stale, labels, sqnorms), "row_products": dots[:, column].astype(np.float32)}
                for column in range(len(queries))
            ]
        for query, overlay in zip(queries, overlays, strict=True):
            arrays = given.table.query(query)
            assert arrays is not None
            kept = {name: value for name, value in arrays.items() if not name.startswith("row")}
            given.table.write_query(query, {**kept, **overlay})

    @staticmethod
    def _stale(given: Pass) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows relabelled since the table was made, and all labels as they stand."""
        labels = given.work.workspace.labels().values
        return np.flatnonzero(given.table.read_arrays("train")["labels"] != labels), labels

    def _keep_norms(self, given: Pass, sqnorms: np.ndarray, labels: np.ndarray) -> None:
        notes = {"prefix": given.work.prefix, **given.metric.notes}
        keep_norms(given.work.workspace, given.table, sqnorms, labels, given.cursor, notes)

    def cost(self, workspace: "Workspace", spec: Attributed, queries: Sequence[Query], refresh: bool = False) -> Cost:
        """See base: a pass over all rows, or over the relabelled ones; `preparation` comes on top."""
        table = self.table(workspace, spec)
        missing = [query for query in queries if not table.complete or table.query(query) is None]
        rows = len(workspace.train) if missing else 0
        if refresh and table.complete and not missing:
            rows = int((table.read_arrays("train")["labels"] != workspace.labels().values).sum())
        if not rows:
            return Cost()
        count = max(1, len(missing) or len(queries))
        size = self.group(scope_size(workspace, spec.checkpoint, spec.scope), len(workspace.train))
        passes = [(rows, min(size, count - start)) for start in range(0, count, size)]
        cost = Cost(projections=tuple(passes), vectors=min(size, count))
        return cost + self.preparation(workspace, spec, count)

    def preparation(self, workspace: "Workspace", spec: Attributed, queries: int) -> Cost:
        """Return what `directions` and `metric` cost."""
        return Cost()

    def self_scores(self, workspace: "Workspace", spec: Attributed) -> SelfScores | None:
        """Return η · ‖g_x‖² under the metric, from the table."""
        table = self.table(workspace, spec)
        if not table.complete:
            return None
        arrays, rate = table.read_arrays("train"), self.rate(workspace, spec)
        norms, labels = arrays["norms"].astype(np.float64), arrays["labels"].copy()
        if (table.folder / "self.safetensors").exists():
            later = table.read_arrays("self")
            norms[later["rows"]], labels[later["rows"]] = later["row_norms"], later["row_labels"]
        scores = (1.0 if rate is None else rate) * norms**2
        return SelfScores(scores, labels, table.manifest["made"])

    def compute_self(self, workspace: "Workspace", spec: Attributed, refresh: bool = False) -> Iterator[Progress]:
        """Take the norms of all training rows, or, to refresh, of the relabelled ones; no direction is needed."""
        table = self.table(workspace, spec)
        with locked(table.lock):
            if table.complete and not refresh:
                return
            given = yield from self._begin(workspace, spec, table, few=table.complete)
            metric = given.metric.values
            if not table.complete:
                labels, phase = workspace.labels(given.cursor).values, "taking the training rows' norms"
                _, sqnorms = yield from given.work.collect(np.arange(len(labels)), {}, labels, phase, metric)
                self._keep_norms(given, sqnorms, labels)
            if refresh:
                stale, labels = self._stale(given)
                _, sqnorms = yield from given.work.collect(stale, {}, labels, "projecting relabelled rows", metric)
                write_arrays(table.folder / "self.safetensors", _overlay(stale, labels, sqnorms))


def keep_norms(
    workspace: "Workspace",
    table: Table,
    sqnorms: np.ndarray,
    labels: np.ndarray,
    cursor: int,
    notes: dict[str, Any],
) -> None:
    """Write the training side ([N] each) and mark it as finished."""
    from influence_core.workspace import now

    workspace.artefacts.make(str(table.key["method"]), table.key)
    norms = np.sqrt(sqnorms).astype(np.float32)
    write_arrays(table.folder / "train.safetensors", {"norms": norms, "labels": labels})
    table.finish({"made": now(), "cursor": cursor, "rows": len(labels), "notes": notes})


def _overlay(rows: np.ndarray, labels: np.ndarray, sqnorms: np.ndarray) -> Arrays:
    return {"rows": rows, "row_labels": labels[rows], "row_norms": np.sqrt(sqnorms).astype(np.float32)}
