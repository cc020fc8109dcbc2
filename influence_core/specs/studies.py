"""Specs of the paper's experiments."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from influence_core.settings import Method
from influence_core.specs.base import Scoped
from influence_core.specs.rankings import Solved


class StabilitySpec(Solved):
    """Compare ABIF rankings between Hessian samples: each size with seed 0, and the first size with other seeds."""

    kind: Literal["stability"] = "stability"
    hessian_rows: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (256, 128, 512)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1)
    queries: Annotated[int, Field(ge=1)] = 16
    top: Annotated[int, Field(ge=1)] = 20


class TrajectorySpec(Scoped):
    """A spec whose work is base and perturbed trajectories from one checkpoint, in repeats that are kept.

    A repeat draws its own rows, seeded (seed, repeat); batches and random streams are those of ``seed``
    in all of them (paper, Sec. 5: "deterministic training").
    """

    steps: Annotated[int, Field(ge=1, le=10_000)] = 40
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    optimizer: Literal["checkpoint", "sgd", "adam"] = "checkpoint"
    optimizer_state: Literal["checkpoint", "warm", "zeros"] | None = None
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    dropout: bool = True
    dtype: Literal["float32", "float64"] | None = None  # None: the checkpoint's own
    repeats: Annotated[int, Field(ge=1, le=1000)] = 1
    seed: Annotated[int, Field(ge=0)] = 0
    budget_minutes: Annotated[float, Field(gt=0)] | None = None  # begin no repeat that would end later


class FadingSpec(TrajectorySpec):
    """Measure R(t), how well scores predict loss shifts, step by step (paper, Sec. 5.2, Fig. 2)."""

    kind: Literal["fading"] = "fading"
    methods: tuple[Method, ...] = ()  # empty: all that can be used here, but for ekfac
    train_rows: Annotated[int, Field(ge=3, le=1000)] = 32
    test_rows: Annotated[int, Field(ge=1, le=1000)] = 16
    epsilon: Annotated[float, Field(ge=-1, le=1)] = -0.01  # of one training row: L − l_x/100
    repeats: Annotated[int, Field(ge=1, le=1000)] = 5

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if self.epsilon == 0:
            raise ValueError("epsilon = 0 perturbs nothing: give a weight, such as -0.01")
        return self


Weights = Annotated[tuple[Annotated[float, Field(gt=0, le=1e6)], ...], Field(min_length=1)]


class DivergenceSpec(TrajectorySpec):
    """Measure ‖θ_ε − θ_0‖ while a few rows are up-sampled by several ε (paper, Sec. 5.1, Fig. 1)."""

    kind: Literal["divergence"] = "divergence"
    rows: Annotated[int, Field(ge=1, le=1000)] = 16
    epsilons: Weights = (0.01, 0.1, 1.0)


class TracinErrorSpec(TrajectorySpec):
    """Measure how much more Eq. 2's Jacobian errs than Eq. 6's, by ε, with SGD (paper, App. K, Fig. 12)."""

    kind: Literal["tracin-error"] = "tracin-error"
    rows: Annotated[int, Field(ge=1, le=1000)] = 16
    epsilons: Weights = (1e-4, 1e-3, 1e-2, 1e-1)
    dtypes: Annotated[tuple[Literal["float32", "float64"], ...], Field(min_length=1)] = ("float64", "float32")
    optimizer: Literal["sgd"] = "sgd"

    @model_validator(mode="after")
    def _dtypes(self) -> Self:
        if self.dtype is not None:
            raise ValueError(f"dtype = {self.dtype!r}: this study compares precisions, give dtypes")
        return self
