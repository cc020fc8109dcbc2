"""Corrections that are compared: which ones the address says, what is dropped from it, and the table of them."""

import json
import shutil

import numpy as np
import pytest
from correct_page import EXAMPLE, captions, opened, running, step
from workspaces import add_checkpoint, add_predictions, catch_runs, tiny_workspace, use_home

from influence_core.events import Reading, Result, SetStep
from influence_core.runs.directory import RunDirectory
from influence_core.specs import DEFAULT_RATE, CorrectionSetSpec, CorrectionSpec
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


def about(before, after, fixed=(), broken=()):
    return {"before": before, "after": after, "fixed": list(fixed), "broken": list(broken)}


def address(app):
    return app.query_params.get(state.WITH)


def compares(app, run):
    """Whether a run's page compares, and which others it has chosen."""
    boxes = [box.value for box in app.multiselect if box.key == f"compared_{run.id}"]
    return app.toggle(key=f"compare_{run.id}").value, boxes[0] if boxes else None


def table_of(app):
    return next(each.value for each in app.dataframe if "by itself" in each.value and "run" in each.value)


def traces(app, subject):
    """Names of the traces of the chart whose title begins so."""
    figures = [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]
    found = next(
        each for each in figures if each["layout"]["meta"]["title"].startswith(subject) and "in run" in str(each)
    )
    return [trace["name"] for trace in found["data"]]


# the address


def test_an_address_with_runs_opens_their_comparison(workspace):
    others = [finished(workspace, strategy="random", seed=seed) for seed in (1, 2)]
    run = finished(workspace)
    app = opened(**{"run": run.id, state.WITH: state.as_runs([others[1].id, others[0].id])})
    assert compares(app, run) == (True, [others[1].id, others[0].id])
    assert len(table_of(app)) == 3
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
    assert address(app) == f"{good.id},{going.id}"  # that one will be over
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
    assert f"Not compared: run {going.id[:8]} is not over." in captions(app)
    go_on(going)
    app.run()
    assert compares(app, run) == (True, [good.id, going.id])
    assert "Not compared" not in captions(app)


def test_a_run_whose_checkpoint_is_gone_is_not_compared(workspace):
    """Whatever is kept can be removed by hand; the page must stay."""
    add_checkpoint(workspace, "kept", np.random.default_rng(0))
    add_predictions(workspace, checkpoint="kept")
    other = RunDirectory.create(CorrectionSpec(workspace=workspace.name, checkpoint="kept", example=EXAMPLE))
    other.claim()
    go_on(other)
    run = finished(workspace)
    shutil.rmtree(workspace.path / "checkpoints" / "kept")
    app = opened(**{"run": run.id, state.WITH: other.id})
    assert not app.exception
    assert f"run {other.id[:8]} started from checkpoint kept, which is no longer there" in captions(app)
    assert address(app) == ""


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


# the control that costs nothing, and the cost


def test_the_table_says_what_flips_by_itself(workspace):
    other, run = finished(workspace, own=1, seed=1), finished(workspace)
    app = opened(**{"run": run.id, state.WITH: other.id})
    table = table_of(app)
    assert table["flip"].tolist() == ["step 2", "step 2"]
    assert table["by itself"].tolist() == ["no", "step 1"]


def test_by_itself_is_read_of_the_longest_run_with_the_same_batches(workspace):
    """One that ended at its flip saw less of what happens without correction."""
    longer, run = running(workspace, strategy="random"), finished(workspace)
    for n in range(6):
        longer.append(step(n, "negative", base_prediction="positive" if n >= 4 else "negative"))
    longer.append(
        Result(value={"flipped": False, "flip_step": None, "base_flip_step": 4, "retention": 1.0, "steps": 5})
    )
    longer.finish()
    app = opened(**{"run": run.id, state.WITH: longer.id})
    assert table_of(app)["by itself"].tolist() == ["step 4", "step 4"]


@pytest.mark.parametrize(
    ("options", "curves"),
    [
        ({"strategy": "random"}, 1),  # other rows beside the same batches
        ({"k": 6, "share": 0.4, "steps": 20}, 1),
        ({"seed": 1}, 2),
        ({"batch_size": 16}, 2),
        ({"optimizer": "sgd"}, 2),
        ({"learning_rate": 1e-3}, 2),
        ({"optimizer_state": "zeros"}, 2),
        ({"dropout": False}, 2),
        ({"annotated_loss": True}, 2),
        ({"scope": "all"}, 2),
        ({"optimizer": "adam", "learning_rate": DEFAULT_RATE["adam"]}, 1),  # as the checkpoint's, said in full
    ],
)
def test_runs_share_what_happens_without_correction_where_the_same_decides_it(workspace, options, curves):
    other, run = finished(workspace, **options), finished(workspace)
    app = opened(**{"run": run.id, state.WITH: other.id})
    names = [name for name in traces(app, "Probability") if name.startswith("without correction")]
    named = ["without correction, of this run", f"without correction, of run {other.id[:8]}"]
    assert names == (["without correction"] if curves == 1 else named)


def test_the_table_has_the_cost_on_validation_where_all_looked_at_it(workspace):
    validation = about(0.8, 0.85, ["v1", "v2"], ["v3"])
    both = {"split": "test", **about(0.8, 0.7, [], ["a"]), "validation": validation}
    worse = {"split": "test", **about(0.8, 0.9, ["a"]), "validation": about(0.8, 0.795, [], ["v4", "v5"])}
    run, other = finished(workspace, cost=both), finished(workspace, seed=1, cost=worse)
    app = opened(**{"run": run.id, state.WITH: other.id})
    table = table_of(app)
    assert table["accuracy on validation"].tolist() == ["+5 points", "−0.5 points"]
    assert table["fixed in validation"].tolist() == ["2", "0"]
    assert table["broken in validation"].tolist() == ["1", "2"]
    assert not any("test" in column for column in table)


def test_the_table_has_the_cost_on_the_test_split_where_not_all_looked_further(workspace):
    test = {"split": "test", **about(0.8, 0.8, ["a"], ["b"])}
    run = finished(workspace, cost={**test, "validation": about(0.8, 0.9)})
    others = [finished(workspace, seed=1, cost=test), finished(workspace, seed=2)]  # one ended without a comparison
    app = opened(**{"run": run.id, state.WITH: state.as_runs([each.id for each in others])})
    table = table_of(app)
    assert table["accuracy on test"].tolist() == ["no change", "no change", "–"]
    assert table["fixed in test"].tolist() == ["1", "1", "–"]
    assert table["broken in test"].tolist() == ["1", "1", "–"]
    assert not any("validation" in column for column in table)


def test_of_several_rows_the_table_counts_those_that_flip_by_themselves(workspace):
    examples = ("test-3", "test-9", "test-15")
    runs = [several(workspace, examples, alone, seed) for seed, alone in enumerate([{"test-9": 1}, {}])]
    app = opened(**{"run": runs[0].id, state.WITH: runs[1].id})
    table = table_of(app)
    assert table["as desired at the end"].tolist() == ["3 of 3", "3 of 3"]
    assert table["by itself"].tolist() == ["1 of 3", "0 of 3"]
    names = traces(app, "Rows predicted as desired")
    assert f"without correction, of run {runs[1].id[:8]}" in names


def several(workspace, examples, alone, seed):
    spec = CorrectionSetSpec(workspace=workspace.name, checkpoint="first", examples=examples, seed=seed)
    run = RunDirectory.create(spec)
    run.claim()
    for n in range(3):
        readings = [
            Reading(
                example=each,
                loss=1.0,
                probability=0.6,
                prediction="positive" if n == 2 else "negative",
                base_probability=0.3,
                base_prediction="positive" if each in alone and n >= alone[each] else "negative",
            )
            for each in examples
        ]
        flipped = 3 if n == 2 else 0
        shared = {"divergence": 0.001 * n, "integrated_lr": 1e-5 * n, "retention": 1.0, "changed": []}
        run.append(SetStep(step=n, flipped=flipped, examples=readings, **shared))
    run.finish()
    return run
