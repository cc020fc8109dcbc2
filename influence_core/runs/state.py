"""The states of a run and the legal ways from one to another."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

State = Literal["pending", "running", "finished", "failed", "killed", "crashed"]

NEXT: dict[State, frozenset[State]] = {
    "pending": frozenset({"running", "killed"}),
    "running": frozenset({"finished", "failed", "killed", "crashed"}),
    "finished": frozenset(),
    "failed": frozenset(),
    "killed": frozenset(),
    "crashed": frozenset(),
}
OVER: frozenset[State] = frozenset(state for state, following in NEXT.items() if not following)


class TransitionError(RuntimeError):
    """A run is not in a state from which the asked change is legal; the message names both."""


class RunRecord(BaseModel):
    """What ``state.json`` keeps of a run; times are UTC."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    kind: str
    state: State = "pending"
    workspace: str | None = None  # None: the run makes one
    what: str = ""  # short, for people
    who: str = ""
    priority: int = 0  # higher runs first
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    message: str = ""  # one line; why it failed or crashed
    worker: str | None = None  # address of the Dask worker that claimed it
    announced: float | None = None  # seconds: a heartbeat older than this is a sign of death

    @property
    def is_over(self) -> bool:
        """Nothing can happen to this run any more."""
        return self.state in OVER


class RunState(RunRecord):
    """What is known of a run now: its record, and what its events and the queue say."""

    phase: str = ""  # of the last progress event; "step" for the steps of a correction
    done: int | None = None
    total: int | None = None
    unit: str = ""
    position: int | None = None  # in the queue from 1, when pending
    seconds: float | None = None  # since the start, up to the end if there was one
    cancelling: bool = False  # running, and asked to stop


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def queue_order(record: RunRecord) -> tuple[int, datetime, str]:
    """Sort key of pending runs: priority first, then age."""
    return (-record.priority, record.created, record.id)
