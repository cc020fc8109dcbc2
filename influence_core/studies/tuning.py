"""A learning rate at which the control tells something: not all of its corrections succeed, and not none."""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from influence_core.errors import RunFailedError, UserError
from influence_core.events import Progress
from influence_core.specs.correction_studies import TRIES

FACTOR = math.sqrt(10)
RULE = "random rows flip neither all nor none of the mispredictions tuned on"


@dataclass(frozen=True)
class Tuned:
    """A learning rate and how it was found."""

    rate: float
    tried: tuple[tuple[float, int | None], ...]  # (rate, successes), in order; None: the run diverged
    examples: tuple[str, ...]  # tuned on; none of them is reported

    def as_json(self) -> dict[str, Any]:
        """Return it for the study's table."""
        tried = [{"learning_rate": rate, "flipped": flipped} for rate, flipped in self.tried]
        return {"learning_rate": self.rate, "rule": RULE, "tried": tried, "examples": list(self.examples)}


def tune(
    successes: Callable[[float], Generator[Progress, None, int | None]], start: float, examples: Sequence[str]
) -> Generator[Progress, None, Tuned | None]:
    """Return the first rate, from ``start`` on, at which between 1 and n − 1 of n corrections succeed.

    ``successes(rate)`` counts them; None where it was interrupted, and so is this. A rate at which all
    succeed, or the run diverges, is too high, one at which none does too low: by √10 down or up until
    both kinds are known, then their geometric mean. Raises `UserError` after `TRIES` rates.
    """
    low: float | None = None
    high: float | None = None
    rate = start
    tried: list[tuple[float, int | None]] = []
    for _ in range(TRIES):
        try:
            found = yield from successes(rate)
        except RunFailedError:
            tried.append((rate, None))
            high = rate
        else:
            if found is None:
                return None
            tried.append((rate, found))
            if 0 < found < len(examples):
                return Tuned(rate, tuple(tried), tuple(examples))
            low, high = (rate, high) if found == 0 else (low, rate)
        if low is not None and high is not None:
            rate = math.sqrt(low * high)
        else:
            rate = rate * FACTOR if high is None else rate / FACTOR
    said = ", ".join(f"{at:.2g}: {'diverged' if count is None else count}" for at, count in tried)
    raise UserError(
        f"no learning rate found at which {RULE} ({said} of {len(examples)}): "
        "give --learning-rate, or tune on more mispredictions"
    )
