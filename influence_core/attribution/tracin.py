"""TracIn at one checkpoint (paper, Eq. 2 with a single term): products of loss gradients."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from influence_core.attribution.base import Attributor, Query, Ready, Scores, safe_cosine
from influence_core.attribution.tables import Table, base_key, write_arrays
from influence_core.events import Progress
from influence_core.runs.locks import locked
from influence_core.specs import Method, RankSpec

if TYPE_CHECKING:
    from influence_core.workspace import Workspace


class TracIn(Attributor):
    """score = η · ⟨g_z, g_x⟩, cosine = ⟨g_z, g_x⟩ / (‖g_z‖ ‖g_x‖).

    Table: ``norms`` [N] and ``labels`` [N]. Query: ``products`` [N], ``norm`` [1]; where training
    rows were relabelled since and asked for again also ``rows``, ``row_labels``, ``row_products``,
    ``row_norms``, which take the place of the table's.
    """

    name: ClassVar[Method] = "tracin"

    def table(self, workspace: "Workspace", spec: RankSpec) -> Table:
        """Return the method's table for this checkpoint and scope."""
        key = {**base_key(workspace, spec.checkpoint, spec.scope), "method": self.name}
        return Table(workspace.artefacts.path("tracin", key), key)

    def rate(self, workspace: "Workspace", spec: RankSpec) -> float | None:
        """The checkpoint's own learning rate η, or None where unknown (then η = 1)."""
        optimizer = workspace.checkpoint(spec.checkpoint).optimizer or {}
        return optimizer.get("learning_rate")

    def ready(self, workspace: "Workspace", spec: RankSpec, query: Query) -> Ready | None:
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
            notes={**manifest.get("notes", {}), **eta},
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

    def compute(self, workspace: "Workspace", spec: RankSpec, query: Query) -> Iterator[Progress]:
        """Project all training rows on g_z, or, where only labels changed, the relabelled rows."""
        table = self.table(workspace, spec)
        with locked(table.lock):
            yield from self._compute(workspace, spec, query, table)

    def _compute(self, workspace: "Workspace", spec: RankSpec, query: Query, table: Table) -> Iterator[Progress]:
        from influence_core.attribution.projection import Projection

        work = Projection(workspace, spec.checkpoint, spec.scope)
        directions, norms = work.query_directions([query])
        labels = workspace.labels()
        arrays = table.query(query)
        if arrays is None or not table.complete:
            yield from self.fill(workspace, spec, [query])
            arrays = table.query(query)
            assert arrays is not None
        if spec.refresh:
            stale = np.flatnonzero(table.read_arrays("train")["labels"] != labels.values)
            phase = "projecting relabelled rows"
            dots, sqnorms = yield from work.collect(stale, directions, labels.values, phase)
            overlay = {
                "rows": stale,
                "row_labels": labels.values[stale],
                "row_products": dots[:, 0].astype(np.float32),
                "row_norms": np.sqrt(sqnorms).astype(np.float32),
            }
            base = {"products": arrays["products"], "norm": norms.astype(np.float32)}
            table.write_query(query, {**base, **overlay} if len(stale) else base)

    def fill(self, workspace: "Workspace", spec: RankSpec, queries: list[Query]) -> Iterator[Progress]:
        """Project all training rows on many queries' gradients in one pass; keep table and queries.

        The labels are those the table was made with, or, for a new table, those that stand now. The
        caller holds the table's lock.
        """
        from influence_core.attribution.projection import Projection
        from influence_core.workspace import now

        work = Projection(workspace, spec.checkpoint, spec.scope)
        table = self.table(workspace, spec)
        current = workspace.labels()
        labels = table.read_arrays("train")["labels"] if table.complete else current.values
        directions, norms = work.query_directions(queries)
        n = len(labels)
        phase = "projecting the training rows"
        dots, sqnorms = yield from work.collect(np.arange(n), directions, labels, phase)
        if not table.complete:
            workspace.artefacts.make("tracin", table.key)
            write_arrays(
                table.folder / "train.safetensors", {"norms": np.sqrt(sqnorms).astype(np.float32), "labels": labels}
            )
            table.finish({"made": now(), "cursor": current.cursor, "rows": n, "notes": {}})
        for column, query in enumerate(queries):
            table.write_query(query, {"products": dots[:, column], "norm": norms[column : column + 1]})
