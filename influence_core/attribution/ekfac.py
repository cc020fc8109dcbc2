"""EK-FAC as a method, where the kronfluence library is installed."""

import hashlib
import shutil
from collections.abc import Generator, Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from influence_core.attribution.base import Cost, Query
from influence_core.attribution.gradient import Directions, GradientMethod, Pass, keep_norms
from influence_core.attribution.tables import Table
from influence_core.errors import UserError
from influence_core.events import Progress, through
from influence_core.home import read_json, write_json
from influence_core.runs.locks import locked
from influence_core.settings import EkfacSettings, Method
from influence_core.specs import Attributed

if TYPE_CHECKING:
    from influence_core.workspace import Workspace

QUERIES = "queries.json"
FACTORS = "kronfluence"  # its own files, a folder for each state of the labels
NAMED = 3  # parameters


class Ekfac(GradientMethod):
    """score = g_zᵀ (F + δ)⁻¹ g_x with kronfluence's F, cosine = score ÷ √(self-influence of z times that of x).

    Table and queries are those of a gradient method, with √self-influence as norms, and ``queries.json``
    beside them lists what was asked; how F is fitted is said in `ekfac_library`. F has no negative
    curvature, so the cosine is one. The manifest's notes name the parameters left out.
    """

    name: ClassVar[Method] = "ekfac"
    judges_itself: ClassVar[bool] = False  # only with the factors that a first ranking fits

    def unavailable(self, workspace: "Workspace", spec: Attributed) -> str | None:
        """See base."""
        if find_spec("kronfluence") is None:
            return "it needs the kronfluence library: run pip install -r requirements-ekfac.txt"
        return None

    def directions(self, given: Pass, queries: Sequence[Query]) -> Generator[Progress, None, Directions]:
        """Never asked: kronfluence makes the products itself."""
        raise NotImplementedError(self.name)

    def compute(
        self, workspace: "Workspace", spec: Attributed, queries: Sequence[Query], refresh: bool = False
    ) -> Iterator[Progress]:
        """Score the missing queries; to refresh, all that were ever asked, anew with the labels that stand now."""
        table = self.table(workspace, spec)
        with locked(table.lock):
            asked = _asked(table)
            anew = refresh and _stale(workspace, table)
            again = [query for query in asked if query not in queries] if anew else []
            missing = [query for query in queries if anew or not table.complete or table.query(query) is None]
            if missing or again:
                yield from self._score(workspace, spec, table, [*missing, *again], anew or not table.complete)

    def _score(
        self, workspace: "Workspace", spec: Attributed, table: Table, queries: Sequence[Query], anew: bool
    ) -> Iterator[Progress]:
        """Score some queries with the table's labels, or ``anew`` with those that stand now, for a new table."""
        from influence_core.attribution.ekfac_library import EkfacScores, ekfac
        from influence_core.attribution.hessian import hessian_numbers
        from influence_core.attribution.projection import Projection
        from influence_core.models.classifier import Rows
        from influence_core.models.loading import rows_of

        own = EkfacSettings(**spec.settings)
        work = Projection(workspace, spec.checkpoint, spec.scope, queries_only=True)
        current = workspace.labels()
        labels = current.values if anew else table.read_arrays("train")["labels"]
        train = rows_of(workspace, work.opened.whole, "train", labels)
        numbers = hessian_numbers(len(train), min(own.rows, len(train)), own.seed)
        sample = Rows(train.classifier, [train.items[int(row)] for row in numbers], labels[numbers])
        workspace.artefacts.make(self.name, table.key)
        kept = table.folder / FACTORS / hashlib.sha256(labels.tobytes()).hexdigest()[:16]
        fitting = ekfac(
            work.opened.whole,
            work.scope,
            train,
            work.queries(queries),
            sample,
            kept,
            damping=own.damping,
            seed=own.seed,
        )
        found = yield from through(fitting, EkfacScores)
        if anew:
            _clear(table, kept.name)
            notes = {"prefix": "kronfluence runs the whole model", "left_out": _named(found.left_out)}
            keep_norms(workspace, table, np.maximum(found.train, 0), labels, current.cursor, notes)
        norms = np.sqrt(np.maximum(found.queries, 0)).astype(np.float32)
        for place, query in enumerate(queries):
            products = found.pairwise[place].astype(np.float32)
            table.write_query(query, {"products": products, "norm": norms[place : place + 1]})
        asked = [] if anew else _asked(table)
        write_json(table.folder / QUERIES, [[one.example, one.target] for one in dict.fromkeys([*asked, *queries])])

    def cost(self, workspace: "Workspace", spec: Attributed, queries: Sequence[Query], refresh: bool = False) -> Cost:
        """See base: three passes over the sample, two over all rows."""
        table = self.table(workspace, spec)
        kept = all(table.complete and table.query(query) is not None for query in queries)
        if kept and not (refresh and _stale(workspace, table)):
            return Cost()
        n = len(workspace.train)
        return Cost(trained=3 * min(EkfacSettings(**spec.settings).rows, n) + 2 * n, vectors=64)

    def compute_self(self, workspace: "Workspace", spec: Attributed, refresh: bool = False) -> Iterator[Progress]:
        """Refuse until a ranking has fitted the factors."""
        yield from ()
        if not self.table(workspace, spec).complete:
            raise UserError("EK-FAC fits its factors with the first ranking: rank a test row by ekfac first")


def _asked(table: Table) -> list[Query]:
    """Return the queries that were scored; their files' names do not tell them."""
    file = table.folder / QUERIES
    return [Query(example, target) for example, target in read_json(file)] if file.exists() else []


def _stale(workspace: "Workspace", table: Table) -> bool:
    """Whether a training label changed since the table was made."""
    return table.complete and bool((table.read_arrays("train")["labels"] != workspace.labels().values).any())


def _clear(table: Table, factors: str) -> None:
    """Remove scores and factors of other labels, what marks them as finished first."""
    for name in ("manifest.json", QUERIES):
        (table.folder / name).unlink(missing_ok=True)
    shutil.rmtree(table.folder / "queries", ignore_errors=True)
    for folder in (table.folder / FACTORS).glob("*"):
        if folder.name != factors:
            shutil.rmtree(folder)


def _named(left_out: Sequence[str]) -> dict[str, Any]:
    """Return how many parameters were left out, and the first few's names."""
    return {"count": len(left_out), "first": list(left_out[:NAMED])}
