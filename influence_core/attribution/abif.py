"""Arnoldi-based influence functions (paper, Sec. 4.2; Schioppa et al. 2022): scores from an index.

The Hessian is symmetric, so Arnoldi's iteration is Lanczos'. The index holds every training row's
products with the k eigenvectors of largest |λ|; a query is then k numbers.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from influence_core.attribution.base import Attributor, Query, Ready, Scores, safe_cosine
from influence_core.attribution.tables import IndexArrays, Table, base_key
from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.runs.locks import locked
from influence_core.specs import Method, RankSpec

if TYPE_CHECKING:
    from influence_core.workspace import Workspace


RANK_TOLERANCE = 1e-9  # of the largest |λ|


class Abif(Attributor):
    """score = Σ_i p_i(z) p_i(x) / λ_i with signed λ_i; p_i(x) = ⟨v_i, g_x⟩.

    cosine = score ÷ (‖p(z)/√|λ|‖ · ‖p(x)/√|λ|‖), from the index alone. Table: ``products`` [N, k],
    ``labels`` [N], ``values`` [k]. Query: ``products`` [k].
    """

    name: ClassVar[Method] = "abif"

    def table(self, workspace: "Workspace", spec: RankSpec) -> Table | None:
        """Return the newest finished index for this checkpoint and scope; one with its basis first."""
        wanted = {**base_key(workspace, spec.checkpoint, spec.scope), "method": self.name}
        found = [Table(path, key) for path, key in workspace.artefacts.find("abif", **wanted)]
        finished = [table for table in found if table.complete]
        return next(iter(sorted(finished, key=lambda table: not has_basis(table))), None)

    def ready(self, workspace: "Workspace", spec: RankSpec, query: Query) -> Ready | None:
        """See base."""
        table = self.table(workspace, spec)
        return None if table is None else self.read(table, query)

    def read(self, table: Table, query: Query) -> Ready | None:
        """Return what one index keeps for a query, or None."""
        revision = table.revision(query)  # before the arrays: a write in between makes it older, never newer
        arrays = table.query(query)
        if arrays is None:
            return None
        manifest = table.manifest
        values = np.array(manifest["eigenvalues"], dtype=np.float64)
        index = IndexArrays(table.folder, manifest["rows"], len(values))
        # an eigenvalue that is zero up to rounding has no inverse: its direction is left out (Sec. 4.2)
        kept = np.abs(values) > RANK_TOLERANCE * np.abs(values).max()
        return Ready(
            table={
                "products": index.read("products")[:, kept],
                "labels": index.read("labels"),
                "values": values[kept],
            },
            query={"products": arrays["products"][kept]},
            key=table.key,
            made=manifest["made"],
            notes={
                **{name: table.key[name] for name in ("k", "iterations", "hessian_rows", "seed", "origin")},
                "negative": int((values[kept] < 0).sum()),
                "left_out": int((~kept).sum()),
            },
            revision=revision,
        )

    def scores(self, ready: Ready) -> Scores:
        """See base."""
        values = ready.table["values"]
        train = ready.table["products"].astype(np.float64)
        query = ready.query["products"].astype(np.float64)
        scores = train @ (query / values)
        half = 1 / np.sqrt(np.abs(values))
        norms = np.linalg.norm(train * half, axis=1) * np.linalg.norm(query * half)
        cosines, zero = safe_cosine(scores, norms)
        return Scores(scores, np.clip(cosines, -1, 1), zero, ready.table["labels"])

    def compute(self, workspace: "Workspace", spec: RankSpec, query: Query) -> Iterator[Progress]:
        """Project the query (and, to refresh, the relabelled rows) on the kept basis."""
        from influence_core.attribution.projection import Projection, load_basis

        table = self.table(workspace, spec)
        if table is None:
            raise UserError(
                f"there is no ABIF index for {workspace.name} yet: "
                f"build it with python -m influence_core index {workspace.name}, or rank with tracin"
            )
        if not has_basis(table):
            raise UserError(
                "this needs the eigenvectors, which the shipped index leaves out: build the basis with "
                f"python -m influence_core index {workspace.name}, or rank with tracin"
            )
        work = Projection(workspace, spec.checkpoint, spec.scope)
        basis = load_basis(table, work)
        yield Progress(phase="projecting the test row", done=0, total=1)
        table.write_query(query, {"products": work.project_query(query, basis)})
        yield Progress(phase="projecting the test row", done=1, total=1)
        if spec.refresh:
            with locked(table.lock):
                labels = workspace.labels()
                index = IndexArrays(table.folder, len(labels.values), table.key["k"])
                stale = np.flatnonzero(index.read("labels") != labels.values)
                phase = "projecting relabelled rows"
                dots, sqnorms = yield from work.collect(stale, basis, labels.values, phase)
                index.rewrite(stale, dots, sqnorms, labels.values[stale])
                table.finish({**table.manifest, "cursor": labels.cursor})


def has_basis(table: Table) -> bool:
    """Whether the eigenvectors lie beside the index."""
    return (table.folder / "basis.safetensors").exists()
