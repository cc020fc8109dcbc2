"""What the charts and the table that compare corrections read of each one's course."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from influence_core.charts.correction import find_flip
from influence_core.events import SetStep, Step


@dataclass(frozen=True)
class Followed:
    """One correction's course under a name that tells it from the others.

    Of all methods ``desired`` are labels by corrected example, a single one where `Step` are followed.
    """

    name: str
    short: str  # in titles
    strategy: str
    steps: Sequence[Step] | Sequence[SetStep]
    settings: Hashable = None  # all that decides what the same batches do without correction

    def flip(self, desired: Mapping[str, str]) -> int | None:
        """Return the first step at which the row, or all of several, are predicted as desired."""
        if several := self._several:
            return SetStep.all_flipped(several)
        return find_flip(self._single, only(desired))

    def by_itself(self, desired: Mapping[str, str]) -> list[int | None]:
        """Return the first step at which each row is predicted as desired without correction, None for none so far."""
        if several := self._several:
            return [
                next((step.step for step in several if _as_desired(step, place, desired)), None)
                for place in range(len(several[0].examples))
            ]
        label = only(desired)
        return [next((step.step for step in self._single if step.base_prediction == label), None)]

    @property
    def _several(self) -> list[SetStep]:
        return [step for step in self.steps if isinstance(step, SetStep)]

    @property
    def _single(self) -> list[Step]:
        return [step for step in self.steps if isinstance(step, Step)]


def only(desired: Mapping[str, str]) -> str:
    """Return the desired label of a correction of one row."""
    return next(iter(desired.values()))


def _as_desired(step: SetStep, place: int, desired: Mapping[str, str]) -> bool:
    reading = step.examples[place]
    return reading.base_prediction == desired[reading.example]
