"""What the user asked for, validated once; JSON on disk and on the wire.

A spec names a run kind, a workspace and everything else a run depends on. Pages, command line and
scripts build the same specs; ``runs.registry`` knows which code runs each kind.
"""

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from influence_core.errors import UserError
from influence_core.settings import SETTINGS, Method, Settings, check_settings

Order = Literal["cosine", "score"]
Strategy = Literal["proponents", "opponents", "random"]
Split = Literal["train", "validation", "test"]

DEFAULT_HESSIAN_ROWS = 256
WARM_BATCHES = 100  # batches at zero learning rate that warm an optimizer (DEFINITIONS, Perturbation and step)
RETENTION_ROWS = 50  # test rows whose predictions a correction should not change
DEFAULT_SCOPE = "last:2"
DEFAULT_RATE = {"adam": 1e-5, "sgd": 1e-3}


class Spec(BaseModel):
    """Base of all specs: frozen, no unknown fields, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    workspace: str
    checkpoint: str | None = None  # None: the workspace's first


def _known_scope(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"head|all|last:[1-9]\d*", value):
        raise ValueError(f"scope {value!r} is not one of head, last:n (as in last:2), all: choose one")
    return value


Scope = Annotated[str | None, AfterValidator(_known_scope)]


class Scoped(Spec):
    """A spec whose work is restricted to a parameter scope (``head``, ``last:n``, ``all``)."""

    scope: Scope = None  # None: the workspace's


class Attributed(Scoped):
    """A spec that names an attribution method, with the method's own settings (`influence_core.settings`)."""

    method: Method | None = None  # None: abif if an index exists, else tracin
    settings: dict[str, Any] = {}  # only those that differ from the default

    @model_validator(mode="before")
    @classmethod
    def _known_settings(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("settings"), dict):
            return values
        if values.get("method") not in {None, *SETTINGS}:
            return values  # the field's own check says so
        try:
            return {**values, "settings": check_settings(values.get("method"), values["settings"])}
        except ValidationError as error:
            raise ValueError(one_line(error)) from None

    @property
    def own(self) -> Settings:
        """The method's settings, defaults included."""
        return SETTINGS[self.method or "tracin"](**self.settings)


class Sources(BaseModel):
    """A checkpoint and data (paths, or hub names), and how to read them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: str  # a folder, a Trainer's output folder, a weights file, or a hub name
    also: tuple[str, ...] = ()  # more checkpoints of the same training (Eq. 2)
    revision: str | None = None  # of a checkpoint from the hub
    architecture: str | None = None  # of a torchvision state dict: resnet18, resnet18-cifar, …
    data: str  # a file, a folder, or a hub name
    configuration: str | None = None  # of a data set from the hub
    data_revision: str | None = None  # of a data set from the hub
    train: str | None = None  # the split that is trained on, by its own name, where the data has named splits
    validation: str | None = None  # a path, or a split's own name
    test: str | None = None  # a path, or a split's own name
    text_column: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    id_column: str | None = None
    classes: dict[str, str] = {}  # label in the data → class of the checkpoint; empty: matched by name, or number
    label_words: dict[str, str] = {}  # class → what a T5 checkpoint says for it; empty: the class's name
    prefix: str | None = None  # put before every text; None: what the checkpoint records
    max_length: Annotated[int, Field(ge=4, le=4096)] | None = None  # tokens; None: the checkpoint's own, at most 256
    drop_broken: bool = False  # leave rows out that cannot be used; otherwise they are listed and refused
    scope: Scope = None  # None: what the workspace has, last:2 for a new one


class OpenSpec(Sources):
    """Make a workspace from a checkpoint and data."""

    kind: Literal["open"] = "open"


class CheckSpec(Sources):
    """Look at a checkpoint and data as opening would, and report; makes nothing (`influence_core.survey`)."""

    kind: Literal["check"] = "check"

    @property
    def opening(self) -> OpenSpec:
        """The spec that opens the same."""
        return OpenSpec(**self.model_dump(exclude={"kind"}))


class PredictSpec(Spec):
    """Predict one split of a workspace with one of its checkpoints."""

    kind: Literal["predict"] = "predict"
    split: Split = "test"


class Solved(Scoped):
    """A spec whose work begins with the Hessian's eigenpairs."""

    k: Annotated[int, Field(ge=1, le=512)] = 32
    iterations: Annotated[int, Field(ge=1, le=2048)] = 64

    @model_validator(mode="after")
    def _enough_iterations(self) -> Self:
        if self.k > self.iterations:
            raise ValueError(f"k = {self.k} needs at least as many iterations, got {self.iterations}: raise iterations")
        return self


class IndexSpec(Solved):
    """Build the ABIF index: eigenpairs of the Hessian, then every training row's products."""

    kind: Literal["index"] = "index"
    hessian_rows: Annotated[int, Field(ge=1)] | None = None  # None: 256, or all rows where there are fewer
    seed: Annotated[int, Field(ge=0)] = 0
    rebuild: bool = False  # start over, with the labels that stand now


class RankSpec(Attributed):
    """Rank the training rows for one test row."""

    kind: Literal["rank"] = "rank"
    example: str
    target: str = "predicted"  # predicted, gold, or a label's name
    by: Order = "cosine"
    top: Annotated[int, Field(ge=1, le=100_000)] = 50
    refresh: bool = False  # re-project training rows relabelled since the products were made


class ExplainSpec(Attributed):
    """Compute what the rankings of many test rows need, many at a time: by default of all mispredictions."""

    kind: Literal["explain"] = "explain"
    split: Split = "test"
    examples: tuple[str, ...] = ()  # empty: every misprediction of the split
    target: str = "predicted"


class SuspectsSpec(Attributed):
    """Rank the training rows by their influence on themselves (DEFINITIONS, Self-influence)."""

    kind: Literal["suspects"] = "suspects"
    top: Annotated[int, Field(ge=1, le=100_000)] = 50
    refresh: bool = False  # re-project training rows relabelled since the products were made


class StabilitySpec(Solved):
    """Compare ABIF rankings between Hessian samples: each size with seed 0, and the first size with other seeds."""

    kind: Literal["stability"] = "stability"
    hessian_rows: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (256, 128, 512)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1)
    queries: Annotated[int, Field(ge=1)] = 16
    top: Annotated[int, Field(ge=1)] = 20


class CorrectionSpec(Attributed):
    """Fine-tune a few steps on L + ε·l_B and watch one misprediction (paper, Sec. 6).

    The weight of B is given as ``epsilon`` or as ``share`` s = ε / (1 + ε); neither means the
    share k / (k + batch_size), "no up-sampling".
    """

    kind: Literal["correct"] = "correct"
    example: str
    strategy: Strategy = "proponents"
    by: Order = "cosine"
    desired: str = "gold"
    target: str = "predicted"
    k: Annotated[int, Field(ge=1)] = 12
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    epsilon: Annotated[float, Field(ge=0, le=1e6)] | None = None
    share: Annotated[float, Field(ge=0, lt=1)] | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    optimizer: Literal["checkpoint", "sgd", "adam"] = "checkpoint"
    optimizer_state: Literal["checkpoint", "warm", "zeros"] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    after_flip: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one_weight(self) -> Self:
        if self.epsilon is not None and self.share is not None:
            raise ValueError(f"give epsilon ({self.epsilon}) or share ({self.share}), not both")
        return self

    @property
    def weight(self) -> float:
        """The weight ε of l_B in L + ε·l_B."""
        if self.epsilon is not None:
            return self.epsilon
        share = self.k / (self.k + self.batch_size) if self.share is None else self.share
        return share / (1 - share)


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


AnySpec = (
    OpenSpec
    | CheckSpec
    | PredictSpec
    | IndexSpec
    | RankSpec
    | ExplainSpec
    | SuspectsSpec
    | CorrectionSpec
    | StabilitySpec
    | FadingSpec
    | DivergenceSpec
    | TracinErrorSpec
)
LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
KINDS = (
    "open",
    "check",
    "predict",
    "index",
    "rank",
    "explain",
    "suspects",
    "correct",
    "stability",
    "fading",
    "divergence",
    "tracin-error",
)
_adapter: TypeAdapter[AnySpec] = TypeAdapter(Annotated[AnySpec, Field(discriminator="kind")])


def parse_spec(value: dict[str, Any] | str | bytes) -> AnySpec:
    """Read a spec from JSON; raises `UserError` with one line that says what is wrong."""
    try:
        return _adapter.validate_python(value) if isinstance(value, dict) else _adapter.validate_json(value)
    except ValidationError as error:
        raise UserError(one_line(error)) from None


def _whole(limit: Any) -> Any:
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit


def one_line(error: ValidationError) -> str:
    """Say the first thing that pydantic found wrong, with the value, in one line."""
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    if location and location[0] in KINDS:  # the union's tag, which no user typed
        location = location[1:]
    name = ".".join(location)
    message = first["msg"].removeprefix("Value error, ")
    given = first.get("ctx", {})
    limits = {f"give {word} {_whole(given[key])}" for key, word in LIMITS.items() if key in given}
    if limits:
        message = " and ".join(sorted(limits))
    elif first["type"] == "literal_error":
        message = f"choose one of {first['ctx']['expected']}"
    value = first.get("input")
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name} must be a finite number, got {value}: give a finite value"
    if name and not isinstance(value, dict):
        return f"{name} = {value!r}: {message}"
    return f"{name}: {message}" if name else message
