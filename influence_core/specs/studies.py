"""Specs of the paper's experiments."""

import operator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from influence_core.settings import Method, check_settings
from influence_core.specs.base import Attributed, Order, Scoped
from influence_core.specs.rankings import RankSpec, Solved
from influence_core.specs.wording import one_line


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


def _some_weight(value: float) -> float:
    if value == 0:
        raise ValueError("it perturbs nothing, give a weight such as -0.01")
    return value


Weight = Annotated[float, Field(ge=-1, le=1), AfterValidator(_some_weight)]  # of one training row, L + ε l_x


class FadingSpec(TrajectorySpec):
    """Measure R(t), how well scores predict loss shifts, step by step (paper, Sec. 5.2, Fig. 2)."""

    kind: Literal["fading"] = "fading"
    methods: tuple[Method, ...] = ()  # empty: all that can be used here, but for ekfac
    settings: dict[Method, dict[str, Any]] = Field(default_factory=dict, exclude_if=operator.not_)  # what differs
    train_rows: Annotated[int, Field(ge=3, le=1000)] = 32
    test_rows: Annotated[int, Field(ge=1, le=1000)] = 16
    epsilon: Weight = -0.01  # L − l_x/100
    repeats: Annotated[int, Field(ge=1, le=1000)] = 5

    @field_validator("settings")
    @classmethod
    def _known_settings(cls, given: dict[Method, dict[str, Any]]) -> dict[Method, dict[str, Any]]:
        try:
            checked = {method: check_settings(method, values) for method, values in given.items()}
        except ValidationError as error:
            raise ValueError(one_line(error)) from None
        return {method: values for method, values in checked.items() if values}

    def of_method(self, method: Method | None) -> Attributed:
        """See base; with the settings that this study has for the method."""
        own = {} if method is None else self.settings.get(method, {})
        return Attributed(**dict(super().of_method(method)) | {"settings": own})

    @model_validator(mode="after")
    def _of_methods(self) -> Self:
        odd = sorted(set(self.settings) - set(self.methods) if self.methods else {"ekfac"} & set(self.settings))
        if odd:
            raise ValueError(f"settings of {odd[0]}, which is not among the methods: leave them out, or add it")
        return self


Weights = Annotated[tuple[Annotated[float, Field(gt=0, le=1e6)], ...], Field(min_length=1)]


class DivergenceSpec(TrajectorySpec):
    """Measure ‖θ_ε − θ_0‖ while a few rows are up-sampled by several ε (paper, Sec. 5.1, Fig. 1)."""

    kind: Literal["divergence"] = "divergence"
    rows: Annotated[int, Field(ge=1, le=1000)] = 16
    epsilons: Weights = (0.01, 0.1, 1.0)
    bounds: bool = False  # Theorem 3's beside it, at 20 Hessian-vector products a step and ε


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


class HorizonSpec(TrajectorySpec, Attributed):
    """Measure for how many steps one test row's ranking can be trusted (DEFINITIONS, Trust horizon).

    Half of the training rows are random, half come from the ranking's two ends; a repeat has other
    random rows and other batches.
    """

    kind: Literal["horizon"] = "horizon"
    example: str
    target: str = "predicted"  # predicted, gold, or a label's name; the ranking's
    by: Order = "cosine"
    train_rows: Annotated[int, Field(ge=8, le=1000, multiple_of=4)] = 16
    trust: Annotated[float, Field(ge=0, lt=1)] = 0.3  # what the band's lower end has to reach
    epsilon: Weight = -0.01  # L − l_x/100
    steps: Annotated[int, Field(ge=1, le=10_000)] = 20

    @property
    def ranking(self) -> RankSpec:
        """The ranking whose horizon is asked for."""
        names = ("workspace", "checkpoint", "scope", "method", "settings", "example", "target", "by")
        return RankSpec(**{name: getattr(self, name) for name in names})


class ForecastSpec(TrajectorySpec):
    """Predict by Eq. 6, and by Eq. 2 beside it, what training on a row as well does to a test row's loss."""

    kind: Literal["forecast"] = "forecast"
    example: str
    target: str = "predicted"
    rows: Annotated[tuple[str, ...], Field(min_length=1, max_length=8)]  # training row ids, each on its own
    epsilon: Weight = -0.01
    steps: Annotated[int, Field(ge=1, le=10_000)] = 20
    repeats: Literal[1] = 1

    @property
    def ranking(self) -> RankSpec:
        """A ranking of the same test row for the same target."""
        names = ("workspace", "checkpoint", "scope", "example", "target")
        return RankSpec(**{name: getattr(self, name) for name in names})
