"""EK-FAC as a method, where the kronfluence library is installed."""

import shutil
from collections.abc import Generator, Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from influence_core.attribution.base import Cost, Query
from influence_core.attribution.gradient import Directions, GradientMethod
from influence_core.attribution.tables import Table, write_arrays
from influence_core.errors import UserError
from influence_core.events import Progress, through
from influence_core.runs.locks import locked
from influence_core.settings import EkfacSettings, Method
from influence_core.specs import Attributed

if TYPE_CHECKING:
    from influence_core.attribution.projection import Projection
    from influence_core.models.classifier import Parameters
    from influence_core.workspace import Workspace


class Ekfac(GradientMethod):
    """score = g_zᵀ (F + δ)⁻¹ g_x with kronfluence's F, cosine = score ÷ √(self-influence of z times that of x).

    Table and queries are those of a gradient method, with √self-influence as norms; how F is fitted
    is said in `ekfac_library`. F has no negative curvature, so the cosine is one.
    """

    name: ClassVar[Method] = "ekfac"
    judges_itself: ClassVar[bool] = False  # only with the factors that a first ranking fits

    def unavailable(self, workspace: "Workspace", spec: Attributed) -> str | None:
        """See base."""
        if find_spec("kronfluence") is None:
            return "it needs the kronfluence library: run pip install -r requirements-ekfac.txt"
        return None

    def directions(
        self, work: "Projection", spec: Attributed, queries: Sequence[Query], metric: "Parameters | None"
    ) -> Generator[Progress, None, Directions]:
        """Never asked: kronfluence makes the products itself."""
        raise NotImplementedError(self.name)

    def compute(
        self, workspace: "Workspace", spec: Attributed, queries: Sequence[Query], refresh: bool = False
    ) -> Iterator[Progress]:
        """Score the missing queries; to refresh, all of them anew with the labels that stand now."""
        table = self.table(workspace, spec)
        with locked(table.lock):
            labels = workspace.labels()
            if refresh and table.complete and (table.read_arrays("train")["labels"] != labels.values).any():
                _clear(table)
            missing = [query for query in queries if not table.complete or table.query(query) is None]
            if missing:
                yield from self._score(workspace, spec, table, missing)

    def _score(
        self, workspace: "Workspace", spec: Attributed, table: Table, queries: Sequence[Query]
    ) -> Iterator[Progress]:
        from influence_core.attribution.ekfac_library import EkfacScores, ekfac
        from influence_core.attribution.hessian import hessian_numbers
        from influence_core.attribution.projection import Projection
        from influence_core.models.classifier import Rows
        from influence_core.models.loading import rows_of

        own = EkfacSettings(**spec.settings)
        work = Projection(workspace, spec.checkpoint, spec.scope)
        current = workspace.labels()
        labels = table.read_arrays("train")["labels"] if table.complete else current.values
        train = rows_of(workspace, work.opened.whole, "train", labels)
        numbers = hessian_numbers(len(train), min(own.rows, len(train)), own.seed)
        sample = Rows(train.classifier, [train.items[int(row)] for row in numbers], labels[numbers])
        workspace.artefacts.make(self.name, table.key)
        fitting = ekfac(
            work.opened.whole,
            work.scope,
            train,
            work.queries(queries),
            sample,
            table.folder / "kronfluence",
            damping=own.damping,
            seed=own.seed,
        )
        found = yield from through(fitting, EkfacScores)
        if not table.complete:
            self.keep_norms(work, table, found.train, labels, current.cursor)
        norms = np.sqrt(np.maximum(found.queries, 0)).astype(np.float32)
        for place, query in enumerate(queries):
            products = found.pairwise[place].astype(np.float32)
            write_arrays(table.query_file(query), {"products": products, "norm": norms[place : place + 1]})

    def cost(self, workspace: "Workspace", spec: Attributed, queries: Sequence[Query], refresh: bool = False) -> Cost:
        """See base: three passes over the sample, two over all rows."""
        table = self.table(workspace, spec)
        if all(table.complete and table.query(query) is not None for query in queries) and not refresh:
            return Cost()
        n = len(workspace.train)
        return Cost(trained=3 * min(EkfacSettings(**spec.settings).rows, n) + 2 * n, vectors=64)

    def compute_self(self, workspace: "Workspace", spec: Attributed) -> Iterator[Progress]:
        """Refuse until a ranking has fitted the factors."""
        yield from ()
        if not self.table(workspace, spec).complete:
            raise UserError("EK-FAC fits its factors with the first ranking: rank a test row by ekfac first")


def _clear(table: Table) -> None:
    """Remove scores of labels that have changed, what marks them as finished first."""
    (table.folder / "manifest.json").unlink(missing_ok=True)
    for name in ("queries", "kronfluence"):
        shutil.rmtree(table.folder / name, ignore_errors=True)
