"""A run on the Correct page: followed while it goes on, its outcome, and what it offers at the end."""

import json
import re

import pytest
from correct_page import (
    EXAMPLE,
    captions,
    finished,
    has,
    leave_parameters,
    opened,
    running,
    spec_of,
    start,
    step,
    texts,
)
from workspaces import (
    HOSTILE,
    catch_runs,
    tiny_workspace,
    use_home,
)

from influence_core.events import Progress
from influence_core.labels import LabelStore
from influence_core.runs.directory import RunDirectory
from influence_core.runs.stopping import stop_requested
from influence_core.specs import CorrectionSpec
from pages.components import correction_settings as form
from pages.components import discarding, live_correction
from pages.components.correction_next import further, no_further
from pages.components.correction_words import STRATEGIES


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    return tiny_workspace()


@pytest.fixture
def submitted(workspace, monkeypatch):
    return catch_runs(monkeypatch)


# a run that goes on


def test_a_waiting_run_says_its_place_and_can_be_cancelled(workspace):
    run = RunDirectory.create(CorrectionSpec(workspace=workspace.name, example=EXAMPLE))
    app = opened(run=run.id)
    assert "number 1 in the queue" in app.progress[0].text
    app.button(key=f"cancel_correction_{run.id}").click().run()
    assert run.state().state == "killed"
    assert "cancelled" in app.info[0].value


def test_phases_before_the_steps_are_shown(workspace):
    run = running(workspace)
    run.append(Progress(phase="warming the optimizer", done=12, total=100, unit="batches"))
    app = opened(run=run.id)
    assert "warming the optimizer: 12 of 100 batches" in app.progress[0].text.replace("\\", "")
    assert app.progress[0].value == 12
    quantities = ["Probability of “positive”", "Loss of “positive”", "Distance from the uncorrected run", "Retention"]
    assert titles(app) == [f"{quantity}: no steps yet" for quantity in quantities]


def test_charts_grow_with_the_steps_and_reading_goes_on(workspace):
    run = running(workspace)
    run.append(step(0))
    run.append(step(1))
    app = opened(run=run.id)
    assert titles(app)[0].startswith("Probability of “positive” rose from 0.3 to 0.4 after 1 step")
    run.append(step(2, "positive", retention=0.96, changed=["test-1", "test-2"]))
    app.run()
    assert titles(app)[0].startswith("Probability of “positive” rose from 0.3 to 0.5 at the flip")
    assert any(title.startswith("Retention fell to 96 % at the flip, 2 rows changed") for title in titles(app))
    assert len(titles(app)) == 4
    table = app.dataframe[0].value
    assert table["id"].tolist() == ["test-1", "test-2"]
    assert table["text"][0].startswith("test review number 1")
    assert table["before"].tolist() == ["positive", "negative"]


def titles(app):
    return [json.loads(chart.proto.spec)["layout"]["meta"]["title"] for chart in app.get("plotly_chart")]


def test_predictions_are_drawn_under_the_live_curves_and_said(workspace):
    run = running(workspace, predict=True)
    for n in range(3):
        said = {"predicted_probability": 0.3 + 0.1 * n, "additive_probability": 0.3 + 0.2 * n}
        run.append(step(n, predicted_loss=1.0 - 0.1 * n, additive_loss=1.0 - 0.2 * n, **said))
    app = opened(run=run.id)
    for chart, drawn in zip(app.get("plotly_chart"), (True, True, False, False), strict=True):
        names = [each["name"] for each in json.loads(chart.proto.spec)["data"]]
        assert ("predicted by the exact Jacobian (Eq. 6)" in names) is drawn
        assert ("predicted by TracIn's sum (Eq. 2)" in names) is drawn
    captions = " ".join(element.value for element in app.caption)
    assert "Eq. 6) predicts stays within 0.1 of the probability up to step 2." in captions
    assert "Eq. 2) predicts is off by more than 0.1 in probability from step 2 on." in captions
    app.run()  # read on


def test_a_run_from_before_there_were_predictions_opens_without_them(workspace):
    run = finished(workspace)
    assert "predict" not in json.loads((run.path / "spec.json").read_text())
    assert "predicted_loss" not in (run.path / "events.jsonl").read_text()
    app = opened(run=run.id)
    assert len(titles(app)) == 4
    assert not any("predict" in element.value and "Eq." in element.value for element in app.caption)
    app.button(key=f"change_{run.id}").click().run()
    assert not app.toggle(key=form.CURVES + "part").value


def test_every_chart_has_words_for_who_does_not_see_it(workspace):
    run = running(workspace)
    run.append(step(0))
    for chart in opened(run=run.id).get("plotly_chart"):
        assert chart.proto.alt.startswith("Line chart") or chart.proto.alt.startswith("Empty chart")


def test_stop_asks_the_run_and_says_so(workspace):
    run = running(workspace)
    run.append(step(0))
    app = opened(run=run.id)
    app.button(key=f"stop_{run.id}").click().run()
    assert stop_requested(run.result)
    assert not run.cancel_requested()  # it ends well, with its comparison
    assert "stopping" in app.progress[0].text
    assert app.button(key=f"stop_{run.id}").disabled


def test_cancel_ends_the_run_at_its_next_event(workspace):
    run = running(workspace)
    app = opened(run=run.id)
    app.button(key=f"cancel_correction_{run.id}").click().run()
    assert run.cancel_requested()
    assert "cancelling" in app.progress[0].text


# a run that is over


def test_the_outcome_in_words_before_and_after(workspace):
    app = opened(run=finished(workspace).id)
    said = app.success[0].value.replace("\\", "")
    assert "Flipped to “positive” at step 2 of at most 50." in said
    assert "does not flip by itself within 2 steps" in said
    shown = {metric.label: metric.value for metric in app.metric}
    assert shown["Accuracy on the whole test set"] == "66.7 % → 66.7 %"
    assert (shown["Fixed"], shown["Broken"], shown["Retention"]) == ("1", "1", "98 %")
    tables = [table.value for table in app.dataframe]
    fixed = next(table for table in tables if table["id"].tolist() == [EXAMPLE])
    assert fixed[["label", "before", "after"]].to_numpy().tolist() == [["positive", "negative", "positive"]]
    broken = [table for table in tables if table["id"].tolist() == ["test-1"]]
    assert broken[0][["label", "before", "after"]].to_numpy().tolist() == [["positive", "positive", "negative"]]
    assert len(titles(app)) == 4


@pytest.mark.parametrize(
    ("right", "change", "arrow"), [(14, "-8.33 points", "DOWN"), (17, "+4.17 points", "UP"), (16, "no change", None)]
)
def test_a_loss_of_accuracy_looks_like_one(workspace, right, change, arrow):
    app = opened(run=finished(workspace, after=right / 24).id)
    metric = app.metric[0]
    assert metric.delta == change
    if arrow is not None:
        assert metric.proto.MetricDirection.Name(metric.proto.direction) == arrow


def test_a_link_to_a_run_alone_selects_its_example(workspace):
    app = opened(run=finished(workspace).id)
    assert app.query_params["example"] == EXAMPLE
    assert "not the selected example" not in texts(app)


def test_a_flip_without_correction_is_said(workspace):
    app = opened(run=finished(workspace, base_flip_step=1).id)
    assert "Without correction it flips by itself at step 1." in app.success[0].value.replace("\\", "")


def test_no_flip_is_no_success(workspace):
    app = opened(run=finished(workspace, flipped=False, flip_step=None).id)
    assert "before a flip" in app.warning[0].value
    assert not app.success


def test_keep_makes_a_checkpoint_and_offers_to_switch(workspace):
    run = finished(workspace)
    app = opened(run=run.id, example=EXAMPLE)
    app.text_input(key=f"keep_name_{run.id}").set_value("better").run()
    app.button(key=f"keep_{run.id}").click().run()
    assert not app.exception
    kept = workspace.checkpoint("better")
    assert kept.parent == "first"
    assert kept.accuracy == {"test": pytest.approx(16 / 24)}
    assert "Kept as checkpoint better" in app.success[1].value.replace("\\", "")
    assert not has(app, f"keep_{run.id}")
    app.button(key=f"switch_{run.id}").click().run()
    assert not app.exception
    assert app.query_params["checkpoint"] == "better"
    assert "run" not in app.query_params
    again = opened(run=run.id)  # a reload finds it kept
    assert not has(again, f"keep_{run.id}")


def test_a_name_in_use_is_refused_and_nothing_is_lost(workspace):
    run = finished(workspace)
    app = opened(run=run.id)
    app.text_input(key=f"keep_name_{run.id}").set_value("first").run()
    app.button(key=f"keep_{run.id}").click().run()
    assert "already has a checkpoint" in app.error[0].value
    assert has(app, f"keep_{run.id}")


def test_discard_hides_and_can_be_taken_back(workspace):
    run = finished(workspace)
    app = opened(run=run.id)
    app.button(key=f"discard_{run.id}").click().run()
    assert discarding.is_discarded(run)
    assert not has(app, f"keep_{run.id}")
    app.button(key=f"restore_{run.id}").click().run()
    assert not discarding.is_discarded(run)
    assert has(app, f"keep_{run.id}")


def test_the_price_is_said_before_the_button_and_not_once_it_is_kept(workspace):
    run = finished(workspace, after=14 / 24)
    app = opened(run=run.id)
    said = app.warning[0].value.replace("\\", "")
    assert "accuracy on test fell by 8.33 points (66.7 % → 58.3 %; more than 0.5)" in said
    app.button(key=f"keep_{run.id}").click().run()
    assert not app.exception
    assert not app.warning
    fine = opened(run=finished(workspace).id)
    assert not fine.warning
    assert any("no validation rows" in caption.value for caption in fine.caption)


def test_validation_is_shown_where_it_was_compared(workspace):
    worse = {"split": "validation", "before": 0.8, "after": 0.7, "fixed": [], "broken": []}
    app = opened(run=finished(workspace, validation=worse).id)
    shown = {metric.label: metric.value for metric in app.metric}
    assert shown["Accuracy on the whole validation set"] == "80 % → 70 %"
    assert "accuracy on validation fell by 10 points" in app.warning[0].value.replace("\\", "")


def test_the_report_is_offered_and_not_built_by_the_page(workspace, monkeypatch):
    def asked(run_id):
        raise AssertionError("built without being asked for")

    monkeypatch.setattr("pages.components.correction_report.report", asked)
    run = finished(workspace)
    app = opened(run=run.id)
    assert next(element.key for element in app.get("download_button")) == f"report_{run.id}"


def test_the_manifest_can_be_downloaded(workspace):
    run = finished(workspace)
    app = opened(run=run.id)
    assert f"manifest_{run.id}" in [element.key for element in app.get("download_button")]


@pytest.mark.parametrize("end", ["failed", "killed", "crashed"])
def test_a_run_that_ended_badly_says_what_and_what_to_do(workspace, end, monkeypatch):
    run = running(workspace, k=9)
    run.append(step(0))
    if end == "failed":
        run.fail("k = 9 but only 3 training rows are proponents: lower k to 3")
    elif end == "killed":
        run.kill()
    else:
        monkeypatch.setenv("INFLUENCE_HEARTBEAT", "0")
        run.heartbeat_file.touch()
        run.reconcile(at_once=True)
    app = opened(run=run.id)
    said = [element.value for element in (app.info if end == "killed" else app.error)]
    assert any(("cancelled" if end == "killed" else end) in value and "settings are kept" in value for value in said)
    if end == "failed":
        assert "lower k to 3" in texts(app)
    assert len(titles(app)) == 4  # what it did is still there
    app.button(key=f"change_{run.id}").click().run()
    assert app.number_input(key=form.K).value == 9
    assert app.query_params["example"] == EXAMPLE


def test_what_a_cancelled_run_reached_can_be_kept(workspace):
    run = running(workspace)
    run.append(step(0))
    leave_parameters(workspace, run, 1)
    run.kill()
    app = opened(run=run.id)
    assert any("step 1 is there" in element.value for element in app.caption)
    app.button(key=f"keep_{run.id}").click().run()
    assert [entry.name for entry in workspace.checkpoints()] == ["first", "corrected-1"]


def test_run_again_submits_the_same_spec(workspace, submitted):
    run = finished(workspace)
    app = opened(run=run.id)
    app.button(key=f"again_{run.id}").click().run()
    assert not app.exception
    assert spec_of(submitted[0]) == run.spec()
    assert app.query_params["run"] == submitted[0]


def test_a_run_of_another_example_shows_its_own(workspace):
    run = finished(workspace)
    app = opened(run=run.id, example="test-6")
    said = texts(app)
    assert f"This run corrects test row {EXAMPLE}" in said
    assert "test review number 3" in said
    assert "true positive · predicted negative · desired positive" in said
    app.button(key="correct_selected").click().run()
    assert not app.exception
    assert "true negative · predicted positive" in texts(app)  # the form, for test-6
    assert has(app, "correct_start")


def test_the_random_control_is_one_click_with_the_same_settings(workspace, submitted):
    run = finished(workspace, min_retention=0.9)
    app = opened(run=run.id)
    app.button(key=f"control_{run.id}").click().run()
    assert not app.exception
    assert spec_of(submitted[0]) == run.spec().model_copy(update={"strategy": "random"})
    assert app.query_params["run"] == submitted[0]


def test_any_other_strategy_can_be_run_with_the_same_settings(workspace, submitted):
    run = finished(workspace)
    app = opened(run=run.id)
    choice = app.selectbox(key=f"control_strategy_{run.id}")
    assert choice.options == [STRATEGIES[name] for name in ("random", "opponents", "permuted")]
    choice.set_value("permuted").run()
    app.button(key=f"control_{run.id}").click().run()
    assert spec_of(submitted[0]) == run.spec().model_copy(update={"strategy": "permuted"})


def test_ten_more_steps_are_one_click(workspace, submitted):
    run = finished(workspace)  # flipped at step 2, its last
    app = opened(run=run.id)
    app.button(key=f"further_{run.id}").click().run()
    assert not app.exception
    assert spec_of(submitted[0]) == run.spec().model_copy(update={"after_flip": 10})
    assert app.query_params["run"] == submitted[0]


def test_a_run_that_a_limit_ended_does_not_go_on(workspace):
    run = finished(workspace, min_retention=0.99, retention_at_stop=0.98)
    app = opened(run=run.id)
    button = app.button(key=f"further_{run.id}")
    assert button.disabled
    assert button.help.startswith("the limit on retention ended it")


@pytest.mark.parametrize(
    ("steps", "outcome", "wanted"),
    [
        (50, {"steps": 50, "flip_step": None}, {"steps": 60}),
        (50, {"steps": 7, "flip_step": None}, {"steps": 17}),  # stopped by hand
        (50, {"steps": 7, "flip_step": 5}, {"after_flip": 12}),
        (50, {"steps": 50, "flip_step": 44}, {"after_flip": 16, "steps": 60}),
        (1000, {"steps": 996, "flip_step": None}, {"steps": 1000}),
    ],
)
def test_more_steps_are_those_after_the_last(workspace, steps, outcome, wanted):
    spec = CorrectionSpec(workspace=workspace.name, example=EXAMPLE, steps=steps)
    assert further(spec, outcome) == spec.model_copy(update=wanted)
    assert CorrectionSpec(**further(spec, outcome).model_dump())


def test_there_are_no_more_steps_than_a_spec_can_have():
    assert "1,000 steps" in str(no_further({"steps": 1000, "flip_step": None}))
    assert no_further({"steps": 999, "flip_step": None}) is None


def test_two_runs_of_an_example_are_compared_on_the_same_charts(workspace):
    other, run = finished(workspace, flip=3), finished(workspace)
    finished(workspace, example="test-6")  # of another example
    app = opened(run=run.id)
    assert len(titles(app)) == 4
    app.toggle(key=f"compare_{run.id}").set_value(True).run()
    assert not app.exception
    box = app.multiselect(key=f"compared_{run.id}")
    assert [option[-8:] for option in box.options] == [other.id[:8]]
    probability, distance, retained = titles(app)[4:]
    said = "0.5 at the flip, step 2 in this run; 0.6 at the flip, step 3 in run"
    assert probability == f"Probability of “positive”: {said} {other.id[:8]}"
    assert distance.startswith("Distance from the uncorrected run: 0.002 at the flip")
    assert retained.startswith("Retention: 98 % at the flip, step 2")
    table = next(each.value for each in app.dataframe if "flip" in each.value)
    assert table["flip"].tolist() == ["step 2", "step 3"]
    box.set_value([]).run()
    assert len(titles(app)) == 4
    assert "Choose a run to see it beside this one." in captions(app)


def test_a_run_alone_has_nothing_to_compare_with(workspace):
    run = finished(workspace)
    app = opened(run=run.id)
    app.toggle(key=f"compare_{run.id}").set_value(True).run()
    assert "No other finished run corrects this example to this label yet" in captions(app)


def test_an_unknown_run_is_said_and_dropped(workspace):
    app = opened(run="0" * 12 + "4000" + "8" + "0" * 15, example=EXAMPLE)
    assert "there is none with this id" in app.error[0].value
    assert has(app, "correct_start")


def test_nothing_here_writes_label_events(workspace, submitted):
    start(opened(example=EXAMPLE))
    run = finished(workspace)
    app = opened(run=run.id)
    app.button(key=f"keep_{run.id}").click().run()
    assert LabelStore().history(workspace.data_fingerprint) == []


def test_hostile_texts_and_class_names_stay_text(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    workspace = tiny_workspace(names=("![x](http://x)", "**bold** <b>"))
    catch_runs(monkeypatch)
    app = opened(example="test-0")
    run = running(workspace, example="test-0")
    run.append(step(0, "**bold** <b>", changed=["test-0"]))
    run.fail("![x](http://x) <img src=x onerror=1> **bold**")
    over = opened(run=run.id)
    assert "<img src=x onerror" in texts(over)
    assert HOSTILE[:30] in texts(app)
    for page in (app, over):
        shown = [element.label for element in page.button]
        for kind in ("markdown", "caption", "error", "warning", "info", "success"):
            shown += [element.value for element in getattr(page, kind)]
        shown += [option for box in page.selectbox for option in box.options]
        for text in shown:
            live = re.sub(r"\\.", "", text)
            for part in ("![", "](", "**bold", "<b", "<img"):
                assert part not in live


class RerunError(Exception):
    """The page would run again."""


def test_the_first_point_is_drawn_before_the_page_runs_again(workspace, monkeypatch):
    run = running(workspace)
    looks, shown = [], []

    def fragment(look, run_every):
        looks.append((look, run_every))
        return lambda: None

    def rerun():
        raise RerunError

    monkeypatch.setattr(live_correction, "progress", lambda *_: None)
    monkeypatch.setattr(live_correction.st, "session_state", {})
    monkeypatch.setattr(live_correction.st, "caption", lambda *_: None)
    monkeypatch.setattr(live_correction.st, "fragment", fragment)
    monkeypatch.setattr(live_correction.st, "rerun", rerun)
    live_correction.follow(run, run.spec(), lambda reading: shown.append(reading.last_step))
    ((look, every),) = looks
    assert every == live_correction.EAGER
    look()
    run.append(step(0))
    look()
    assert shown == [None, 0]
    with pytest.raises(RerunError):  # once it is on screen, for the slower timer
        look()
    live_correction.follow(run, run.spec(), lambda _: None)
    assert looks[1][1] == live_correction.REFRESH
