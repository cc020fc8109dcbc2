"""The contract of all attribution methods."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.settings import METHOD_NAMES, Method
from influence_core.specs import Attributed

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
    labels: np.ndarray  # [N] int64, the training labels that the products were made with; −1: of several


@dataclass(frozen=True)
class SelfScores:
    """score(x, x) of all N training rows, with their own labels as targets."""

    scores: np.ndarray  # [N] float64
    labels: np.ndarray  # [N] int64, the labels they were made with
    made: str  # when (UTC)


@dataclass(frozen=True)
class Ready:
    """The kept arrays that one query's scores follow from."""

    table: Arrays  # training side
    query: Arrays  # query side
    key: dict[str, Any]  # all that the table depends on
    made: str  # when the table was made (UTC)
    notes: dict[str, Any]  # settings to show
    revision: str  # changes whenever an array of it does
    parts: tuple["Ready", ...] = field(default=())  # of a method that combines others


@dataclass(frozen=True)
class Cost:
    """What is left to compute, in units that `estimates` turns into time and memory."""

    forward: int = 0  # rows predicted
    projections: tuple[tuple[int, int], ...] = ()  # passes, each (rows, directions)
    hessian: int = 0  # rows times Hessian-vector products
    trained: int = 0  # rows, forward and backward
    vectors: int = 0  # vectors of all the scope's parameters held at once

    def __add__(self, other: "Cost") -> "Cost":
        """Return both, one after the other."""
        return Cost(
            forward=self.forward + other.forward,
            projections=self.projections + other.projections,
            hessian=self.hessian + other.hessian,
            trained=self.trained + other.trained,
            vectors=max(self.vectors, other.vectors),
        )


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
    can do it; `compute` makes what is missing with torch, for many queries at a time. All rest on
    `gradients.project`: a method is which directions it projects on, and how it combines the
    products. Every spec given here is an `Attributed` one: checkpoint, scope and the method's settings.
    """

    name: ClassVar[Method]
    control: ClassVar[bool] = False  # it knows nothing of parameters or of the loss
    judges_itself: ClassVar[bool] = False  # it gives self-influence

    def unavailable(self, workspace: "Workspace", spec: Attributed) -> str | None:
        """Return why the method cannot be used here, in words for a page; None where it can. NumPy only."""
        return None

    @abstractmethod
    def ready(self, workspace: "Workspace", spec: Attributed, query: Query) -> Ready | None:
        """Return what is kept for this query, or None when `compute` has to run first; NumPy only."""

    @abstractmethod
    def scores(self, ready: Ready) -> Scores:
        """Combine table and query; NumPy only, exact signs."""

    @abstractmethod
    def compute(
        self, workspace: "Workspace", spec: Attributed, queries: Sequence[Query], refresh: bool = False
    ) -> Iterator[Progress]:
        """Make and keep the arrays that queries miss; with ``refresh`` also those of relabelled rows."""

    @abstractmethod
    def cost(self, workspace: "Workspace", spec: Attributed, queries: Sequence[Query], refresh: bool = False) -> Cost:
        """Return what `compute` would have to do; NumPy only."""

    def self_scores(self, workspace: "Workspace", spec: Attributed) -> SelfScores | None:
        """Return every training row's influence on itself, or None when `compute_self` has to run first."""
        raise UserError(f"{METHOD_NAMES[self.name]} gives no self-influence: choose abif or a TracIn")

    def compute_self(self, workspace: "Workspace", spec: Attributed, refresh: bool = False) -> Iterator[Progress]:
        """Make what `self_scores` needs; with ``refresh`` also that of rows relabelled since."""
        self.self_scores(workspace, spec)
        yield from ()
