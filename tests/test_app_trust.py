"""On the Influence page: how far a ranking can be trusted, and what training on a row would do."""

import numpy as np
import pytest
from workspaces import catch_runs, open_app, tiny_workspace, use_home

from influence_core import rates
from influence_core.attribution.base import Cost
from influence_core.attribution.ranking import resolve
from influence_core.charts import PROPONENT, alt_text
from influence_core.charts import forecast as forecast_chart
from influence_core.charts import trust as trust_chart
from influence_core.estimates import START, TANGENT, TRAIN, estimate
from influence_core.events import Correlation, Fading, Progress
from influence_core.rates import FORWARD
from influence_core.runs import registry
from influence_core.runs.directory import RunDirectory
from influence_core.specs import ForecastSpec, HorizonSpec
from influence_core.studies.forecast import SLOPES, rows_of
from influence_core.studies.horizon import ranked, read
from influence_core.workspace import now
from pages.components import trust_words

ABOUT = {"state": "warm", "seconds": 2.0}


@pytest.fixture
def workspace(monkeypatch, tmp_path):
    use_home(monkeypatch, tmp_path)
    return tiny_workspace()


def spec_of(**options):
    shared = {"workspace": "tiny", "checkpoint": "first", "example": "test-3", "method": "tracin"}
    return HorizonSpec(**{**shared, **options})


def measure(workspace, correlations, spec=None):
    """Keep a repeat whose shifts correlate so with their prediction from step 1 on; the last value holds on."""
    spec = spec or spec_of()
    place, chosen, kept = read(workspace, spec, ranked(workspace, spec), 0)
    assert kept is None
    x = chosen.predicted - chosen.predicted.mean()
    noise = np.random.default_rng(0).normal(size=len(x))
    noise -= noise.mean()
    noise -= x * (noise @ x) / (x @ x)
    noise *= np.linalg.norm(x) / np.linalg.norm(noise)
    held = [*correlations, *[correlations[-1]] * (spec.steps - len(correlations))]
    shifts = np.stack([0 * x, *(r * x + np.sqrt(1 - r**2) * noise for r in held)])
    place.describe({**ABOUT, "made": now()})
    place.write("trajectories", {"shifts": shifts, "divergence": np.arange(spec.steps + 1.0)})
    return spec


def said(app):
    return [found.value for found in [*app.main.text, *app.main.caption]]


def test_not_measured_offers_a_run_with_an_estimate_and_starts_it(monkeypatch, workspace):
    made = catch_runs(monkeypatch)
    app = open_app("influence", example="test-3")
    assert not app.exception
    assert trust_words.NEVER_MEASURED in said(app)
    button = app.button(key="trust_measure")
    assert button.label.startswith("Measure (about ")
    assert made == []
    button.click().run()
    assert RunDirectory.open(made[0]).spec() == spec_of()
    assert app.query_params["run"] == made[0]
    assert any("place 1 in the queue" in bar.text for bar in app.main.progress)


def test_a_live_measurement_draws_its_curve_and_can_be_cancelled_after_a_reload(workspace):
    run = RunDirectory.create(spec_of(steps=7))
    run.claim()
    for step in (1, 2):
        correlation = Correlation(own=0.9 / step, r=0.9 / step, low=0.5 / step, high=1.0)
        run.append(
            Fading(repeat=1, repeats=1, step=step, integrated_lr=0.1, divergence=1.0, methods={"tracin": correlation})
        )
    run.append(Progress(phase="following 16 training rows", done=2, total=7, unit="steps"))
    app = open_app("influence", example="test-3", run=run.id)
    assert not app.exception
    assert app.session_state["trust_steps"] == 7
    assert any("following 16 training rows, 2 of 7 steps" in bar.text for bar in app.main.progress)
    assert app.button(key=f"cancel_{run.id}")
    assert "trust_measure" not in [button.key for button in app.button]
    assert len(app.get("plotly_chart")) == 1


def test_measured_says_the_steps_the_rate_the_halves_and_what_the_band_is(workspace):
    spec = measure(workspace, [0.99, 0.98, 0.97, 0.0])
    app = open_app("influence", example="test-3")
    assert not app.exception
    assert "Trusted for about 3 steps (Σ η = 3e-05)." in said(app)
    shown = " ".join(said(app))
    assert "8 random rows alone" in shown
    assert "bootstrap over these 16 rows" in shown
    assert "Adam (a warmed state, learning rate 1e-05, batches of 32)" in shown
    assert trust_words.NEVER_MEASURED not in shown
    assert app.button(key="trust_measure").label.startswith("Measure again, 5 repeats (about")
    assert registry.horizon_ready(workspace, spec).whole.horizon == 3


def test_measuring_again_asks_for_five_repeats(monkeypatch, workspace):
    measure(workspace, [0.99, 0.0])
    made = catch_runs(monkeypatch)
    app = open_app("influence", example="test-3")
    app.button(key="trust_measure").click().run()
    assert RunDirectory.open(made[0]).spec() == spec_of(repeats=5)


def test_trusted_as_far_as_it_was_measured_and_never(workspace):
    measure(workspace, [0.99])
    shown = said(open_app("influence", example="test-3"))
    assert "Trusted for at least 20 steps (Σ η = 0.0002), as far as it was measured." in shown
    measure(workspace, [0.1], spec_of(example="test-6"))
    shown = said(open_app("influence", example="test-6"))
    assert "Not to be trusted: R never reaches 0.3, at most 0.1 (step 1)." in shown
    measure(workspace, [0.4], spec_of(example="test-9"))
    found = next(text for text in said(open_app("influence", example="test-9")) if text.startswith("Not to be trusted"))
    assert "R peaks at 0.4 (step 1), but its band begins at" in found


def test_the_estimate_counts_trajectories_and_nothing_that_is_kept(workspace, monkeypatch):
    rates.record(workspace.checkpoint().fingerprint, 10 * int(FORWARD), 10.0)  # the speed that the constants are of
    rows = 20 * 17  # steps times trajectories, the base among them
    warm, each = 100 * 32 / TRAIN, rows * 33 / TRAIN + rows / FORWARD
    assert estimate(workspace, spec_of()).seconds == pytest.approx(START + warm + each, rel=1e-6)
    plain_sgd = estimate(workspace, spec_of(optimizer="sgd", repeats=2)).seconds
    assert plain_sgd == pytest.approx(START + 2 * each, rel=1e-6)
    measure(workspace, [0.9])
    assert estimate(workspace, spec_of()).seconds == START
    assert estimate(workspace, spec_of(repeats=5)).seconds == pytest.approx(START + warm + 4 * each, rel=1e-6)
    once = 20 * (1 + TANGENT) * 33 / TRAIN
    assert estimate(workspace, forecast_spec()).seconds == pytest.approx(START + warm + once, rel=1e-3)
    with monkeypatch.context() as patched:  # of a frozen part whose outputs are not made yet
        patched.setattr("influence_core.estimates.outputs", lambda *_: Cost(forward=FORWARD))
        assert estimate(workspace, forecast_spec()).seconds == pytest.approx(START + warm + once + 1, rel=1e-3)
        longer = estimate(workspace, spec_of(repeats=5)).seconds
        assert longer == pytest.approx(START + warm + 4 * each + 1, rel=1e-6)
    with monkeypatch.context() as patched:  # tangents of 10 million parameters: six fit 4 GiB while a step is made
        patched.setattr("influence_core.estimates.scope_size", lambda *_: 10_000_000)
        for count, together in ((1, 1), (3, 3), (8, 6)):
            asked = forecast_spec(rows=tuple(f"train-{row}" for row in range(count)))
            assert estimate(workspace, asked).bytes == together * 8 * 4 * 10_000_000
    keep_slopes(workspace, forecast_spec(), 1.0)
    assert estimate(workspace, forecast_spec(epsilon=0.5)).seconds == START


def test_another_order_or_target_is_not_measured_by_this_one(workspace):
    measure(workspace, [0.99])
    for other in ({"order": "score"}, {"target": "gold"}):
        assert trust_words.NEVER_MEASURED in said(open_app("influence", example="test-3", **other))


def test_the_chart_of_a_horizon_says_it_in_words(workspace):
    spec = measure(workspace, [0.99, 0.98, 0.0])
    figure = trust_chart(registry.horizon_ready(workspace, spec))
    assert "The band over all 16 rows stays above 0.3 until step 2" in alt_text(figure)
    assert {trace.name for trace in figure.data if trace.showlegend is not False} == {
        "all 16 rows",
        "random half",
        "two ends",
    }


def forecast_spec(**options):
    shared = {"workspace": "tiny", "checkpoint": "first", "example": "test-3", "rows": ("train-0",), "scope": None}
    return ForecastSpec(**{**shared, "epsilon": 1 / 32, **options})


def keep_slopes(workspace, spec, slope):
    (row,) = rows_of(workspace, spec, resolve(workspace, spec.ranking))
    row.place.describe({**ABOUT, "made": now()})
    steps = np.arange(spec.steps + 1.0)
    row.place.write(SLOPES, {"exact": slope * steps, "additive": 2 * slope * steps})


def test_a_forecast_is_computed_only_when_asked(monkeypatch, workspace):
    made = catch_runs(monkeypatch)
    app = open_app("influence", example="test-3")
    buttons = [button for button in app.button if button.label == "What a step on this row would do"]
    assert len(buttons) == 10
    assert "forecast" not in [button.key for button in app.button]
    buttons[0].click().run()
    assert not app.exception
    app.button(key="forecast").click().run()
    assert RunDirectory.open(made[0]).spec() == forecast_spec()
    again = open_app("influence", example="test-3", run=made[0])  # the address opens the row again
    assert any("place 1 in the queue" in bar.text for bar in again.main.progress)


def test_a_kept_forecast_is_drawn_in_its_card(workspace):
    keep_slopes(workspace, forecast_spec(), -0.032)
    app = open_app("influence", example="test-3")
    next(button for button in app.button if button.key.startswith("forecast_")).click().run()
    assert not app.exception
    assert len(app.get("plotly_chart")) == 1
    assert any("counts as one more row of each batch of 32" in text.replace("\\", "") for text in said(app))
    figure = forecast_chart(registry.forecast_ready(workspace, forecast_spec()))
    words = "Training on this row as well is predicted to lower the loss of “negative” by 0.02 after 20 steps"
    assert figure.layout.meta["title"] == words
    exact, additive = figure.data
    assert (exact.line.dash, additive.line.dash) == ("solid", "dash")
    assert exact.line.color == PROPONENT
    assert additive.y[-1] == pytest.approx(2 * exact.y[-1])
    less = forecast_chart(registry.forecast_ready(workspace, forecast_spec(epsilon=-0.01)))
    assert "less on this row is predicted to raise" in alt_text(less)
    assert less.data[0].line.color == PROPONENT


@pytest.mark.parametrize("rows", [10, 4000])
def test_rows_that_cannot_be_are_rounded_and_the_ranking_stays(workspace, rows):
    app = open_app("influence", example="test-3")
    app.session_state["trust_train_rows"] = rows
    app.run()
    assert not app.exception
    assert not app.main.error
    assert len([button for button in app.button if button.label == "What a step on this row would do"]) == 10


def test_a_live_run_with_other_settings_than_the_page_has_is_followed(workspace):
    run = RunDirectory.create(spec_of(learning_rate=0.01))
    run.claim()
    run.append(Progress(phase="following 16 training rows", done=2, total=20, unit="steps"))
    app = open_app("influence", example="test-3", run=run.id)
    assert any("2 of 20 steps" in bar.text for bar in app.main.progress)


def test_steps_before_the_trusted_ones_are_not_called_trusted(workspace):
    spec = measure(workspace, [0.1, 0.98, 0.99, 0.0])
    found = registry.horizon_ready(workspace, spec)
    assert trust_words.headline(found).startswith("Trusted from step 2 to step 3, not before")
    assert "from step 2 to step 3, not before" in alt_text(trust_chart(found))
