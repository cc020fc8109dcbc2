"""How far a ranking can be trusted, and what training on a row would do, as a person and a program read them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from influence_core.settings import Method
from influence_core.specs import Order


class Course(BaseModel):
    """R(t) over steps 1 … T with its 95 % band; None where it is not defined (all scores or shifts equal)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int  # training rows of a repeat that it is over
    r: list[float | None]  # [T]
    low: list[float | None]  # [T]
    high: list[float | None]  # [T]
    peak: int | None  # step of the largest R; None where R is nowhere known
    horizon: int | None  # steps to trust, counted from step 0; None: not one


class Followed(BaseModel):
    """What was trained on and how, of trajectories whose loss of one test row was read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    example: str
    target: str  # the label whose loss is read
    scope: str
    checkpoint: str
    optimizer: Literal["sgd", "adam"]
    state: str  # of the optimizer at step 0: checkpoint, warm, zeros
    learning_rate: float
    batch_size: int
    epsilon: float  # weight of one training row: L + ε l_x
    steps: int  # T
    made: str  # when the oldest part was measured (UTC)
    seconds: float  # that measuring all parts took


class Horizon(Followed):
    """A ranking's trust horizon (DEFINITIONS, Trajectories): on which rows, how R(t) went, until when to trust."""

    method: Method
    by: Order
    trust: float  # what the band's lower end has to reach
    repeats: int  # measured, each on other random rows and batches
    repeats_asked: int
    band: str  # what the band is: a bootstrap over training rows, or a t-interval over repeats
    divergence: list[float]  # [T] mean ‖θ_ε − θ_0‖
    whole: Course
    random: Course  # the random half
    ends: Course  # the half from the ranking's two ends

    @property
    def integrated_lr(self) -> float | None:
        """Σ η up to the horizon."""
        return None if self.whole.horizon is None else self.whole.horizon * self.learning_rate


class Forecast(Followed):
    """ε⟨∇l_z(θ_0,t), J_t⟩ at t = 0 … T: how the test row's loss is predicted to differ from a run without ε (Eq. 1)."""

    rows: list[str]  # Q training rows, each on its own
    labels: list[str]  # [Q] that they were trained on with
    exact: list[list[float]]  # [Q][T + 1] nats, J of Eq. 6
    additive: list[list[float]]  # [Q][T + 1] nats, J of Eq. 2
