"""Corrections that are compared: which ones the address says, and what is dropped from it."""

import pytest
from correct_page import EXAMPLE, captions, opened, running, step
from workspaces import catch_runs, tiny_workspace, use_home

from influence_core.events import Result
from influence_core.runs.directory import RunDirectory
from pages.components import discarding, state


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    return tiny_workspace()


@pytest.fixture
def submitted(workspace, monkeypatch):
    return catch_runs(monkeypatch)


def finished(workspace, *, own=None, cost=None, **options):
    """A run that flips at step 2, by itself from step ``own`` on; ``cost`` is its comparison on whole splits."""
    run = running(workspace, **options)
    go_on(run, own, cost)
    return run


def go_on(run, own=None, cost=None):
    for n in range(3):
        alone = "positive" if own is not None and n >= own else "negative"
        run.append(step(n, "positive" if n == 2 else "negative", base_prediction=alone))
    value = {"flipped": True, "flip_step": 2, "base_flip_step": own, "retention": 1.0, "steps": 2, **(cost or {})}
    run.append(Result(value=value))
    run.finish()


def address(app):
    return app.query_params.get(state.WITH)


def compares(app, run):
    """Whether a run's page compares, and which others it has chosen."""
    boxes = [box.value for box in app.multiselect if box.key == f"compared_{run.id}"]
    return app.toggle(key=f"compare_{run.id}").value, boxes[0] if boxes else None


# the address


def test_an_address_with_runs_opens_their_comparison(workspace):
    others = [finished(workspace, strategy="random", seed=seed) for seed in (1, 2)]
    run = finished(workspace)
    app = opened(**{"run": run.id, state.WITH: state.as_runs([others[1].id, others[0].id])})
    assert compares(app, run) == (True, [others[1].id, others[0].id])
    assert len(app.get("plotly_chart")) == 7
    assert compares(opened(run=run.id), run) == (False, None)


def test_the_address_says_what_is_chosen_and_keeps_the_rest(workspace):
    older, newer, run = (finished(workspace, seed=seed) for seed in (1, 2, 0))
    app = opened(run=run.id, example=EXAMPLE)
    app.toggle(key=f"compare_{run.id}").set_value(True).run()
    assert address(app) == newer.id
    app.multiselect(key=f"compared_{run.id}").set_value([newer.id, older.id]).run()
    assert address(app) == f"{newer.id},{older.id}"
    again = opened(**{"run": run.id, state.WITH: address(app)})
    assert compares(again, run) == (True, [newer.id, older.id])
    app.multiselect(key=f"compared_{run.id}").set_value([]).run()
    assert address(app) == ""
    assert compares(opened(**{"run": run.id, state.WITH: ""}), run) == (True, [])
    app.toggle(key=f"compare_{run.id}").set_value(False).run()
    assert state.WITH not in app.query_params
    assert compares(app, run) == (False, None)
    assert (app.query_params["run"], app.query_params["example"]) == (run.id, EXAMPLE)


def test_what_cannot_be_compared_is_dropped_and_said(workspace):
    good, gone, other = finished(workspace, seed=1), finished(workspace, seed=2), finished(workspace, example="test-6")
    discarding.discard(gone)
    going, cancelled, run = running(workspace), running(workspace), finished(workspace)
    cancelled.kill()
    unknown = "0" * 12 + "4000" + "8" + "0" * 15
    ids = [run.id, good.id, gone.id, other.id, unknown, "../../<b>*", going.id, cancelled.id]
    app = opened(**{"run": run.id, state.WITH: state.as_runs(ids)})
    assert not app.error
    assert compares(app, run) == (True, [good.id])
    assert address(app) == good.id
    said = captions(app)
    for words in (
        "this run with itself",
        f"run {gone.id[:8]} was discarded",
        f"run {other.id[:8]} does not correct this example to the same",
        "run 00000000 is not there",
        "run ../../<b is not there",
        f"run {going.id[:8]} is not over",
        f"run {cancelled.id[:8]} did not finish",
    ):
        assert words in said
    app.run()
    assert "Not compared" not in captions(app)


def test_an_address_of_nothing_but_what_is_gone_offers_a_choice(workspace):
    other, run = finished(workspace, seed=1), finished(workspace)
    app = opened(**{"run": run.id, state.WITH: "nothing"})
    assert compares(app, run) == (True, [])
    assert "Choose a run to see it beside this one." in captions(app)
    assert app.multiselect(key=f"compared_{run.id}").options == [f"Relabel top proponents, run {other.id[:8]}"]


def test_another_strategy_is_compared_after_a_reload_while_it_goes_on(workspace, submitted):
    run = finished(workspace)
    app = opened(run=run.id)
    app.button(key=f"control_{run.id}").click().run()
    assert (app.query_params["run"], address(app)) == (submitted[0], run.id)
    control = RunDirectory.open(submitted[0])
    control.claim()
    reloaded = opened(**{"run": control.id, state.WITH: address(app)})  # another session, the run still going on
    assert not any(each.key == f"compare_{control.id}" for each in reloaded.toggle)
    assert address(reloaded) == run.id
    go_on(control)
    reloaded.run()
    assert compares(reloaded, control) == (True, [run.id])
    assert address(reloaded) == run.id


def test_another_run_is_opened_alone(workspace, submitted):
    other, run = finished(workspace, seed=1), finished(workspace)
    app = opened(**{"run": run.id, state.WITH: other.id})
    app.button(key=f"again_{run.id}").click().run()
    assert app.query_params["run"] == submitted[0]
    assert state.WITH not in app.query_params


def test_a_link_to_the_same_run_keeps_the_comparison_and_to_another_does_not(workspace):
    other, run = finished(workspace, seed=1), finished(workspace)
    app = opened(**{"run": run.id, state.WITH: other.id})
    app.query_params.clear()
    app.query_params["run"] = run.id  # the link to a run that goes on, at the foot of each page
    app.run()
    assert address(app) == other.id
    app.query_params.clear()
    app.query_params["run"] = other.id
    app.run()
    assert state.WITH not in app.query_params
    assert compares(app, other) == (False, None)


def test_two_browsers_do_not_disturb_each_other(workspace):
    other, run = finished(workspace, seed=1), finished(workspace)
    one = opened(**{"run": run.id, state.WITH: other.id})
    two = opened(run=run.id)
    two.toggle(key=f"compare_{run.id}").set_value(True).run()
    two.toggle(key=f"compare_{run.id}").set_value(False).run()
    one.run()
    assert (compares(one, run), address(one)) == ((True, [other.id]), other.id)
    one.toggle(key=f"compare_{run.id}").set_value(False).run()
    two.toggle(key=f"compare_{run.id}").set_value(True).run()
    one.run()
    assert (compares(one, run), compares(two, run)) == ((False, None), (True, [other.id]))
