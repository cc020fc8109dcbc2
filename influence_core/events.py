"""What a long loop yields: progress, steps, and at the end its result.

Every run is a generator of these. The command line prints them, the worker writes them as lines
of ``events.jsonl``, a test counts them.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class Event(BaseModel):
    """Base of all events; frozen, JSON in and out, told apart by ``type``."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Progress(Event):
    """``done`` of ``total`` units of a named phase ("warming the optimizer", 12, 100, "batches")."""

    type: Literal["progress"] = "progress"
    phase: str
    done: int
    total: int
    unit: str = "rows"


def _unsaid(value: float | None) -> bool:
    return value is None


Unsaid = Annotated[float | None, Field(exclude_if=_unsaid)]


class Step(Event):
    """One step of a correction, from step 0 (nothing done yet); fields as in the command contract.

    ``loss`` and ``probability`` are of the desired label on the corrected test row; ``base_*`` are
    the same row on the trajectory without the perturbation; ``divergence`` is the parameter
    distance between the two; ``retention`` and ``changed`` (test row ids) compare the perturbed
    trajectory's predictions on the retention rows with step 0; ``near_retention`` and ``far_retention`` are
    of the half of these rows most similar to the corrected row and of the rest; ``validation_loss`` is the
    mean over fixed validation rows (`correction.reading`). ``predicted_*`` (Eq. 6)
    and ``additive_*`` (Eq. 2) are what influence predicts of ``loss`` and ``probability`` (`correction.predicting`).
    What is None is left out of the JSON: not asked for, or not defined.
    """

    type: Literal["step"] = "step"
    step: int
    loss: float
    probability: float
    prediction: str
    base_loss: float
    base_probability: float
    base_prediction: str
    divergence: float
    integrated_lr: float
    retention: float
    changed: list[str]
    near_retention: Unsaid = None
    far_retention: Unsaid = None
    validation_loss: Unsaid = None
    predicted_loss: Unsaid = None
    predicted_probability: Unsaid = None
    additive_loss: Unsaid = None
    additive_probability: Unsaid = None


class Reading(BaseModel):
    """One of several corrected rows after a step: as in `Step`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    example: str
    loss: float
    probability: float
    prediction: str
    base_probability: float
    base_prediction: str


class SetStep(Event):
    """One step of a correction of several rows together, from step 0; what they share is as in `Step`.

    ``flipped`` counts those that are predicted as desired. ``near_retention`` is of the half of the
    retention rows most similar to any of the corrected ones.
    """

    type: Literal["set-step"] = "set-step"
    step: int
    flipped: int
    examples: list[Reading]
    divergence: float
    integrated_lr: float
    retention: float
    changed: list[str]
    near_retention: Unsaid = None
    far_retention: Unsaid = None
    validation_loss: Unsaid = None

    @staticmethod
    def all_flipped(steps: "Sequence[SetStep]") -> int | None:
        """Return the first step at which all examples are predicted as desired, None if there is none."""
        return next((step.step for step in steps if step.flipped == len(step.examples)), None)


class Correlation(BaseModel):
    """R(t) of one method at one step; None where it is not defined (all shifts equal)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    own: float | None  # of this repeat
    r: float | None  # over the repeats up to this one, with the 95 % band
    low: float | None
    high: float | None


class Fading(Event):
    """One step of one repeat of the fading study, from step 1; repeats that were kept come at once."""

    type: Literal["fading"] = "fading"
    repeat: int  # from 1
    repeats: int
    step: int
    integrated_lr: float
    divergence: float  # mean ‖θ_ε − θ_0‖ over the perturbed trajectories
    noise: float | None = None  # ‖θ − θ_0‖ of the repeat at ε = 0, exactly 0 where arithmetic repeats; None: not kept
    methods: dict[str, Correlation]


class Result(Event):
    """The last event of a run that finished: its outcome, as JSON."""

    type: Literal["result"] = "result"
    value: dict[str, Any]


AnyStep = Step | SetStep
Written = Progress | Step | SetStep | Fading | Result
AnyEvent = Annotated[Written, Field(discriminator="type")]
Events = Iterator[Written]

T = TypeVar("T")


def through(events: Iterator[Progress | T], kind: type[T]) -> Generator[Progress, None, T]:
    """Pass progress on to whoever follows, and return the one item of another kind.

    Used as ``found = yield from through(events, Kind)``; raises `RuntimeError` if there is none.
    """
    found: T | None = None
    for item in events:
        if isinstance(item, kind):
            found = item
        elif isinstance(item, Progress):
            yield item
    if found is None:
        raise RuntimeError(f"the events ended without a {kind.__name__}")
    return found


_adapter: TypeAdapter[Written] = TypeAdapter(AnyEvent)


def parse(line: str | bytes) -> Written:
    """Read one line of ``events.jsonl``."""
    return _adapter.validate_json(line)
