"""95 % intervals of shares and means, alone and as differences of pairs."""

import math
from dataclasses import dataclass

import numpy as np

from influence_core.studies.statistics import t_quantile

Z = 1.959963984540054  # the normal distribution's 0.975 quantile


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; None where there are too few values to tell."""

    value: float | None
    low: float | None
    high: float | None
    n: int  # values it rests on

    def as_json(self) -> dict[str, float | int | None]:
        """Return the fields as JSON has them."""
        return dict(vars(self))


def wilson(successes: int, n: int) -> Interval:
    """Return a share with Wilson's score interval (J. Amer. Statist. Assoc. 22 (1927), 209-212).

    Unlike p ± z √(p(1 − p)/n) it does not shrink to a point at 0 of n or n of n.
    """
    return Interval(*_wilson(successes, n), n) if n else Interval(None, None, None, 0)


def _wilson(successes: int, n: int) -> tuple[float, float, float]:
    """Return share, lower and upper end."""
    share, spread = successes / n, Z**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return share, 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half


def mean(values: np.ndarray) -> Interval:
    """Return a mean with its t-interval; no interval of fewer than two values."""
    n = len(values)
    if n == 0:
        return Interval(None, None, None, 0)
    middle = float(np.mean(values))
    if n == 1:
        return Interval(middle, None, None, 1)
    half = t_quantile(0.975, n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Interval(middle, middle - half, middle + half, n)


def paired_share(first: np.ndarray, second: np.ndarray) -> Interval:
    """Return the difference of two shares over the same n cases, [n] bool each, with Newcombe's interval.

    Method 10 of Newcombe (Statist. Med. 17 (1998), 2635-2650): Wilson's intervals of both, squared and
    added under their correlation; it is no point where all pairs agree.
    """
    n = len(first)
    if n == 0:
        return Interval(None, None, None, 0)
    one, low, high = _wilson(int(first.sum()), n)
    two, other_low, other_high = _wilson(int(second.sum()), n)
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    product = float(both * neither - int((first & ~second).sum()) * int((~first & second).sum()))
    if product > 0:  # Newcombe's continuity correction
        product = max(product - n / 2, 0.0)
    margins = int(first.sum()) * int((~first).sum()) * int(second.sum()) * int((~second).sum())
    phi = product / math.sqrt(margins) if margins else 0.0
    down, up, other_down, other_up = one - low, high - one, two - other_low, other_high - two
    difference = one - two
    below = math.sqrt(max(0.0, down**2 - 2 * phi * down * other_up + other_up**2))
    above = math.sqrt(max(0.0, up**2 - 2 * phi * up * other_down + other_down**2))
    return Interval(difference, difference - below, difference + above, n)
