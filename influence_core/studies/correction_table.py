"""The table of the correction study: what each strategy reached, with intervals and paired with the controls."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from influence_core.studies.choosing import Cell
from influence_core.studies.courses import Course
from influence_core.studies.intervals import mean, paired_share, wilson

Done = Mapping[str, Course]  # by example


def cell_row(
    cell: Cell, share: float, done: Done, base: Done, skipped: Sequence[str], controls: Mapping[str, Done]
) -> dict[str, Any]:
    """Return one cell's row; intervals are {"value", "low", "high", "n"}, null where nothing can be told.

    ``steps`` is over those that flipped. ``retention`` is over all, at the flip, else at the last step; both averages
    are given apart as well (DEFINITIONS, Correction). ``against`` holds the paired differences from each of the
    ``controls`` (by strategy, at the same share): over the mispredictions that both have, of steps over
    those that both flipped.
    """
    examples = sorted(done)
    courses = [done[example] for example in examples]
    flips = np.array([course.flip for course in courses if course.flip is not None], dtype=float)
    return {
        "strategy": cell.strategy,
        "method": cell.method,
        "by": cell.by,
        "share": share,
        "epsilon": share / (1 - share),
        "mispredictions": len(examples),
        "skipped": dict(Counter(skipped)),
        "success": wilson(len(flips), len(examples)).as_json(),
        "retention": _retention(courses),
        "retention_at_flip": _retention([course for course in courses if course.flip is not None]),
        "retention_at_last": _retention([course for course in courses if course.flip is None]),
        "steps": mean(flips).as_json(),
        "median_steps": float(np.median(flips)) if len(flips) else None,
        "by_itself": wilson(sum(base[each].flip is not None for each in examples), len(examples)).as_json(),
        "against": {name: against(done, other) for name, other in controls.items()},
    }


def _retention(courses: Sequence[Course]) -> dict[str, Any]:
    return mean(np.array([course.retention for course in courses])).as_json()


def against(done: Done, other: Done) -> dict[str, Any]:
    """Return this minus the other, paired: share of successes, retention, steps to flip."""
    both = sorted(done.keys() & other.keys())
    flipped = np.array([[each[example].flip is not None for example in both] for each in (done, other)], dtype=bool)
    kept = np.array([done[example].retention - other[example].retention for example in both])
    steps = [
        first - second
        for example in both
        if (first := done[example].flip) is not None and (second := other[example].flip) is not None
    ]
    return {
        "success": paired_share(flipped[0], flipped[1]).as_json(),
        "retention": mean(kept).as_json(),
        "steps": mean(np.array(steps, dtype=float)).as_json(),
    }


def piece_row(example: str, cell: Cell, share: float, course: Course) -> dict[str, Any]:
    """Return one piece's row."""
    return {
        "example": example,
        "strategy": cell.strategy,
        "method": cell.method,
        "by": cell.by,
        "share": share,
        "flip": course.flip,
        "retention": course.retention,
        "steps": len(course.probability) - 1,
    }
