"""How well scores predict measured loss shifts, with bands: R(t), its peak, when it has faded, how long to trust it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

VERDICT_REPEATS = 5  # fewer give a band, but no verdict (DEFINITIONS, Trajectories)
TRUST = 0.3  # what the band's lower end has to reach for a score to be trusted
LARGEST = 1 - 1e-12  # |r| beyond it has no finite Fisher z
RESAMPLES = 1000

BandKind = Literal["t-interval over repeats", "bootstrap over training rows"]


@dataclass(frozen=True)
class Agreement:
    """How one repeat's loss shifts agree with their prediction, at each of T steps; NaN where either is constant."""

    r: np.ndarray  # [T] pooled Pearson over all (x, z), the paper's R(t)
    spearman: np.ndarray  # [T] the same of ranks
    per_row: np.ndarray  # [T] mean over test rows z of the Pearson over x
    slope: np.ndarray  # [T] of the regression of the shift on its prediction


@dataclass(frozen=True)
class Band:
    """A 95 % band around R(t); NaN where R is."""

    r: np.ndarray  # [T]
    low: np.ndarray  # [T]
    high: np.ndarray  # [T]
    kind: BandKind

    @property
    def contains_zero(self) -> np.ndarray:
        """Where nothing speaks against R = 0, [T] bool; a band that is not known is among them."""
        found: np.ndarray = ~((self.low > 0) | (self.high < 0))
        return found

    @property
    def distance(self) -> np.ndarray:
        """Distance of the band to zero, [T]; 0 where it contains it (paper, Fig. 4)."""
        found: np.ndarray = np.where(self.contains_zero, 0.0, np.maximum(self.low, -self.high))
        return found


@dataclass(frozen=True)
class Fading:
    """What a band says, in places of its T steps."""

    peak: int | None  # of the largest R; None where R is nowhere known
    faded: int | None  # the first after the peak at which the band contains zero; None: never
    horizon: int | None  # the last of those from the peak on at which the lower end is high enough; None: none


def agreement(shifts: np.ndarray, predicted: np.ndarray) -> Agreement:
    """Compare loss shifts δ(z, x, t) [T, X, Z] with their prediction −ε · score [X, Z] (paper, Sec. 5.2)."""
    flat, given = shifts.reshape(len(shifts), -1), predicted.reshape(1, -1)
    rows = correlation(shifts.swapaxes(1, 2), predicted.T[None])  # [T, Z]
    known = np.isfinite(rows)
    covariance, variance = _centred(flat, given), _centred(given, given)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_row = np.where(known, rows, 0).sum(1) / known.sum(1)
        slope = np.broadcast_to(covariance / variance, len(flat))
    return Agreement(pooled(shifts, predicted), correlation(_ranks(flat), _ranks(given)), per_row, slope)


def pooled(shifts: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return R(t) alone, [T]: Pearson's r of δ(z, x, t) [T, X, Z] with its prediction [X, Z] over all pairs."""
    return correlation(shifts.reshape(len(shifts), -1), predicted.reshape(1, -1))


def correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Pearson's r along the last axis, the others broadcast; NaN where one of the two is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = _centred(first, second) / np.sqrt(_centred(first, first) * _centred(second, second))
    return found.clip(-1, 1)


def _centred(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the mean product of deviations along the last axis."""
    deviations = first - first.mean(-1, keepdims=True), second - second.mean(-1, keepdims=True)
    mean: np.ndarray = (deviations[0] * deviations[1]).mean(-1)
    return mean


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks within each row of [T, n], ties at their mean."""
    return pd.DataFrame(values).rank(axis=1).to_numpy()


def band_over_repeats(correlations: np.ndarray) -> Band:
    """Return the 95 % t-interval of R over repeats, correlations [repeats, T] with 2 repeats or more.

    Taken on Fisher's z = artanh r, where the spread does not depend on r, and brought back; R is the
    mean z brought back.
    """
    repeats = len(correlations)
    if repeats < 2:
        raise ValueError(f"a t-interval needs two repeats or more, got {repeats}")
    z = np.arctanh(np.clip(correlations, -LARGEST, LARGEST))
    mean = z.mean(0)
    half = t_quantile(0.975, repeats - 1) * z.std(0, ddof=1) / math.sqrt(repeats)
    return Band(np.tanh(mean), np.tanh(mean - half), np.tanh(mean + half), "t-interval over repeats")


def band_over_rows(shifts: np.ndarray, predicted: np.ndarray, seed: int = 0) -> Band:
    """Return a 95 % percentile bootstrap of R over the training rows x of one repeat, shapes as in `agreement`.

    It knows nothing of other test rows or batches, so it is narrower than a band over repeats.
    """
    rows = len(predicted)
    counts = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), RESAMPLES).astype(float)  # [B, X]
    y = shifts - shifts.mean((1, 2), keepdims=True)  # first, so that no digits are lost to the mean
    x = predicted - predicted.mean()
    pairs = predicted.shape[1] * counts.sum(1)[:, None]
    mean_x, mean_y = counts @ x.sum(1)[:, None] / pairs, counts @ y.sum(2).T / pairs  # [B, 1], [B, T]
    covariance = counts @ (x * y).sum(2).T / pairs - mean_x * mean_y
    variances = (counts @ (x**2).sum(1)[:, None] / pairs - mean_x**2) * (counts @ (y**2).sum(2).T / pairs - mean_y**2)
    drawn = np.full_like(covariance, np.nan)
    np.divide(covariance, np.sqrt(np.maximum(variances, 0)), out=drawn, where=variances > 0)
    r = pooled(shifts, predicted)
    low, high = np.full(len(r), np.nan), np.full(len(r), np.nan)
    for t in np.flatnonzero(np.isfinite(r)):
        own = drawn[:, t][np.isfinite(drawn[:, t])]  # a resample may hold one row alone, without a correlation
        low[t], high[t] = np.clip(np.quantile(own, [0.025, 0.975]), -1, 1)
    return Band(r, low, high, "bootstrap over training rows")


def band(shifts: Sequence[np.ndarray], predicted: Sequence[np.ndarray]) -> Band:
    """Return the band of one or more repeats, each as in `agreement`."""
    if len(shifts) == 1:
        return band_over_rows(shifts[0], predicted[0])
    return band_over_repeats(np.stack([pooled(*pair) for pair in zip(shifts, predicted, strict=True)]))


def fading(band: Band, trust: float = TRUST) -> Fading:
    """Return peak, step of fading and trust horizon (DEFINITIONS, Trajectories)."""
    if not np.isfinite(band.r).any():
        return Fading(None, None, None)
    peak = int(np.nanargmax(band.r))
    after = np.flatnonzero(band.contains_zero[peak + 1 :])
    trusted = band.low[peak:] >= trust
    ends = np.flatnonzero(~trusted)
    last = peak + (int(ends[0]) if len(ends) else len(trusted)) - 1
    return Fading(peak, peak + 1 + int(after[0]) if len(after) else None, last if trusted[0] else None)


def t_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t for a probability in (0.5, 1) and whole degrees of freedom.

    By bisection of the distribution function, which has a closed form (Abramowitz and Stegun, 26.7.3, 26.7.4).
    """
    if not (0.5 < probability < 1 and freedom >= 1):
        raise ValueError(f"probability {probability} in (0.5, 1) and {freedom} degrees of freedom, 1 or more")
    low, high = 0.0, 1.0
    while _t_distribution(high, freedom) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_distribution(middle, freedom) < probability else (low, middle)
    return high


def _t_distribution(t: float, freedom: int) -> float:
    """Return P(T ≤ t) for t ≥ 0."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, term, total = math.cos(angle), 1.0, 0.0
    odd = freedom % 2
    for k in range(freedom // 2):  # 1 + (1/2) cos² + … of an even number, cos + (2/3) cos³ + … of an odd one
        total += term
        term *= cosine**2 * (2 * k + 1 + odd) / (2 * k + 2 + odd)
    total *= math.sin(angle) * (cosine if odd else 1)
    return 0.5 + ((angle + total) / math.pi if odd else total / 2)
