"""What a page has read of a run's events so far: only new lines are read again. No Streamlit."""

from dataclasses import dataclass, field
from typing import Any

from influence_core.events import Progress, Result, SetStep, Step
from influence_core.runs.directory import RunDirectory
from pages.components.run_words import left, rate


@dataclass
class RunReading:
    """Events of one run up to a byte offset, and how fast its present phase goes."""

    run_id: str
    offset: int = 0
    steps: list[Step] = field(default_factory=list)
    set_steps: list[SetStep] = field(default_factory=list)  # of a correction of several rows
    progress: Progress | None = None  # of the present phase; None while steps come in
    result: dict[str, Any] | None = None
    _phase: str = ""
    _since: float = 0.0  # when the present phase was first seen
    _done: int = 0  # how far it was then
    _now: float = 0.0

    def read(self, run: RunDirectory, clock: float) -> None:
        """Read what came since the last call; ``clock`` is a monotonic time in seconds."""
        events, self.offset = run.events(self.offset)
        for event in events:
            if isinstance(event, Step):
                self.steps.append(event)
                self.progress = None
            elif isinstance(event, SetStep):
                self.set_steps.append(event)
                self.progress = None
            elif isinstance(event, Progress):
                self.progress = event
            else:
                assert isinstance(event, Result)
                self.result = event.value
        phase, done = self._place()
        if phase != self._phase:
            self._phase, self._since, self._done = phase, clock, done
        self._now = clock

    def _place(self) -> tuple[str, int]:
        if self.progress is not None:
            return self.progress.phase, self.progress.done
        return "step", self.last_step or 0

    @property
    def last_step(self) -> int | None:
        """The last step that was read; None before the first."""
        steps = self.steps or self.set_steps
        return steps[-1].step if steps else None

    def words(self, total_steps: int | None) -> str:
        """Say the phase, how far it is, how fast, and the time left where that can be told."""
        seconds = self._now - self._since
        if self.progress is not None:
            at = self.progress
            said = [f"{at.phase}: {at.done:,} of {at.total:,} {at.unit}", left(at.done, at.total, seconds, self._done)]
        elif (step := self.last_step) is not None:
            of = "" if total_steps is None else f" of at most {total_steps:,}"
            said = [f"step {step:,}{of}", rate(step, seconds, self._done)]
        else:
            return "starting"
        return " · ".join(part for part in said if part)

    def share(self, total_steps: int | None) -> float:
        """Return how much of the present phase is done, in [0, 1]."""
        done, total = self._place()[1], total_steps
        if self.progress is not None:
            total = self.progress.total
        return min(1.0, max(0.0, done / total)) if total else 0.0
