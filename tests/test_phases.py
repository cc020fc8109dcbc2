"""Two phases of divergence: planted slopes and breakpoints, and the simpler descriptions that compete."""

import numpy as np
import pytest

from influence_core.errors import UserError
from influence_core.studies.phases import two_phases


def planted(place=0.43, slopes=(9.0, 2.0), n=40, noise=0.0, seed=0):
    x = np.linspace(0.05, 1, n)
    y = -7 + slopes[0] * np.minimum(x, place) + slopes[1] * np.maximum(0, x - place)
    return x, np.exp(y + noise * np.random.default_rng(seed).normal(size=n))


@pytest.mark.parametrize("place", [0.30, 0.43, 0.05 + 0.95 * 20 / 39])  # between two points, and on one
def test_planted_slopes_and_breakpoint_are_recovered(place):
    x, distance = planted(place)
    found = two_phases(x, distance)
    assert found.breakpoint == pytest.approx(place, abs=1e-8)
    assert found.slopes == pytest.approx((9.0, 2.0), abs=1e-7)
    assert found.r2 == pytest.approx((1, 1), abs=1e-10)
    assert found.best == "two phases"
    np.testing.assert_allclose(found.log_distance(x), np.log(distance), atol=1e-7)
    assert found.intercepts[0] + found.slopes[0] * place == pytest.approx(found.intercepts[1] + found.slopes[1] * place)


def test_noise_moves_them_by_little():
    found = two_phases(*planted(noise=0.05, n=80))
    assert found.breakpoint == pytest.approx(0.43, abs=0.03)
    assert found.slopes == pytest.approx((9.0, 2.0), abs=0.5)
    assert found.best == "two phases"
    assert 0.8 < found.r2[1] < 1


def test_no_breakpoint_of_a_fine_grid_fits_better():
    for seed in range(5):
        x, distance = planted(noise=0.4, n=30, seed=seed)
        found, y = two_phases(x, distance), np.log(distance)
        own = ((y - found.log_distance(x)) ** 2).sum()

        def error(place, x=x, y=y):
            columns = np.stack([np.ones(30), x, np.maximum(0, x - place)], 1)
            return ((y - columns @ np.linalg.lstsq(columns, y, rcond=None)[0]) ** 2).sum()

        least = min(error(place) for place in np.linspace(x[5], x[24], 4000)[:-1])  # 6 points on either side
        assert own == pytest.approx(min(own, least), rel=1e-6)
        assert own <= least + 1e-9


def test_each_phase_has_a_fifth_of_the_points():
    x, distance = planted(place=0.1)  # 3 of 40 points
    found = two_phases(x, distance)
    assert x[7] <= found.breakpoint < x[32]


def test_one_line_and_a_power_law_are_called_so():
    x = np.linspace(0.05, 1, 60)
    called = []
    for seed in range(20):
        noise = 0.1 * np.random.default_rng(seed).normal(size=60)
        called.append((two_phases(x, np.exp(3 * x + noise)).best, two_phases(x, x**2 * np.exp(noise)).best))
    lines, powers = zip(*called, strict=True)
    assert lines.count("one line") >= 19
    assert powers.count("power law") >= 19
    power = two_phases(x, x**2)
    assert min(power.r2) > 0.85  # R² alone would have called it two phases
    assert power.best == "power law"


@pytest.mark.parametrize(("n", "most"), [(12, 0.12), (20, 0.07), (40, 0.05)])  # 0.08, 0.05 and 0.03 when written
def test_the_luck_of_a_breakpoint_is_no_second_phase(n, most):
    x = np.linspace(1 / n, 1, n)
    called, bent = [], []
    for seed in range(200):
        noise = 0.1 * np.random.default_rng(seed).normal(size=n)
        called.append(two_phases(x, np.exp(3 * x + noise)).best)
        bent.append(two_phases(x, np.exp(4 * np.minimum(x, 0.43) + 2 * np.maximum(0, x - 0.43) + noise)).best)
    assert called.count("two phases") <= most * 200  # AIC: 49, 47 and 35 of 200
    assert bent.count("two phases") >= 0.9 * 200  # and a bend that is there is still found


def test_steps_without_distance_do_not_count():
    x, distance = planted(n=12)
    distance[[0, 3]] = 0
    assert two_phases(x, distance).slopes == pytest.approx((9.0, 2.0), abs=1e-6)
    distance[:7] = 0
    with pytest.raises(UserError, match="5 steps with a distance"):
        two_phases(x, distance)


def test_both_criteria_follow_from_the_squared_residuals():
    rng = np.random.default_rng(5)
    x = np.linspace(0.1, 3, 24)
    y = 0.4 * x - 1 + 0.05 * rng.standard_normal(24)
    found = two_phases(x, np.exp(y))
    slope, level = np.polyfit(x, y, 1)
    squares = float(((y - level - slope * x) ** 2).sum())
    assert found.aic["one line"] == pytest.approx(24 * np.log(squares / 24) + 2 * 3)
    assert found.bic["one line"] == pytest.approx(24 * np.log(squares / 24) + 3 * np.log(24))
    own = float(((y - found.log_distance(x)) ** 2).sum())
    assert found.aic["two phases"] == pytest.approx(24 * np.log(own / 24) + 2 * 5)
    assert found.bic["two phases"] == pytest.approx(24 * np.log(own / 24) + 6 * np.log(24))
