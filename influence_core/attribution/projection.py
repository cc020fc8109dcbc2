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
from influence_core.events import Progress
from influence_core.gradients.project import iterate, project
from influence_core.gradients.rows import row_gradients
from influence_core.models.classifier import Batch, Parameters, Rows
from influence_core.models.loading import load, rows_of, scope_of

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
    """One checkpoint and scope of a workspace, loaded, with what is projected there."""

    def __init__(self, workspace: "Workspace", checkpoint: str | None, scope: str | None) -> None:
        self.workspace = workspace
        self.classifier = load(workspace, checkpoint)
        self.scope = scope_of(workspace, self.classifier, scope)

    def query_batch(self, query: Query) -> "Rows":
        """Return the query's row, with its target as the label."""
        split, row = self.workspace.locate(query.example)
        items = rows_of(self.workspace, self.classifier, split).items
        return Rows(self.classifier, [items[row]], [query.target])

    def query_directions(self, queries: Sequence[Query]) -> tuple[Parameters, np.ndarray]:
        """Return the queries' loss gradients as directions {name: [Q, *shape]}, and their norms [Q]."""
        own = self.classifier.parameters(self.scope)
        directions = {name: value.new_zeros(len(queries), *value.shape) for name, value in own.items()}
        squares = torch.zeros(len(queries), dtype=torch.float64)
        for place, query in enumerate(queries):
            gradient = row_gradients(self.classifier, self.scope, self.query_batch(query).batch([0]))
            for name, value in gradient.items():
                directions[name][place] = value[0]
                squares[place] += value[0].double().square().sum().cpu()
        return directions, squares.sqrt().numpy().astype(np.float32)

    def project_query(self, query: Query, directions: Parameters) -> np.ndarray:
        """Return one query's products with the directions, [K] float32."""
        batch = self.query_batch(query).batch([0])
        return project(self.classifier, self.scope, [batch], directions).dots[0].float().cpu().numpy()

    def project(
        self, numbers: np.ndarray, directions: Parameters, labels: np.ndarray, phase: str
    ) -> Iterator[Progress | Piece]:
        """Project training rows, with the given labels ([N], of all rows), in shards of fixed rows.

        Within a shard like lengths go together; shards, batches and padding depend on ``numbers``
        alone, so the products do not depend on who computes them.
        """
        everything = rows_of(self.workspace, self.classifier, "train", labels)
        chosen = Rows(self.classifier, [everything.items[int(row)] for row in numbers], labels[numbers])
        done = 0
        for start in range(0, len(numbers), SHARD):
            places: list[np.ndarray] = []
            stop = min(start + SHARD, len(numbers))

            def batches(start: int = start, stop: int = stop, places: list[np.ndarray] = places) -> Iterator[Batch]:
                for where, batch in chosen.buckets(start, stop, BATCH):
                    places.append(where)
                    yield batch

            for number, products in enumerate(iterate(self.classifier, self.scope, batches(), directions)):
                where = places[number]
                yield Piece(where, products.dots.float().cpu().numpy(), products.sqnorms.float().cpu().numpy())
                done += len(where)
                yield Progress(phase=phase, done=done, total=len(numbers))

    def collect(
        self, numbers: np.ndarray, directions: Parameters, labels: np.ndarray, phase: str
    ) -> Generator[Progress, None, tuple[np.ndarray, np.ndarray]]:
        """Project as `project` does; returns products [n, K] and squared norms [n], in order of ``numbers``."""
        count = len(next(iter(directions.values())))
        dots, sqnorms = np.zeros((len(numbers), count), np.float32), np.zeros(len(numbers), np.float32)
        for event in self.project(numbers, directions, labels, phase):
            if isinstance(event, Progress):
                yield event
            else:
                dots[event.where], sqnorms[event.where] = event.dots, event.sqnorms
        return dots, sqnorms


def load_basis(table: Table, work: Projection) -> Parameters:
    """Read an index's eigenvectors as directions {name: [k, *shape]}."""
    flat = load_file(table.folder / "basis.safetensors", device=str(work.classifier.device))["vectors"]
    return directions_from_flat(flat, work.classifier.parameters(work.scope))
