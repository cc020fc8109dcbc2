"""What a page has read of a fading run so far: only new lines are read again. No Streamlit."""

from dataclasses import dataclass, field
from typing import Any

from influence_core.events import Fading, Progress, Result
from influence_core.runs.directory import RunDirectory
from pages.components.fading_words import measured_words
from pages.components.run_words import left

_STEPPING = "repeat "  # how the phase of the study begins whose steps come as `Fading` events as well


@dataclass
class FadingReading:
    """Events of one run up to a byte offset, where it stands and how fast it goes."""

    run_id: str
    repeats: int
    steps: int
    offset: int = 0
    events: list[Fading] = field(default_factory=list)
    progress: Progress | None = None  # of a phase before or between the steps
    result: dict[str, Any] | None = None
    repeat: int = 0  # under way, from 1; 0 before the first
    step: int = 0
    _begun: bool = False
    _since: float = 0.0  # when the measuring was first seen, or last seen to jump
    _done: int = 0  # how many steps of all repeats were done then
    _now: float = 0.0
    _phase: tuple[str, float, int] = ("", 0.0, 0)  # of `progress`: name, when first seen, how far it was then

    def read(self, run: RunDirectory, clock: float) -> None:
        """Read what came since the last call; ``clock`` is a monotonic time in seconds."""
        before, (events, self.offset) = self.done, run.events(self.offset)
        for event in events:
            if isinstance(event, Fading):
                self.events.append(event)
                self.repeat, self.step, self.progress = event.repeat, event.step, None
            elif isinstance(event, Progress):
                self._place(event)
            elif isinstance(event, Result):
                self.result = event.value
        if not self._begun or self.done - before >= self.steps:  # kept repeats come at once: they tell no pace
            self._since, self._done, self._begun = clock, self.done, bool(self.events)
        if self.progress is not None and self._phase[0] != self.progress.phase:
            self._phase = (self.progress.phase, clock, self.progress.done)
        self._now = clock

    def _place(self, event: Progress) -> None:
        if not event.phase.startswith(_STEPPING):
            self.progress = event
            return
        self.progress = None
        if event.done == 0:
            self.repeat, self.step = (self.events[-1].repeat + 1 if self.events else 1), 0

    @property
    def done(self) -> int:
        """Steps that are done of all repeats together."""
        return max(0, self.repeat - 1) * self.steps + self.step

    @property
    def share(self) -> float:
        """How much of the measuring is done, in [0, 1]; before it begins, of the phase that prepares it."""
        if self.progress is not None and not self.done:
            return min(1.0, self.progress.done / self.progress.total) if self.progress.total else 0.0
        return min(1.0, self.done / (self.repeats * self.steps))

    def words(self) -> str:
        """Say where it stands, and the time left where that can be told."""
        if self.repeat == 0 and self.progress is None:
            return "starting"
        said = []
        if self.repeat:
            said.append(measured_words(self.repeat, self.repeats, self.step, self.steps))
        if self.progress is not None:
            at, (_, since, done) = self.progress, self._phase
            said.append(f"{at.phase}: {at.done:,} of {at.total:,} {at.unit}")
            if not self.repeat:
                said.append(left(at.done, at.total, self._now - since, done))
        if self.repeat:
            said.append(left(self.done, self.repeats * self.steps, self._now - self._since, self._done))
        return " · ".join(part for part in said if part)
