"""Arnoldi-based influence functions (paper, Sec. 4.2; Schioppa et al. 2022): scores from an index.

The Hessian is symmetric, so Arnoldi's iteration is Lanczos'. The index holds every training row's
products with the k eigenvectors of largest |λ|; a query is then k numbers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from influence_core.artefacts import base_key
from influence_core.attribution.base import Attributor, Cost, Query, Ready, Scores, SelfScores, safe_cosine
from influence_core.attribution.sample import decay_key
from influence_core.attribution.tables import IndexArrays, Table
from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.runs.locks import locked
from influence_core.settings import IndexSettings, Method
from influence_core.specs import Attributed

if TYPE_CHECKING:
    from influence_core.workspace import Workspace


RANK_TOLERANCE = 1e-9  # of the largest |λ|
BLOCK = 8192  # rows taken to float64 at a time, so that they stay in the processor's cache


@dataclass(frozen=True)
class Index:
    """An index's arrays, without the directions whose eigenvalue is zero up to rounding."""

    products: np.ndarray  # [N, k] float32
    labels: np.ndarray  # [N] int64
    values: np.ndarray  # [k] float64
    kept: np.ndarray  # [k of the table] bool


class Abif(Attributor):
    """score = Σ_i p_i(z) p_i(x) / λ_i with signed λ_i; p_i(x) = ⟨v_i, g_x⟩.

    cosine = score ÷ (‖p(z)/√|λ|‖ · ‖p(x)/√|λ|‖), from the index alone. Table: ``products`` [N, k],
    ``labels`` [N], ``values`` [k]. Query: ``products`` [k].
    """

    name: ClassVar[Method] = "abif"
    judges_itself: ClassVar[bool] = True

    def table(self, workspace: "Workspace", spec: Attributed) -> Table | None:
        """Return the newest finished index for this checkpoint, scope and settings; one with its basis first.

        What a study built answers only those who ask for exactly its settings.
        """
        own = IndexSettings(**spec.settings) if spec.method == self.name else IndexSettings()
        wanted = {**base_key(workspace, spec.checkpoint, spec.scope), "method": self.name}
        wanted |= own.model_dump(exclude_none=True)
        wanted |= {"l2": None, "undecayed": None, **decay_key(workspace, spec.checkpoint)}
        exact = None not in own.model_dump().values()
        found = [Table(path, key) for path, key in workspace.artefacts.find("abif", **wanted)]
        finished = [table for table in found if table.complete and (exact or table.key["origin"] != "study")]
        return next(iter(sorted(finished, key=lambda table: not has_basis(table))), None)

    def ready(self, workspace: "Workspace", spec: Attributed, query: Query) -> Ready | None:
        """See base."""
        table = self.table(workspace, spec)
        return None if table is None else self.read(table, query)

    def read(self, table: Table, query: Query) -> Ready | None:
        """Return what one index keeps for a query, or None."""
        revision = table.revision(query)  # before the arrays: a write in between makes it older, never newer
        arrays = table.query(query)
        if arrays is None:
            return None
        index = read_index(table)
        return Ready(
            table={"products": index.products, "labels": index.labels, "values": index.values},
            query={"products": arrays["products"][index.kept]},
            key=table.key,
            made=table.manifest["made"],
            notes={
                **{name: table.key[name] for name in ("k", "iterations", "hessian_rows", "seed", "origin")},
                "negative": int((index.values < 0).sum()),
                "left_out": int((~index.kept).sum()),
                "prefix": table.manifest.get("prefix"),
            },
            revision=revision,
        )

    def scores(self, ready: Ready) -> Scores:
        """See base."""
        values = ready.table["values"]
        train, query = ready.table["products"], ready.query["products"].astype(np.float64)
        scores, squares = np.empty(len(train)), np.empty(len(train))
        for start in range(0, len(train), BLOCK):
            rows = slice(start, start + BLOCK)
            part = train[rows].astype(np.float64)
            scores[rows] = part @ (query / values)
            squares[rows] = np.square(part, out=part) @ (1 / np.abs(values))
        norms = np.sqrt(squares * (query**2 / np.abs(values)).sum())
        cosines, zero = safe_cosine(scores, norms)
        return Scores(scores, np.clip(cosines, -1, 1), zero, ready.table["labels"])

    def compute(
        self, workspace: "Workspace", spec: Attributed, queries: Sequence[Query], refresh: bool = False
    ) -> Iterator[Progress]:
        """Project the queries (and, to refresh, the relabelled rows) on the kept basis."""
        table = self.table(workspace, spec)
        if table is None:
            raise UserError(no_index(workspace, spec))
        missing = [query for query in queries if table.query(query) is None]
        if not missing and not refresh:
            return
        if not has_basis(table):
            raise UserError(
                "this needs the eigenvectors, which the shipped index leaves out: build the basis with "
                f"python -m influence_core index {workspace.name}, or rank with tracin"
            )
        from influence_core.attribution.projection import Projection, load_basis

        work = Projection(workspace, spec.checkpoint, spec.scope, queries_only=not refresh, few=refresh)
        with locked(table.lock):  # a basis that another process builds anew would not fit these products
            basis = load_basis(table, work)
            for query, products in zip(missing, (yield from work.project_queries(missing, basis)), strict=True):
                table.write_query(query, {"products": products})
            if refresh:
                labels = workspace.labels()
                index = IndexArrays(table.folder, len(labels.values), table.key["k"])
                stale = np.flatnonzero(index.read("labels") != labels.values)
                phase = "projecting relabelled rows"
                dots, sqnorms = yield from work.collect(stale, basis, labels.values, phase)
                index.rewrite(stale, dots, sqnorms, labels.values[stale])
                table.finish({**table.manifest, "cursor": labels.cursor})

    def cost(self, workspace: "Workspace", spec: Attributed, queries: Sequence[Query], refresh: bool = False) -> Cost:
        """See base; building the index is a run of its own (`estimates`)."""
        table = self.table(workspace, spec)
        if table is None:
            return Cost(projections=((len(queries), 1),))
        rows = sum(table.query(query) is None for query in queries)
        if refresh:
            index = IndexArrays.reading(table.folder, table.manifest["rows"])
            rows += int((index.read("labels") != workspace.labels().values).sum())
        return Cost(projections=((rows, table.key["k"]),), vectors=table.key["k"]) if rows else Cost()

    def self_scores(self, workspace: "Workspace", spec: Attributed) -> SelfScores | None:
        """Return Σ_i p_i(x)² / λ_i, which a negative λ may make negative."""
        table = self.table(workspace, spec)
        if table is None:
            return None
        index = read_index(table)
        scores = (index.products.astype(np.float64) ** 2) @ (1 / index.values)
        return SelfScores(scores, index.labels, table.manifest["made"])

    def compute_self(self, workspace: "Workspace", spec: Attributed, refresh: bool = False) -> Iterator[Progress]:
        """Project the relabelled rows again where asked; the index itself is built by a run of its own."""
        if self.table(workspace, spec) is None:
            raise UserError(no_index(workspace, spec))
        yield from self.compute(workspace, spec, [], refresh)


def no_index(workspace: "Workspace", spec: Attributed) -> str:
    """Say that there is no index for a spec's checkpoint and scope, and what builds it."""
    options = f" --checkpoint {spec.checkpoint}" if spec.checkpoint else ""
    options += f" --scope {spec.scope}" if spec.scope else ""
    return (
        f"there is no ABIF index for {workspace.checkpoint(spec.checkpoint).name} in {workspace.name} yet: "
        f"build it with python -m influence_core index {workspace.name}{options}, or choose tracin"
    )


def read_index(table: Table) -> Index:
    """Read an index; an eigenvalue that is zero up to rounding has no inverse and is left out (Sec. 4.2)."""
    values = np.array(table.manifest["eigenvalues"], dtype=np.float64)
    arrays = IndexArrays.reading(table.folder, table.manifest["rows"])
    kept = np.abs(values) > RANK_TOLERANCE * np.abs(values).max()
    products = arrays.read("products")
    return Index(products if kept.all() else products[:, kept], arrays.read("labels"), values[kept], kept)


def has_basis(table: Table) -> bool:
    """Whether the eigenvectors lie beside the index."""
    return (table.folder / "basis.safetensors").exists()
