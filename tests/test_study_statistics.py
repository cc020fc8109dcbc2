"""R(t), its bands, peak, fading step and trust horizon, on fabricated series."""

import numpy as np
import pytest

from influence_core.studies import statistics
from influence_core.studies.statistics import (
    RESAMPLES,
    Band,
    agreement,
    band,
    band_over_repeats,
    band_over_rows,
    fading,
    t_quantile,
)

TABLE = [(1, 12.70620), (2, 4.30265), (3, 3.18245), (4, 2.77645), (8, 2.30600), (24, 2.06390), (120, 1.97993)]


def fabricated(rng, correlations, rows=32, tests=16):
    """Shifts [T, X, Z] that correlate with their prediction [X, Z] by ρ(t), up to sampling."""
    predicted = rng.normal(size=(rows, tests))
    noise = rng.normal(size=(len(correlations), rows, tests))
    rho = np.asarray(correlations)[:, None, None]
    return 1e-4 * (rho * predicted + np.sqrt(1 - rho**2) * noise) + 3e-3, predicted


@pytest.mark.parametrize(("freedom", "value"), TABLE)
def test_students_quantiles_are_those_of_the_tables(freedom, value):
    assert t_quantile(0.975, freedom) == pytest.approx(value, abs=6e-6)


def test_other_quantiles_and_nonsense():
    assert t_quantile(0.95, 10) == pytest.approx(1.81246, abs=6e-6)
    assert t_quantile(0.995, 5) == pytest.approx(4.03214, abs=6e-6)
    for wrong in ((0.5, 3), (1.0, 3), (0.975, 0)):
        with pytest.raises(ValueError, match="degrees of freedom"):
            t_quantile(*wrong)


def test_agreement_is_what_loops_over_pairs_give():
    rng = np.random.default_rng(0)
    shifts, predicted = fabricated(rng, [0.9, 0.3, -0.5], rows=7, tests=4)
    predicted = np.round(predicted, 1)  # ties
    found = agreement(shifts, predicted)
    for t in range(3):
        x, y = predicted.ravel(), shifts[t].ravel()
        assert found.r[t] == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-9)
        assert found.slope[t] == pytest.approx(np.polyfit(x, y, 1)[0], rel=1e-9)
        rows = [np.corrcoef(predicted[:, z], shifts[t, :, z])[0, 1] for z in range(4)]
        assert found.per_row[t] == pytest.approx(np.mean(rows), rel=1e-9)

        def ranks(values):
            return np.array([(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values])

        assert found.spearman[t] == pytest.approx(np.corrcoef(ranks(x), ranks(y))[0, 1], rel=1e-9)


def test_where_nothing_moved_nothing_is_defined():
    shifts, predicted = fabricated(np.random.default_rng(1), [0.5, 0.5])
    shifts[0] = 0
    found = agreement(shifts, predicted)
    for values in (found.r, found.spearman, found.per_row):
        assert np.isnan(values[0])
        assert np.isfinite(values[1])
    assert found.slope[0] == 0
    assert np.isnan(agreement(shifts, np.zeros_like(predicted)).slope).all()
    own = band([shifts], [predicted])
    assert np.isnan(own.low[0])
    assert own.contains_zero[0]
    assert own.distance[0] == 0


def test_the_band_says_what_was_planted():
    """z has mean m(t) and a standard deviation of exactly 0.2 over 5 repeats: half a band is 0.2 t / √5 = 0.2483."""
    spread = 0.2 * np.array([-2, -1, 0, 1, 2]) / np.sqrt(2.5)
    mean = np.array([0.4, 1.0, 0.8, 0.56, 0.55, 0.26, 0.24, 0.1, 0.7, 0.0])
    found = band_over_repeats(np.tanh(mean + spread[:, None]))
    half = 2.776445 * 0.2 / np.sqrt(5)
    np.testing.assert_allclose(found.r, np.tanh(mean), atol=1e-12)
    np.testing.assert_allclose(found.low, np.tanh(mean - half), atol=1e-6)
    np.testing.assert_allclose(found.high, np.tanh(mean + half), atol=1e-6)
    np.testing.assert_allclose(found.distance, np.tanh(np.maximum(mean - half, 0)), atol=1e-6)
    said = fading(found)
    assert said.peak == 1
    assert said.faded == 6  # 0.26 is still above half a band, 0.24 is not
    assert said.horizon == 3  # artanh 0.3 = 0.3095: 0.56 reaches it, 0.55 does not, and 0.7 comes too late
    assert fading(found, trust=0.999).horizon is None
    below = Band(-found.r, -found.high, -found.low, found.kind)
    np.testing.assert_allclose(below.distance, found.distance, atol=1e-12)


def test_a_known_fading_step_is_recovered_from_the_shifts():
    rng = np.random.default_rng(2)
    planted = [0.5, 0.9, 0.8, 0.7, 0.6, 0.4, 0.0, 0.0, 0.0, 0.0]
    pairs = [fabricated(rng, planted) for _ in range(9)]
    found = band([shifts for shifts, _ in pairs], [predicted for _, predicted in pairs])
    said = fading(found)
    assert (said.peak, said.faded, said.horizon) == (1, 6, 5)
    np.testing.assert_allclose(found.r, planted, atol=0.05)
    assert found.kind == "t-interval over repeats"
    lasting = band(*zip(*[fabricated(rng, [0.9, 0.8, 0.8]) for _ in range(5)], strict=True))
    assert fading(lasting).faded is None
    assert fading(lasting).horizon == 2


def test_nothing_known_says_nothing():
    nothing = np.full(3, np.nan)
    said = fading(Band(nothing, nothing, nothing, "t-interval over repeats"))
    assert (said.peak, said.faded, said.horizon) == (None, None, None)


def test_the_t_interval_covers_95_percent_of_normal_z():
    rng = np.random.default_rng(3)
    trials = 20_000
    for repeats in (2, 5):
        found = band_over_repeats(np.tanh(0.5 + 0.3 * rng.normal(size=(repeats, trials))))
        covered = ((found.low <= np.tanh(0.5)) & (np.tanh(0.5) <= found.high)).mean()
        assert covered == pytest.approx(0.95, abs=0.006)  # a normal quantile covers 0.88 with 5, 0.70 with 2


def test_perfect_correlation_keeps_a_finite_band():
    found = band_over_repeats(np.array([[1.0, 1.0], [1.0, 0.5]]))
    assert np.isfinite([found.low, found.high]).all()
    assert found.low[0] == pytest.approx(1)
    with pytest.raises(ValueError, match="two repeats"):
        band_over_repeats(np.ones((1, 3)))


def test_one_repeat_is_a_bootstrap_over_training_rows():
    shifts, predicted = fabricated(np.random.default_rng(4), [0.8, 0.1], rows=9, tests=5)
    found = band([shifts], [predicted])
    assert found.kind == "bootstrap over training rows"
    np.testing.assert_allclose(found.r, agreement(shifts, predicted).r)
    counts = np.random.default_rng(0).multinomial(9, np.full(9, 1 / 9), RESAMPLES)
    for t in range(2):
        drawn = []
        for count in counts:
            rows = np.repeat(np.arange(9), count)
            drawn.append(np.corrcoef(shifts[t, rows].ravel(), predicted[rows].ravel())[0, 1])
        np.testing.assert_allclose([found.low[t], found.high[t]], np.quantile(drawn, [0.025, 0.975]), rtol=1e-8)


def test_a_bootstrap_band_is_reproducible_and_narrower_with_more_rows(monkeypatch):
    rng = np.random.default_rng(5)
    few, many = (band_over_rows(*fabricated(rng, [0.5], rows=rows)) for rows in (8, 128))
    assert (many.high - many.low)[0] < 0.5 * (few.high - few.low)[0]
    monkeypatch.setattr(statistics, "RESAMPLES", 50)
    pair = fabricated(rng, [0.5])
    assert band_over_rows(*pair).low[0] == band_over_rows(*pair).low[0]
    assert band_over_rows(*pair).low[0] != band_over_rows(*pair, seed=1).low[0]
