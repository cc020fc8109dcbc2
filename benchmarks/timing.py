"""Timing several ways to do the same work, in turns."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True)
class Target:
    """What a line's ratio (or seconds) should be; ``required`` makes the whole run fail where it is missed."""

    limit: float
    sense: Literal["≤", "≥"] = "≤"
    of: Literal["ratio", "seconds"] = "ratio"
    required: bool = False


@dataclass(frozen=True)
class Measurement:
    """One line of the table."""

    what: str
    seconds: float  # median of the repeats, times ``factor``
    low: float
    high: float
    ratio: float  # seconds ÷ the baseline's, or what the line's own words say
    note: str = ""
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        figure = self.ratio if self.target.of == "ratio" else self.seconds
        return figure <= self.target.limit if self.target.sense == "≤" else figure >= self.target.limit


def synchronised() -> float:
    """Return the clock, on an accelerator once all work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(work: Callable[[], object]) -> float:
    """Return how long one call takes."""
    started = synchronised()
    work()
    return synchronised() - started


def in_turns(ways: Mapping[str, Callable[[], object]], repeats: int, warm: bool = True) -> dict[str, list[float]]:
    """Time every way once a round, so that whatever else the machine does falls on all of them alike.

    ``warm`` runs each once before, for caches and allocators.
    """
    if warm:
        for work in ways.values():
            work()
    times: dict[str, list[float]] = {what: [] for what in ways}
    for _ in range(repeats):
        for what, work in ways.items():
            times[what].append(seconds(work))
    return times


def measurement(
    what: str,
    times: list[float],
    baseline: list[float],
    factor: float = 1,
    note: str = "",
    target: Target | None = None,
) -> Measurement:
    """Summarise times, each multiplied by ``factor``, against the baseline's median."""
    scaled = [factor * each for each in times]
    median = statistics.median(scaled)
    return Measurement(what, median, min(scaled), max(scaled), median / statistics.median(baseline), note, target)
