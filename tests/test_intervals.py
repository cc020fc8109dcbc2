"""Intervals against the equations that define them and a published example."""

import math

import numpy as np
import pytest

from influence_core.studies.intervals import Z, mean, paired_share, wilson


@pytest.mark.parametrize(("successes", "n"), [(1, 10), (5, 10), (29, 30), (263, 311)])
def test_wilson_ends_are_where_the_score_test_just_rejects(successes, n):
    found = wilson(successes, n)
    assert found.value == successes / n
    for end in (found.low, found.high):
        assert abs(found.value - end) == pytest.approx(Z * math.sqrt(end * (1 - end) / n))
    assert found.low < found.value < found.high


def test_wilson_at_the_borders_is_no_point():
    assert (wilson(0, 12).low, wilson(12, 12).high) == (0, 1)
    assert wilson(0, 12).high == pytest.approx(Z**2 / (12 + Z**2))  # closed form
    assert wilson(12, 12).low == pytest.approx(12 / (12 + Z**2))
    assert wilson(0, 0).as_json() == {"value": None, "low": None, "high": None, "n": 0}


def test_a_mean_has_students_interval():
    values = np.array([1.0, 2.0, 4.0, 7.0])
    found = mean(values)
    half = 3.182446 * values.std(ddof=1) / 2  # t at 0.975 with 3 degrees of freedom, from a table
    assert (found.value, found.n) == (3.5, 4)
    assert (found.low, found.high) == pytest.approx((3.5 - half, 3.5 + half), rel=1e-5)
    assert mean(values[:1]).low is None
    assert mean(values[:0]).value is None


def pairs(both, first, second, neither):
    counts = (both, first, second, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [  # Newcombe 1998, Table II, method 10
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((54, 0, 0, 0), -0.0664, 0.0664),
    ],
)
def test_paired_shares_are_newcombes(counts, low, high):
    found = paired_share(*pairs(*counts))
    assert found.value == pytest.approx((counts[1] - counts[2]) / sum(counts))
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_pairing_narrows_the_interval_and_mirrors():
    together, apart = paired_share(*pairs(20, 5, 0, 15)), paired_share(*pairs(12, 13, 8, 7))  # margins 25 and 20 of 40
    assert together.value == apart.value
    assert together.high - together.low < apart.high - apart.low
    back = paired_share(*pairs(20, 0, 5, 15))
    assert (back.low, back.high) == pytest.approx((-together.high, -together.low))
