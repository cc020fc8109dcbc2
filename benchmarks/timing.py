"""Timing several ways to do the same work, in turns."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Measurement:
    """One line of the table."""

    what: str
    seconds: float  # median of the repeats, times ``factor``
    low: float
    high: float
    ratio: float  # seconds ÷ the baseline's
    note: str = ""


def seconds(work: Callable[[], object]) -> float:
    """Return how long one call takes, on an accelerator until it is done."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def in_turns(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Time every way once a round, so that whatever else the machine does falls on all of them alike."""
    for work in ways.values():
        work()  # warm caches and allocators
    times: dict[str, list[float]] = {what: [] for what in ways}
    for _ in range(repeats):
        for what, work in ways.items():
            times[what].append(seconds(work))
    return times


def measurement(what: str, times: list[float], baseline: list[float], factor: float = 1, note: str = "") -> Measurement:
    """Summarise times, each multiplied by ``factor``, against the baseline's median."""
    scaled = [factor * each for each in times]
    median = statistics.median(scaled)
    return Measurement(what, median, min(scaled), max(scaled), median / statistics.median(baseline), note)
