"""Specs of the studies of corrections (paper, Sec. 6, App. H and I)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from influence_core.settings import Method
from influence_core.specs.base import Order, Scoped, Strategy
from influence_core.specs.studies import TrajectorySpec

HIGHEST_SHARE = 0.52  # where sweeps end: "slightly more than half of the batch" (paper, Sec. 6)
TRIES = 9  # learning rates that are tried at most
Share = Annotated[float, Field(gt=0, lt=1)]


class CorrectionStudySpec(TrajectorySpec):
    """Correct many mispredictions, each by every strategy, method, order and share (paper, Fig. 3 and 11).

    Without ``shares``, ``points`` of them from "no up-sampling", s₀ = k / (k + batch_size), to 0.52.
    """

    kind: Literal["correction"] = "correction"
    mispredictions: Annotated[int, Field(ge=2, le=10_000)] = 30
    strategies: Annotated[tuple[Strategy, ...], Field(min_length=1)] = (
        "proponents",
        "opponents",
        "random",
        "permuted",
    )
    methods: tuple[Method, ...] = ()  # empty: abif if an index exists, else tracin
    orders: Annotated[tuple[Order, ...], Field(min_length=1)] = ("cosine",)
    shares: tuple[Share, ...] = ()
    points: Annotated[int, Field(ge=1, le=50)] = 5
    k: Annotated[int, Field(ge=1)] = 12
    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    tune: bool = False  # choose the learning rate, on other mispredictions than those reported
    tuning: Annotated[int, Field(ge=2, le=1000)] = 8  # of them
    repeats: Literal[1] = 1

    @model_validator(mode="after")
    def _can_sweep(self) -> Self:
        if not self.shares and self.points > 1 and self.k >= self.batch_size:
            raise ValueError(
                f"k = {self.k} rows beside batches of {self.batch_size} carry "
                f"{100 * self.k / (self.k + self.batch_size):.3g} % of the weight without any up-sampling, so there is "
                "nothing to sweep up to half: lower k, raise batch_size, or give points = 1 or shares"
            )
        if self.tune and self.learning_rate is not None:
            raise ValueError(f"learning_rate = {self.learning_rate:g} and tune: give one of the two")
        return self

    @property
    def sweep(self) -> tuple[float, ...]:
        """The shares of the batch's weight that B is given."""
        if self.shares:
            return self.shares
        first = self.k / (self.k + self.batch_size)
        return tuple(first + (HIGHEST_SHARE - first) * i / max(1, self.points - 1) for i in range(self.points))


class MislabelledSpec(TrajectorySpec):
    """Find truly mislabelled training rows, and correct mispredictions by their mislabelled proponents (App. I).

    ``look`` is how many top proponents of a misprediction are looked at; those of them whose label
    differs from gold are its B.
    """

    kind: Literal["mislabelled"] = "mislabelled"
    methods: tuple[Method, ...] = ()  # of precision@k; empty: all that give self-influence here
    method: Method | None = None  # of the corrections; None: abif if an index exists, else tracin
    by: Order = "cosine"
    at: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (10, 20, 50, 100, 200, 400)
    mispredictions: Annotated[int, Field(ge=2, le=10_000)] = 30  # at most
    look: Annotated[int, Field(ge=1, le=1000)] = 10
    share: Share = 0.5  # of the batch's weight, however many rows B has
    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    repeats: Literal[1] = 1


class RetrainSpec(Scoped):
    """Train again with the relabels of one misprediction at a time: does it flip, and what does accuracy do (Sec. 6)?

    ``proponents`` sets the top k proponents to the desired label, ``gold`` those of them that are truly
    mislabelled to their true one; without ``strategies`` both, where the truth is known. A training begins at
    the base of the checkpoint's recipe (``start`` base) or goes on from the checkpoint; beside it the same is
    trained with no label changed, and ``repeats`` times more with other seeds.
    """

    kind: Literal["retrain"] = "retrain"
    mispredictions: Annotated[int, Field(ge=1, le=10_000)] = 10
    strategies: tuple[Literal["proponents", "gold"], ...] = ()
    method: Method | None = None  # None: abif if an index exists, else tracin
    by: Order = "cosine"
    k: Annotated[int, Field(ge=1)] = 12
    together: bool = False  # the relabels of all mispredictions in one training
    start: Literal["base", "checkpoint"] = "base"
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None  # None: the recipe's; from a checkpoint 1
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    repeats: Annotated[int, Field(ge=0, le=1000)] = 2
    seed: Annotated[int, Field(ge=0)] = 0  # of the mispredictions; of a training from a checkpoint as well
    budget_minutes: Annotated[float, Field(gt=0)] | None = None  # begin no training that would end later
