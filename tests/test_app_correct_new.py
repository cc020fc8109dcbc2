"""A new correction on the Correct page: what it asks for, says before, refuses, and submits."""

import json

import numpy as np
import pytest
import streamlit as st
from correct_page import (
    EXAMPLE,
    captions,
    finished,
    has,
    opened,
    running,
    spec_of,
    start,
    step,
    texts,
)
from safetensors.numpy import load_file, save_file
from streamlit.testing.v1 import AppTest
from workspaces import (
    add_checkpoint,
    add_predictions,
    add_tracin,
    catch_runs,
    open_app,
    tiny_workspace,
    use_home,
)

from influence_core import checks
from influence_core.data.dataset import Dataset
from influence_core.errors import UserError
from influence_core.home import write_json
from influence_core.runs import client
from influence_core.runs.directory import RunDirectory
from influence_core.specs import CorrectionSpec
from influence_core.validation import rounded_up
from influence_core.workspace import Workspace
from pages.components import correction_settings as form
from pages.components import state
from pages.components.correction_presets import OURS, PAPER


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    return tiny_workspace()


@pytest.fixture
def submitted(workspace, monkeypatch):
    return catch_runs(monkeypatch)


def test_without_an_example_the_page_says_where_to_choose_one(workspace):
    app = opened()
    assert "choose a misprediction first" in app.info[0].value
    assert not has(app, "correct_start")


def test_an_unpredicted_split_is_offered_to_be_predicted_and_never_predicted_here(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    workspace = tiny_workspace(predicted=False, tracin=False)
    app = opened(example=EXAMPLE)
    assert has(app, "correct_predict")
    assert not has(app, "correct_start")
    assert workspace.predictions("test") is None


def test_start_submits_the_defaults_of_the_command_line_and_opens_the_run(workspace, submitted):
    app = opened(example=EXAMPLE)
    assert "about" in app.button(key="correct_start").label  # an estimate before anything runs
    start(app)
    (run_id,) = submitted
    spec = spec_of(run_id)
    default = CorrectionSpec(workspace=workspace.name, checkpoint="first", example=EXAMPLE)
    assert spec == default.model_copy(update={"desired": "positive", "learning_rate": 1e-5, "predict": True})
    assert spec.weight == pytest.approx(12 / 32)
    assert app.query_params["run"] == run_id
    assert not has(app, "correct_start")


def test_every_setting_reaches_the_spec(workspace, submitted):
    app = opened(example=EXAMPLE)
    app.radio(key=form.STRATEGY).set_value("opponents")
    app.number_input(key=form.K).set_value(5)
    app.number_input(key=form.BATCH).set_value(20)
    app.run()
    app.select_slider(key=form.SHARE).set_value(50.0)
    app.selectbox(key=form.OPTIMIZER).set_value("sgd").run()
    app.number_input(key=form.RATE + "sgd").set_value(0.01)
    app.selectbox(key=form.STOP).set_value("after").run()
    app.number_input(key=form.AFTER).set_value(3)
    app.number_input(key=form.STEPS).set_value(20)
    app.selectbox(key=form.METHOD).set_value("tracin")
    app.selectbox(key=form.ORDER).set_value("score")
    app.number_input(key=form.SEED).set_value(7)
    app.toggle(key=form.CURVES + "part").set_value(False).run()
    start(app)
    assert spec_of(submitted[0]) == CorrectionSpec(
        workspace=workspace.name,
        checkpoint="first",
        example=EXAMPLE,
        strategy="opponents",
        desired="positive",
        k=5,
        batch_size=20,
        share=0.5,
        optimizer="sgd",
        learning_rate=0.01,
        after_flip=3,
        steps=20,
        method="tracin",
        by="score",
        seed=7,
    )


def test_dropout_is_a_switch_and_batchnorm_is_offered_where_the_scope_trains_such_layers(workspace, submitted):
    app = opened(example=EXAMPLE)
    assert not any(box.key == form.BATCHNORM for box in app.selectbox)  # the model has none
    app.toggle(key=form.DROPOUT).set_value(False).run()
    assert "Without dropout." in texts(app)
    start(app)
    assert (spec_of(submitted[-1]).dropout, spec_of(submitted[-1]).batchnorm) == (False, "eval")
    weights = {"weight": np.ones((2, 3), dtype=np.float32), "layer4.bn.running_mean": np.zeros(2, dtype=np.float32)}
    save_file(weights, f"{workspace.checkpoint().path}/model.safetensors")
    assert not any(box.key == form.BATCHNORM for box in opened(example=EXAMPLE).selectbox)  # scope head has none
    workspace.set_scope("last:1")
    app = opened(example=EXAMPLE)
    app.selectbox(key=form.BATCHNORM).set_value("train").run()
    assert "BatchNorm by the batch's statistics" in texts(app)
    assert app.toggle(key=form.CURVES + "part").disabled
    start(app)
    assert (spec_of(submitted[-1]).batchnorm, spec_of(submitted[-1]).predict) == ("train", False)
    RunDirectory.open(submitted[-1]).kill()
    over = opened(run=submitted[-1])
    over.button(key=f"change_{submitted[-1]}").click().run()
    assert over.selectbox(key=form.BATCHNORM).value == "train"


def test_the_share_goes_from_no_up_sampling_to_slightly_more_than_half(workspace, submitted):
    app = opened(example=EXAMPLE)
    options = app.select_slider(key=form.SHARE).options
    assert options == ["27.3 %", *(f"{share} %" for share in range(28, 53))]  # from 12 / (12 + 32)
    said = [caption.value for caption in app.caption]
    assert said[said.index("no up-sampling") + 1] == "slightly more than half"
    app.toggle(key=form.CONTROL).set_value(True).run()
    assert app.select_slider(key=form.SHARE).disabled
    assert "the control, both runs are the same" in texts(app)
    start(app)
    assert spec_of(submitted[-1]).weight == 0
    app = opened(example=EXAMPLE)
    app.select_slider(key=form.SHARE).set_value(40.0).run()
    app.number_input(key=form.K).set_value(20)
    app.number_input(key=form.BATCH).set_value(20).run()
    assert app.select_slider(key=form.SHARE).options == ["50 %", "51 %", "52 %"]  # s₀ is a half
    start(app)
    assert spec_of(submitted[-1]).share is None
    app = opened(example=EXAMPLE)
    app.number_input(key=form.BATCH).set_value(8).run()  # 12 rows weigh more than a half: less is there to choose
    options = app.select_slider(key=form.SHARE).options
    assert options == [*(f"{share} %" for share in range(1, 53)), "60 %"]
    assert "12 rows beside batches of 8 carry 60 % of the weight without any up-sampling" in captions(app)
    assert [caption.value for caption in app.caption].count("no up-sampling") == 1
    app.select_slider(key=form.SHARE).set_value(52.0).run()
    start(app)
    assert spec_of(submitted[-1]).share == 0.52


@pytest.mark.parametrize("share", [0.415, 0.83, 0.1, 0.0])
def test_the_share_of_an_old_run_is_filled_back_to_the_digit(workspace, submitted, share):
    run = running(workspace, share=share)
    run.kill()
    app = opened(run=run.id)
    app.button(key=f"change_{run.id}").click().run()
    if share == 0.83:  # the slider's end is there now
        assert app.select_slider(key=form.SHARE).options[-1] == "83 %"
        assert "of the run" in captions(app)
    start(app)
    assert spec_of(submitted[-1]).share == share
    app = opened(example=EXAMPLE)  # another session knows nothing of it
    assert app.select_slider(key=form.SHARE).options[-1] == "52 %"


def test_the_papers_settings_are_one_button_and_ours_another(workspace, submitted, monkeypatch):
    app = opened(example=EXAMPLE)
    assert app.button(key=OURS).disabled
    app.button(key=PAPER).click().run()
    assert not app.exception
    assert "k = 50 but there are 40 training rows" in app.error[0].value.replace("\\", "")
    assert "carries no Adam state: one warmed over 100 batches is used instead" in captions(app)
    app.button(key=OURS).click().run()
    assert "carries no Adam state" not in captions(app)
    start(app)
    assert (spec_of(submitted[-1]).k, spec_of(submitted[-1]).learning_rate) == (12, 1e-5)
    asked = []
    monkeypatch.setattr(
        "pages.components.correction_checks.check", lambda workspace, spec, predicted: asked.append(spec)
    )
    workspace.change_checkpoint("first", optimizer={"kind": "adam", "learning_rate": 1e-4, "state": "o.safetensors"})
    app = opened(example=EXAMPLE)
    app.number_input(key=form.RETENTION).set_value(90).run()  # a limit that the paper does not have
    app.button(key=PAPER).click().run()
    assert "carries no Adam state" not in captions(app)
    values = {"k": 50, "batch_size": 128, "learning_rate": 1e-3, "optimizer_state": "checkpoint", "steps": 50}
    values |= {"method": "abif", "settings": {"k": 32, "iterations": 64}, "after_flip": 0, "share": None}
    values |= {"min_retention": None, "max_validation_loss": None}
    assert values.items() <= dict(asked[-1]).items()
    assert asked[-1].weight == pytest.approx(50 / 128)


def test_only_rows_that_annotators_changed_lead_to_relabel_where_there_are_none(workspace, submitted):
    app = opened(example=EXAMPLE)
    app.toggle(key=form.ANNOTATED).set_value(True).run()
    said = "no such row is among the training rows: relabel some of them first, on Relabel"
    assert said in app.error[0].value.replace("\\", "")
    assert not has(app, "correct_start")
    for row in ("train-0", "train-3", "train-30"):  # of these the last opposed the prediction
        old = workspace.original_labels([row])[row]
        workspace.relabel(row, "positive" if old == "negative" else "negative", expect=old, annotator="ann")
    app.toggle(key=form.ANNOTATED_LOSS).set_value(True).run()
    assert not app.error
    assert "Annotators changed fewer rows of the kind than k = 12: B is of 2." in captions(app)
    assert "Annotators' labels in every batch." in texts(app)
    assert "it tunes the model on these rows" in app.warning[0].value
    start(app)
    spec = spec_of(submitted[-1])
    assert (spec.only_annotated, spec.annotated_loss) == (True, True)
    RunDirectory.open(submitted[-1]).kill()
    over = opened(run=submitted[-1])
    over.button(key=f"change_{submitted[-1]}").click().run()
    assert over.toggle(key=form.ANNOTATED).value
    assert over.toggle(key=form.ANNOTATED_LOSS).value


def test_a_ranking_without_a_proponent_is_said(workspace, submitted):
    table = next(workspace.path.glob("artefacts/tracin/*/train.safetensors"))
    for file in table.parent.glob("**/*.safetensors"):  # every row opposes
        arrays = load_file(file)
        if "products" in arrays:
            save_file({**arrays, "products": -np.abs(arrays["products"]) - 0.1}, file)
    app = opened(example=EXAMPLE)
    said = f"tracin finds no proponents of '{EXAMPLE}': choose another method or strategy"
    assert said in app.error[0].value.replace("\\", "")
    assert not has(app, "correct_start")


def test_the_validation_loss_can_end_a_run_where_there_is_a_validation_split(workspace, submitted, tmp_path):
    assert not any(each.key == form.LOSS for each in opened(example=EXAMPLE).number_input)
    validation = workspace.dataset.splits["test"].assign(id=lambda frame: "validation-" + frame["id"])
    splits = {**workspace.dataset.splits, "validation": validation}
    other = Workspace.create("more", Dataset("more", workspace.label_names, splits), "head")
    add_checkpoint(other, "first", np.random.default_rng(0))
    add_predictions(other)
    add_tracin(other, np.random.default_rng(0))
    app = opened(example=EXAMPLE, workspace="more")
    assert app.number_input(key=form.LOSS).placeholder == "does not matter"  # its rows are not predicted
    app.number_input(key=form.LOSS).set_value(0.8).run()
    assert "or when the validation loss is above 0.8" in texts(app)
    start(app)
    assert spec_of(submitted[-1]).max_validation_loss == 0.8
    run = RunDirectory.open(submitted[-1])
    run.claim()
    run.append(step(0, validation_loss=0.5))
    run.append(step(1, validation_loss=0.625))
    assert "Mean loss on the validation rows: 0.625 at step 1, 0.5 at step 0." in captions(opened(run=run.id))
    now = add_predictions(other, "validation")["loss"].mean()  # of fewer rows than are read at most
    app = opened(example=EXAMPLE, workspace="more")
    assert app.number_input(key=form.LOSS).placeholder == f"does not matter (now {rounded_up(now):g})"
    app.number_input(key=form.LOSS).set_value(round(now, 1) - 0.2).run()
    assert "before the first step" in app.error[0].value
    assert not has(app, "correct_start")
    app.number_input(key=form.LOSS).set_value(rounded_up(now)).run()  # what is shown can be taken
    assert has(app, "correct_start")


def test_the_ranking_looked_at_on_influence_is_the_one_that_corrects(workspace, submitted):
    app = open_app("influence", example=EXAMPLE)
    app.selectbox(key="target").set_value("gold").run()
    app.selectbox(key="order").set_value("score").run()
    app.button(key="correct_these").click().run()
    assert app.title[0].value == "Correct"
    assert "ranked for the gold label" in texts(app)
    app.switch_page("pages/correct.py").run()  # AppTest does not follow st.switch_page by itself
    start(app)
    spec = spec_of(submitted[0])
    assert (spec.method, spec.target, spec.by) == ("tracin", "gold", "score")


def test_other_rows_than_those_handed_over_are_said(workspace):
    app = open_app("influence", example=EXAMPLE)
    app.button(key="correct_these").click().run()
    assert not any("other rows" in element.value for element in app.caption)
    app.switch_page("pages/correct.py").run()
    app.selectbox(key=form.TARGET).set_value("gold").run()
    assert any("other rows" in element.value for element in app.caption)


def test_predicted_curves_have_their_cost_in_words_and_wait_to_be_asked_for_where_everything_is_trained(
    workspace, submitted
):
    app = opened(example=EXAMPLE)
    assert app.toggle(key=form.CURVES + "part").value
    assert any("about 2.5 times as long, and 8 more copies" in element.value for element in app.caption)
    assert "Beside the run, what influence predicts" in texts(app)
    app.toggle(key=form.CURVES + "part").set_value(False).run()
    assert "what influence predicts" not in texts(app)
    workspace.set_scope("all")
    app = opened(example=EXAMPLE)
    assert not app.toggle(key=form.CURVES + "all").value
    start(app)
    assert not spec_of(submitted[0]).predict


def test_the_settings_are_said_in_words_with_epsilon(workspace):
    app = opened(example=EXAMPLE)
    said = texts(app)
    assert "12 rows carry 27.3 % of the batch's weight (ε = 0.375)" in said
    assert "no up-sampling" in said
    assert "state warmed over 100 batches" in said
    assert "stops at the flip, at most 50 steps" in said
    assert "Labels are not touched" in app.warning[0].value


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (form.K, 41, "k = 41 but there are 40 training rows"),
        (form.K, 25, "k = 25 but only 20 training rows are proponents: lower k to 20"),
        (form.BATCH, 5000, "batch_size"),
        (form.BATCH, 100, "batch size = 100 but there are 40 training rows"),
    ],
)
def test_what_can_be_known_is_said_before_a_run(workspace, submitted, key, value, said):
    app = opened(example=EXAMPLE)
    app.number_input(key=key).set_value(value).run()
    assert not app.exception
    assert said in app.error[0].value.replace("\\", "")
    assert not has(app, "correct_start")
    assert submitted == []


def test_random_rows_must_exist_with_the_predicted_label(workspace, submitted):
    app = opened(example=EXAMPLE)
    app.radio(key=form.STRATEGY).set_value("random")
    app.number_input(key=form.K).set_value(21).run()
    negative = int((workspace.labels().values == 0).sum())
    assert f"only {negative} training rows are labelled negative" in app.error[0].value


def test_another_mispredictions_proponents_are_a_strategy(workspace, submitted):
    app = opened(example=EXAMPLE)
    app.radio(key=form.STRATEGY).set_value("permuted").run()
    assert not app.exception
    other = checks.ranked_example(
        workspace, CorrectionSpec(workspace=workspace.name, example=EXAMPLE, strategy="permuted")
    )
    assert other != EXAMPLE
    assert f"The rows are the proponents of {other}, a misprediction with the same" in captions(app)
    assert "Another misprediction's proponents (control): 12 rows, seed 0, ranked" in texts(app)
    start(app)
    assert spec_of(submitted[0]).strategy == "permuted"


def test_a_misprediction_alone_of_its_kind_has_no_others_proponents(workspace, monkeypatch):
    table = workspace.predictions("test")
    kept = table["prediction"].where(table["id"] == EXAMPLE, workspace.dataset.splits["test"]["label"])
    alone = table.assign(prediction=kept)
    folder = workspace.artefacts.path("predictions", workspace.prediction_key("test"))
    alone.to_parquet(folder / "predictions.parquet", index=False)
    app = opened(example=EXAMPLE)
    app.radio(key=form.STRATEGY).set_value("permuted").run()
    assert "is the only test row that is predicted negative and should be positive" in app.error[0].value
    assert not has(app, "correct_start")


def test_a_stop_rule_on_retention_is_submitted_and_filled_back(workspace, submitted):
    app = opened(example=EXAMPLE)
    assert app.number_input(key=form.RETENTION).value is None
    app.number_input(key=form.RETENTION).set_value(92).run()
    assert "stops at the flip, or when retention is below 92 %, at most 50 steps" in texts(app)
    start(app)
    assert spec_of(submitted[0]).min_retention == 0.92
    over = opened(run=running(workspace, min_retention=0.9).id)
    assert "or when retention is below 90 %" in texts(over)
    run = finished(workspace)
    app = opened(run=run.id)
    app.button(key=f"change_{run.id}").click().run()
    assert app.number_input(key=form.RETENTION).value is None
    start(app)
    assert spec_of(submitted[-1]).min_retention is None


def test_a_run_that_retention_ended_says_so(workspace):
    run = finished(workspace, flipped=False, flip_step=None, retention_at_stop=0.88, min_retention=0.9)
    said = opened(run=run.id).warning[0].value.replace("\\", "")
    assert "It stopped at step 2: retention was 88 %, below 90 %." in said


@pytest.mark.parametrize(("share", "warned"), [(0.25, True), (0.75, False)])
def test_opponents_without_the_desired_label_are_warned_of(workspace, share, warned):
    run = finished(workspace, near_retention=0.96, far_retention=1.0)
    manifest = json.loads((run.result / "manifest.json").read_text())
    write_json(run.result / "manifest.json", {**manifest, "desired_share": share})
    app = opened(run=run.id)
    said = f"{100 * share:g} % of the chosen opponents carry the desired label"
    assert any(said in element.value for element in app.warning) is warned
    assert (said in captions(app)) is not warned
    assert "96 %; of the others: 100 %" in captions(app)


def test_the_predicted_label_cannot_be_desired(workspace):
    assert opened(example=EXAMPLE).selectbox(key=form.DESIRED).options == ["positive"]
    right = opened(example="test-1")  # true and predicted positive: another label can still be tried
    assert right.selectbox(key=form.DESIRED).options == ["negative"]
    said = "Already predicted as positive, its true label: there is nothing to correct."
    assert any(said in element.value for element in right.info)
    assert not any("Already predicted" in element.value for element in opened(example=EXAMPLE).info)


def test_a_training_row_is_refused(workspace):
    assert "training row" in opened(example="train-1").error[0].value


def test_a_click_that_interrupts_a_click_starts_one_run(workspace, monkeypatch):
    made = catch_runs(monkeypatch)
    select = state.select

    def interrupted_once(**values):
        if "run" in values and len(made) == 1 and not stopped:  # a second click ends the script of the first here
            stopped.append(True)
            st.stop()
        select(**values)

    stopped = []
    monkeypatch.setattr(state, "select", interrupted_once)
    app = opened(example=EXAMPLE)
    start(app)
    assert stopped
    assert "run" not in app.query_params  # the first click got as far as the engine, no further
    start(app)
    assert len(made) == 1
    assert app.query_params["run"] == made[0]


def test_an_engine_that_does_not_start_is_said_and_settings_stay(workspace, monkeypatch):
    def submit(spec, what="", who="", priority=0):
        raise UserError("the engine did not start (no message): see engine.log")

    monkeypatch.setattr(client, "submit", submit)
    app = opened(example=EXAMPLE)
    app.number_input(key=form.K).set_value(7).run()
    start(app)
    assert "engine did not start" in app.error[0].value.replace("\\", "")
    assert app.number_input(key=form.K).value == 7


def choosing():
    """A page that offers the desired label of the example that the URL names, of three classes."""
    from types import SimpleNamespace

    import streamlit as st

    from pages.components.correction_form import _choose_desired

    true = {"one": "b", "two": "c"}[st.query_params["example"]]
    _choose_desired(SimpleNamespace(name="w", label_names=("a", "b", "c")), st.query_params["example"], "a", true)


def test_each_example_has_a_desired_label_of_its_own():
    app = AppTest.from_function(choosing)
    app.query_params["example"] = "one"
    assert app.run().selectbox(key=form.DESIRED).value == "b"
    app.selectbox(key=form.DESIRED).set_value("c").run()
    app.query_params["example"] = "two"
    assert app.run().selectbox(key=form.DESIRED).value == "c"
    app.selectbox(key=form.DESIRED).set_value("b").run()
    app.query_params["example"] = "one"
    assert app.run().selectbox(key=form.DESIRED).value == "c"


def test_empty_charts_stand_where_the_run_will_be_seen(workspace):
    app = opened(example=EXAMPLE)
    titles = [json.loads(chart.proto.spec)["layout"]["meta"]["title"] for chart in app.get("plotly_chart")]
    assert len(titles) == 4
    assert titles[0] == "Probability of “positive”: no steps yet"
