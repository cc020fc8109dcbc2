"""Projecting a workspace's rows: directions from queries or a basis, rows by shard."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file

from influence_core.attribution.base import Query
from influence_core.attribution.tables import SHARD, Table
from influence_core.curvature.flat import directions_from_flat
from influence_core.events import Progress, through
from influence_core.gradients.project import iterate
from influence_core.gradients.rows import row_gradients
from influence_core.models import prefix
from influence_core.models.classifier import Batch, Parameters, Rows
from influence_core.models.loading import rows_of
from influence_core.sizes import record_outputs, record_size

if TYPE_CHECKING:
    from influence_core.workspace import Workspace

BATCH = 64  # rows; the fastest on 2 cores, and small enough for one layer's gradients


@dataclass(frozen=True)
class Piece:
    """Products of some of the asked rows."""

    where: np.ndarray  # [B] places in the list of rows asked for
    dots: np.ndarray  # [B, K] float32
    sqnorms: np.ndarray  # [B] float32


class Projection:
    """One checkpoint and scope of a workspace, loaded, with what is projected there.

    Training rows start from the frozen prefix's outputs, which are computed and kept where they are
    missing; with ``asked`` only those of rows that come up are computed, and not kept; with ``few`` the
    whole model is used instead. Queries go through the whole model, which with ``queries_only`` is all
    that is opened.
    """

    def __init__(
        self,
        workspace: "Workspace",
        checkpoint: str | None,
        scope: str | None,
        *,
        few: bool = False,
        asked: bool = False,
        queries_only: bool = False,
    ) -> None:
        self.workspace, self._checkpoint, self._asked = workspace, checkpoint, asked
        if queries_only:
            self.opened = prefix.open_whole(workspace, checkpoint, scope)
        else:
            self.opened = prefix.open_scope(workspace, checkpoint, scope, only_kept=few)
        self.classifier, self.scope = self.opened.classifier, self.opened.scope
        self._rows: Rows | None = None
        record_size(workspace, checkpoint, self.scope.name, self.size)

    @property
    def size(self) -> int:
        """P, the number of parameters in the scope."""
        return sum(value.numel() for value in self.classifier.parameters(self.scope).values())

    @property
    def prefix(self) -> str:
        """Whether the frozen prefix's outputs are kept, or why not; for manifests."""
        return self.opened.reason or ("asked" if self._asked else "kept")

    def train(self, labels: np.ndarray | None = None) -> Generator[Progress, None, Rows]:
        """Return the training rows, with their original labels unless others are given ([N])."""
        if self._rows is None:
            self._rows = yield from through(prefix.rows(self.workspace, self.opened, "train", few=self._asked), Rows)
            if self.opened.reason is None and not isinstance(self._rows.items, prefix.Asked):
                record_outputs(self.workspace, self._checkpoint, self.scope.name)
        return self._rows if labels is None else Rows(self.classifier, self._rows.items, labels)

    def queries(self, queries: Sequence[Query]) -> Rows:
        """Return the queries' rows, with their targets as labels, for the whole classifier."""
        items = []
        for query in queries:
            split, row = self.workspace.locate(query.example)
            items.append(rows_of(self.workspace, self.opened.whole, split).items[row])
        return Rows(self.opened.whole, items, [query.target for query in queries])

    def query_directions(self, queries: Sequence[Query]) -> tuple[Parameters, np.ndarray]:
        """Return the queries' loss gradients as directions {name: [Q, *shape]}, and their norms [Q]."""
        own = self.classifier.parameters(self.scope)
        directions = {name: value.new_zeros(len(queries), *value.shape) for name, value in own.items()}
        squares = torch.zeros(len(queries), dtype=torch.float64, device=self.classifier.device)
        rows = self.queries(queries)
        for place in range(len(queries)):  # one at a time: each without another's padding
            gradient = row_gradients(rows.classifier, self.scope, rows.batch([place]))
            for name, value in gradient.items():
                directions[name][place] = value[0]
                squares[place] += value[0].double().square().sum()
        return directions, squares.sqrt().cpu().numpy().astype(np.float32)

    def project_queries(
        self, queries: Sequence[Query], directions: Parameters
    ) -> Generator[Progress, None, np.ndarray]:
        """Return the queries' products with the directions, [Q, K] float32."""
        rows = self.queries(queries)
        dots = np.zeros((len(queries), len(next(iter(directions.values())))), np.float32)
        batches = (rows.batch([place]) for place in range(len(queries)))
        phase = "projecting the test rows" if len(queries) > 1 else "projecting the test row"
        for place, products in enumerate(iterate(rows.classifier, self.scope, batches, directions)):
            dots[place] = products.dots[0].float().cpu().numpy()
            yield Progress(phase=phase, done=place + 1, total=len(queries))
        return dots

    def project(
        self,
        numbers: np.ndarray,
        directions: Parameters,
        labels: np.ndarray,
        phase: str,
        metric: Parameters | None = None,
    ) -> Iterator[Progress | Piece]:
        """Project training rows, with the given labels ([N], of all rows), in shards of fixed rows.

        Within a shard like lengths go together; shards, batches and padding depend on ``numbers``
        alone, so the products do not depend on who computes them.
        """
        everything = yield from self.train(labels)
        if isinstance(everything.items, prefix.Asked):
            yield from everything.items.fetch(numbers.tolist())
        chosen = Rows(self.classifier, [everything.items[int(row)] for row in numbers], labels[numbers])
        places: list[np.ndarray] = []

        def batches() -> Iterator[Batch]:
            for start in range(0, len(numbers), SHARD):
                for where, batch in chosen.buckets(start, min(start + SHARD, len(numbers)), BATCH):
                    places.append(where)
                    yield batch

        done = 0
        for products in iterate(self.classifier, self.scope, batches(), directions, metric):
            where = places.pop()
            yield Piece(where, products.dots.float().cpu().numpy(), products.sqnorms.float().cpu().numpy())
            done += len(where)
            yield Progress(phase=phase, done=done, total=len(numbers))

    def collect(
        self,
        numbers: np.ndarray,
        directions: Parameters,
        labels: np.ndarray,
        phase: str,
        metric: Parameters | None = None,
    ) -> Generator[Progress, None, tuple[np.ndarray, np.ndarray]]:
        """Project as `project` does; returns products [n, K] and squared norms [n], in order of ``numbers``."""
        count = len(next(iter(directions.values()), ()))
        dots, sqnorms = np.zeros((len(numbers), count), np.float32), np.zeros(len(numbers), np.float32)
        for event in self.project(numbers, directions, labels, phase, metric):
            if isinstance(event, Progress):
                yield event
            else:
                dots[event.where], sqnorms[event.where] = event.dots, event.sqnorms
        return dots, sqnorms


def load_basis(table: Table, work: Projection) -> Parameters:
    """Read an index's eigenvectors as directions {name: [k, *shape]}."""
    flat = load_file(table.folder / "basis.safetensors", device=str(work.classifier.device))["vectors"]
    return directions_from_flat(flat, work.classifier.parameters(work.scope))
