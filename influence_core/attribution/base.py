"""The contract of all attribution methods."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from influence_core.events import Progress
from influence_core.specs import Method, RankSpec

if TYPE_CHECKING:
    from influence_core.workspace import Workspace

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Query:
    """A test row z with the label whose loss is asked about."""

    example: str
    target: int  # class number


@dataclass(frozen=True)
class Scores:
    """One query's scores over all N training rows."""

    scores: np.ndarray  # [N] float64, predicted decrease of l_z per unit of ε
    cosines: np.ndarray  # [N] float64 in [−1, 1]; 0 where a norm is zero
    zero_norm: np.ndarray  # [N] bool, where that happened
    labels: np.ndarray  # [N] int64, the training labels that the products were made with


def safe_cosine(numerator: np.ndarray, denominator: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divide; a zero denominator gives 0 and is flagged (DEFINITIONS, Scores). Returns ([N], [N] bool)."""
    zero = denominator == 0
    return np.where(zero, 0.0, numerator / np.where(zero, 1.0, denominator)), zero


class Attributor(ABC):
    """A method that scores training rows for a test row.

    The sign: ``score(z, x)`` is the predicted **decrease** of the loss of z (with its target label)
    per unit of ε when x is up-weighted, Δl_z ≈ −ε · score. Positive means **proponent** (a step on
    x lowers the loss of the target: x supports that label), negative means **opponent**.

    A method keeps a *table*, a folder of training-side arrays that depend on no query, and beside
    it one file of arrays per query. `scores` combines the two in NumPy alone, so that a page
    can do it; `compute` makes what is missing with torch. Both rest on `gradients.project`: a
    method is which directions it projects on, and how it combines the products.
    """

    name: ClassVar[Method]

    @abstractmethod
    def ready(self, workspace: "Workspace", spec: RankSpec, query: Query) -> "Ready | None":
        """Return what is kept for this query, or None when `compute` has to run first."""

    @abstractmethod
    def scores(self, ready: "Ready") -> Scores:
        """Combine table and query; NumPy only, exact signs."""

    @abstractmethod
    def compute(self, workspace: "Workspace", spec: RankSpec, query: Query) -> Iterator[Progress]:
        """Make and keep the missing arrays (with ``spec.refresh`` also those of relabelled rows)."""


@dataclass(frozen=True)
class Ready:
    """The kept arrays that one query's scores follow from."""

    table: Arrays  # training side
    query: Arrays  # query side
    key: dict[str, Any]  # all that the table depends on
    made: str  # when the table was made (UTC)
    notes: dict[str, Any]  # settings to show
    revision: str  # changes whenever an array of it does
