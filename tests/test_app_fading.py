"""The Fading page: what it submits, how it follows, pauses and goes on, and the example before the first run."""

import json
import re

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest
from workspaces import HOSTILE, ROOT, add_index, catch_runs, open_app, tiny_workspace, use_home

from influence_core.events import Correlation, Fading, Progress, Result
from influence_core.runs.directory import RunDirectory
from influence_core.runs.stopping import request_stop, stop_requested
from influence_core.specs import (
    CorrectionStudySpec,
    DivergenceSpec,
    FadingSpec,
    MislabelledSpec,
    RetrainSpec,
    StabilitySpec,
    TracinErrorSpec,
)
from pages.components import fading_example
from pages.components import fading_form as form

STEPS, REPEATS = 4, 3


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    monkeypatch.setattr(fading_example, "FOLDER", tmp_path / "no examples")
    return tiny_workspace()


@pytest.fixture
def submitted(workspace, monkeypatch):
    return catch_runs(monkeypatch)


def opened(**query):
    app = open_app("fading", **query)
    assert not app.exception
    return app


def has(app, key):
    return any(element.key == key for element in app.button)


def captions(app):
    return " | ".join(element.value for element in app.main.caption).replace("\\", "")


def marked(app):
    return " | ".join(element.value for element in app.main.markdown).replace("\\", "")


def charts(app):
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def title(figure):
    return re.sub(r"<br>", " ", figure["layout"]["title"]["text"])


def event(repeat, step, r, methods=("tracin",), half=0.1):
    each = {name: Correlation(own=r, r=r, low=r - half, high=r + half) for name in methods}
    return Fading(
        repeat=repeat, repeats=REPEATS, step=step, integrated_lr=0.1 * step, divergence=0.01 * step, methods=each
    )


def row(method, r, half=0.1, **fields):
    return {
        "method": method,
        "steps": list(range(1, len(r) + 1)),
        "r": r,
        "low": [value - half for value in r],
        "high": [value + half for value in r],
        "distance": [max(0.0, abs(value) - half) for value in r],
        "peak": 1 + int(np.argmax(r)),
        "faded_at": None,
        "horizon": 2,
        "verdict": None,
        **fields,
    }


def table(repeats, rows=None, **fields):
    curve = [0.9, 0.6, 0.3, 0.05]
    found = {
        "methods": [row("tracin", curve)] if rows is None else rows,
        "repeats": repeats,
        "repeats_asked": REPEATS,
        "train_rows": 4,
        "test_rows": 3,
        "learning_rate": 0.1,
        "scope": "last:1",
        "optimizer": "sgd",
        "divergence": [0.01, 0.02, 0.03, 0.04],
        "integrated_lr": [0.1, 0.2, 0.3, 0.4],
        "left_out": {},
    }
    return {**found, **fields}


def running(workspace, **options):
    spec = {"methods": ("tracin",), "steps": STEPS, "repeats": REPEATS, "train_rows": 4, "test_rows": 3, **options}
    run = RunDirectory.create(FadingSpec(workspace=workspace.name, checkpoint="first", optimizer="sgd", **spec))
    run.claim()
    return run


def finished(workspace, value, **options):
    run = running(workspace, **options)
    run.append(Result(value=value))
    run.finish()
    return run


def start(app):
    app.button(key=form.START).click().run()
    assert not app.exception
    return app


def spec_of(run_id):
    found = RunDirectory.open(run_id).spec()
    assert isinstance(found, FadingSpec)
    return found


def example_file(folder, name="a.json", **fields):
    folder.mkdir(exist_ok=True)
    shown = {
        "command": "python -m influence_core study fading demo:movie-reviews",
        "spec": {"kind": "fading", "workspace": "demo:movie-reviews", "checkpoint": None},
        "made": "2026-01-02T03:04:05+00:00",
        "versions": {"torch": "2.14.1"},
        "value": table(5, [row("tracin", [0.9, 0.6, 0.3, 0.05], faded_at=4), row("random", [0.0, 0.1, 0.0, -0.1])]),
    }
    (folder / name).write_text(json.dumps({**shown, **fields}))


def test_a_newcomer_reads_what_it_is_and_what_the_words_mean(workspace):
    app = opened()
    said = " ".join(element.value for element in app.markdown)
    assert "An influence score predicts what a training step on one row would do" in said
    for word in ("R\\(t\\)", "Band", "Divergence", "Repeat"):
        assert f"**{word}**" in said
    assert "Nothing is measured yet" in app.info[0].value
    assert not charts(app)


def test_the_quick_look_is_what_start_submits(workspace, submitted):
    app = start(opened())
    (run_id,) = submitted
    spec = spec_of(run_id)
    assert (spec.repeats, spec.train_rows, spec.test_rows, spec.steps) == (3, 8, 8, 8)
    assert (spec.methods, spec.scope, spec.optimizer, spec.checkpoint) == (("tracin",), "last:1", "sgd", "first")
    assert spec.learning_rate == form.PRESETS[0].values[form.RATE + "sgd"]
    assert app.query_params["run"] == run_id


def test_another_preset_fills_in_its_settings_and_a_change_takes_its_name_off(workspace, submitted):
    app = opened()
    assert app.radio(key=form.PRESET).value == "Quick look"
    app.radio(key=form.PRESET).set_value("As in the paper").run()
    assert app.number_input(key=form.STEPS).value == 40
    assert app.radio(key=form.PRESET).value == "As in the paper"
    app.number_input(key=form.STEPS).set_value(7).run()
    assert app.radio(key=form.PRESET).value is None
    app.number_input(key=form.TRAIN).set_value(6).run()
    app.number_input(key=form.RATE + "adam").set_value(3e-4).run()
    start(app)
    spec = spec_of(submitted[0])
    assert (spec.steps, spec.train_rows, spec.test_rows, spec.optimizer) == (7, 6, 16, "checkpoint")
    assert spec.learning_rate == 3e-4


def test_where_the_rates_were_not_chosen_it_is_said(workspace):
    assert "lower it if training diverges" in captions(opened())


def test_only_methods_that_can_be_used_are_offered_and_the_others_say_why(workspace):
    app = opened()
    offered = app.multiselect(key=form.METHODS).options
    assert "TracIn" in offered
    assert "ABIF" not in offered
    assert "it needs an index with its eigenvectors for the scope last block and head" in captions(app)
    add_index(workspace)  # of another scope, and without its basis
    assert "ABIF" not in opened().multiselect(key=form.METHODS).options


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (form.RATE + "sgd", 0.0, "learning_rate = 0.0: give more than 0"),
        (form.TRAIN, 41, "train_rows = 41 but tiny has 40 train rows: give at most 40"),
        (form.TEST, 25, "test_rows = 25 but tiny has 24 test rows: give at most 24"),
    ],
)
def test_wrong_settings_are_said_and_cannot_be_started(workspace, key, value, said):
    app = opened()
    app.number_input(key=key).set_value(value).run()
    assert said in app.error[0].value.replace("\\", "")
    assert not has(app, form.START)


def test_without_a_method_there_is_nothing_to_start(workspace):
    app = opened()
    app.multiselect(key=form.METHODS).set_value([]).run()
    assert "choose at least one" in app.error[0].value
    assert not has(app, form.START)


def test_a_finished_example_is_labelled_as_one(workspace, monkeypatch, tmp_path):
    folder = tmp_path / "examples"
    example_file(folder)
    example_file(folder, "b.json", value=table(5, optimizer="adam", learning_rate=1e-4))
    (folder / "broken.json").write_text("{")
    monkeypatch.setattr(fading_example, "FOLDER", folder)
    app = opened()
    box = app.selectbox(key="fading_example")
    assert box.options == [
        "Movie reviews · last block and head · SGD · learning rate 0.1",
        "Movie reviews · last block and head · Adam · learning rate 0.0001",
    ]
    assert "Finished example" in marked(app)
    said = captions(app)
    assert "Measured before, not now and not by you: 5 repeats of 4 × 3 rows, made on 2026-01-02." in said
    assert "The example broken.json cannot be read" in said
    assert "95 % interval over 5 repeats" in said
    assert "After 4 steps the scores no longer predict what happens." in marked(app)
    figure, distance = charts(app)
    assert "Distance of the band to zero" in title(distance)
    assert "faded by step 4" in title(figure)
    assert any("study fading demo:movie-reviews" in block.value for block in app.code)
    assert has(app, form.START)


def test_a_live_run_draws_what_there_is_and_says_how_far_it_is(workspace):
    run = running(workspace)
    app = opened(run=run.id)
    assert "The curves begin with the first step" in captions(app)
    run.append(Progress(phase="scoring by tracin", done=2, total=8))
    app.run()
    assert "scoring by tracin: 2 of 8 rows" in app.get("progress")[0].text.replace("\\", "")
    for step, r in enumerate((0.9, 0.6, 0.3, 0.05), start=1):
        run.append(event(1, step, r))
    run.append(event(2, 1, 0.8))
    app.run()
    bar = app.get("progress")[0]
    assert "measured so far: repeat 2 of 3, step 1 of 4" in bar.text.replace("\\", "")
    assert bar.value == int(100 * 5 / 12)
    (figure,) = charts(app)
    assert "TracIn peaks at 0.8 (step 1), 0.05 at step 4" in title(figure)  # no verdict: two repeats
    line = next(trace for trace in figure["data"] if trace.get("name") == "TracIn")
    assert line["y"] == [0.8, 0.6, 0.3, 0.05]
    said = captions(app)
    assert "One repeat: the band is a bootstrap" in said  # the second is under way
    assert "Up to step 1 the curve rests on 2 repeats, behind it on 1." in said
    assert not has(app, form.START)


def test_pause_asks_the_run_to_stop_and_says_so(workspace):
    run = running(workspace)
    run.append(event(1, 1, 0.9))
    app = opened(run=run.id)
    app.button(key=f"pause_{run.id}").click().run()
    assert stop_requested(run.result)
    assert not run.cancel_requested()
    assert app.button(key=f"pause_{run.id}").disabled
    assert "pausing after this step" in app.get("progress")[0].text
    app.button(key=f"cancel_fading_{run.id}").click().run()
    assert run.cancel_requested()


def test_what_a_paused_run_has_left_is_said_and_going_on_submits_the_same(workspace, submitted):
    run = finished(workspace, table(1))
    request_stop(run.result)
    app = opened(run=run.id)
    assert "Paused. 1 of 3 repeats is finished and kept. Going on starts with repeat 2" in app.info[0].value.replace(
        "\\", ""
    )
    assert "One repeat: the band is a bootstrap over its training rows" in captions(app)
    app.button(key=f"go_on_{run.id}").click().run()
    assert not app.exception
    assert spec_of(submitted[0]) == run.spec()
    assert app.query_params["run"] == submitted[0]


def test_paused_before_anything_was_finished(workspace):
    run = running(workspace)
    run.append(event(1, 1, 0.9))
    run.append(event(1, 2, 0.7))
    run.append(Result(value=table(0, [], divergence=[])))
    run.finish()
    app = opened(run=run.id)
    assert "nothing is kept" in app.info[0].value
    assert has(app, f"go_on_{run.id}")
    assert len(charts(app)) == 1  # of the repeat that was under way


def test_three_repeats_have_no_verdict_and_can_become_five(workspace, submitted):
    run = finished(workspace, table(3))
    app = opened(run=run.id)
    assert not app.info
    assert "95 % interval over 3 repeats: over so few it is wide" in captions(app)
    assert "went from R = 0.9 after 1 step to 0.05 after 4 steps" in marked(app)
    assert app.dataframe[0].value["verdict"].tolist() == ["too few repeats"]
    assert not has(app, f"go_on_{run.id}")
    app.button(key=f"more_{run.id}").click().run()
    assert spec_of(submitted[0]) == run.spec().model_copy(update={"repeats": 5})


def test_five_repeats_have_a_verdict(workspace):
    faded = row("tracin", [0.9, 0.6, 0.3, 0.05], faded_at=4, verdict="faded by step 4")
    rows = [faded, row("random", [0.0] * 4)]
    app = opened(run=finished(workspace, table(5, rows), repeats=5).id)
    assert "After 4 steps the scores no longer predict what happens." in marked(app)
    assert not has(app, "more")
    figure, distance = charts(app)
    assert "Distance of the band to zero" in title(distance)
    assert [trace["name"] for trace in figure["data"] if trace.get("legendgroup") == "random"] == []  # not at first
    app.get("button_group")[0].set_value(["tracin", "random"]).run()
    assert any(trace.get("legendgroup") == "random" for trace in charts(app)[0]["data"])


def test_a_failed_run_says_why_and_leads_back_to_its_settings(workspace):
    run = running(workspace, learning_rate=50.0)
    run.fail("training diverged at step 3 (a loss is not finite): lower the learning rate, 50")
    app = opened(run=run.id)
    assert "lower the learning rate, 50" in app.error[0].value.replace("\\", "")
    app.button(key=f"change_{run.id}").click().run()
    assert not app.exception
    assert "run" not in app.query_params
    assert app.number_input(key=form.RATE + "sgd").value == 50.0
    assert app.number_input(key=form.STEPS).value == STEPS


def test_what_the_form_has_no_place_for_is_taken_over_until_it_is_left_out(workspace, submitted):
    hidden = {"epsilon": -0.05, "dropout": False, "dtype": "float64", "settings": {"tracin": {}, "hif-cr": {"seed": 4}}}
    run = running(workspace, learning_rate=0.1, scope="head", methods=("tracin", "hif-cr"), **hidden)
    run.fail("no")
    app = opened(run=run.id)
    assert any("no dropout, float64" in element.value for element in app.text)
    assert any("Hessian-based, Conjugate Residual (Seed: 4)." in element.value for element in app.text)
    app.button(key=f"change_{run.id}").click().run()
    solver = "Hessian-based, Conjugate Residual (Seed: 4)"
    assert f"weights changed by −0.05, no dropout, float64, {solver}" in captions(app)
    app.button(key=form.START).click().run()
    assert spec_of(submitted[0]) == run.spec()
    app = opened(run=run.id)
    app.button(key=f"change_{run.id}").click().run()
    app.button(key="fading_drop_carried").click().run()
    app.button(key=form.START).click().run()
    plain = {"epsilon": -0.01, "dropout": True, "dtype": None, "settings": {}}
    assert spec_of(submitted[1]) == run.spec().model_copy(update=plain)


def test_what_is_taken_over_ends_with_another_measurement_and_is_of_its_own_optimizer(workspace, submitted):
    run = running(workspace, scope="head", dropout=False, optimizer_state="zeros")
    run.fail("no")
    app = opened(run=run.id)
    app.button(key=f"change_{run.id}").click().run()
    assert "no dropout, optimizer state: zeros" in captions(app)
    app.selectbox(key=form.OPTIMIZER).set_value("adam").run()  # the state was that of SGD
    assert "Taken over from that run: no dropout." in captions(app)
    assert app.radio(key=form.PRESET).value is None
    app = opened(run=run.id)
    app.button(key=f"change_{run.id}").click().run()
    app.query_params["run"] = run.id
    app.run()
    app.button(key="fading_other").click().run()
    assert "Taken over" not in captions(app)


def test_a_cancelled_run_can_go_on(workspace):
    run = running(workspace)
    run.append(event(1, 1, 0.9))
    run.kill()
    app = opened(run=run.id)
    assert "was cancelled" in app.info[0].value
    assert has(app, f"go_on_{run.id}")
    app.button(key="fading_other").click().run()
    assert "run" not in app.query_params
    assert has(app, form.START)


def test_the_settings_of_a_run_are_its_own(workspace):
    run = running(workspace, learning_rate=0.25, scope="head")
    said = " ".join(element.value for element in opened(run=run.id).text)
    assert "4 steps on batches of 32: SGD, which keeps no state, learning rate 0.25." in said
    assert "3 repeats: 4 training rows, each trained with a weight changed by −0.01, and 3 test rows" in said


def test_runs_of_studies_open_where_they_are_shown(workspace):
    run = running(workspace)
    app = open_app("runs")
    app.button(key=f"open_{run.id}").click().run()
    assert [found.value for found in app.title] == ["Fading"]
    assert app.query_params["run"] == run.id


SERIES = {"repeat": 0, "epsilon": 0.1, "integrated_lr": [0.0, 0.1, 0.2], "divergence": [0.0, 0.01, 0.02], "fit": None}
ERRORS = {"repeat": 0, "dtype": "float64", "epsilon": 0.1, "error_eq2": [2.0], "error_eq6": [0.5], "ratio": [4.0]}
PAIR = {"rows": [256, 128], "seeds": [0, 0], "overlap": 0.5, "spearman": 0.9}

INTERVAL = {"value": 0.75, "low": 0.3, "high": 0.95, "n": 4}
CELL = {"strategy": "random", "method": None, "by": None, "share": 0.27, "mispredictions": 4, "median_steps": 3.0}
CELL |= {name: INTERVAL for name in ("success", "retention", "steps", "by_itself")} | {"desired_share": None}
RETRAINED = {
    "accuracy": {"checkpoint": 0.8, "control": 0.82, "seeds": [{"seed": 1, "accuracy": 0.81}]},
    "summary": [
        {
            "strategy": "gold",
            "mispredictions": 4,
            **dict.fromkeys(("flipped", "by_itself", "by_seeds", "accuracy_change"), INTERVAL),
            **dict.fromkeys(("retention", "control_retention"), INTERVAL),
        }
    ],
    "rows": [
        {
            **{"example": "test-0", "strategy": "gold", "desired": "positive", "relabelled": 2},
            **{"flipped": True, "by_itself": False, "accuracy": {"after": 0.83}, "retention": {"after": 0.98}},
            "probability": {"before": 0.1, "control": 0.2, "after": 0.9},
        }
    ],
    "trainings": 3,
    "trainings_asked": 5,
}
FOUND = {"order": "loss", "method": None, "precision": [{"k": 10, **INTERVAL, "n": 10}]}


@pytest.mark.parametrize(
    ("spec", "value", "drawn", "said"),
    [
        (CorrectionStudySpec, {"cells": [CELL]}, 3, 0.27),
        (MislabelledSpec, {"precision": [FOUND]}, 1, 0.75),
        (
            DivergenceSpec,
            {"series": [{**SERIES, "bound": None, "bound_tight": None, "bounds_unavailable": None}]},
            1,
            0.02,
        ),
        (TracinErrorSpec, {"series": [ERRORS]}, 1, 4.0),
        (StabilitySpec, {"pairs": [PAIR], "top": 20}, 0, 0.9),
        (TracinErrorSpec, {"series": []}, 1, None),
        (RetrainSpec, RETRAINED, 1, 0.75),
    ],
)
def test_the_other_studies_show_figure_and_table_on_runs(workspace, spec, value, drawn, said):
    run = RunDirectory.create(spec(workspace=workspace.name, checkpoint="first"))
    run.claim()
    run.append(Result(value=value))
    run.finish()
    app = open_app("runs")
    app.button(key=f"open_{run.id}").click().run()
    assert not app.exception
    assert app.title[0].value == "Runs"
    assert len(charts(app)) == drawn
    if said is None:
        assert "before its first repeat" in app.info[0].value
    else:
        assert said in app.dataframe[0].value.iloc[0].tolist()
    app.button(key="study_close").click().run()
    assert not app.subheader


def test_retraining_says_what_accuracy_is_without_relabels(workspace):
    run = RunDirectory.create(RetrainSpec(workspace=workspace.name))
    run.claim()
    run.append(Result(value=RETRAINED))
    run.finish()
    app = open_app("runs", run=run.id)
    (said,) = [each.value.replace("\\", "") for each in app.markdown if "Test accuracy" in each.value]
    assert "80 % as opened, 82 % trained again without relabels (81 % with other seeds). 3 of 5 trainings." in said
    summary, rows = (each.value for each in app.dataframe if len(each.value.columns) in (10, 11))
    assert summary["change of accuracy"].tolist() == [0.75]
    assert rows.loc[0, ["flipped", "flips by itself", "after"]].tolist() == [True, False, 0.9]


def test_hostile_texts_stay_text(workspace, monkeypatch, tmp_path):
    folder = tmp_path / "examples"
    example_file(folder, spec={"workspace": HOSTILE, "checkpoint": HOSTILE}, made=HOSTILE, versions={HOSTILE: HOSTILE})
    monkeypatch.setattr(fading_example, "FOLDER", folder)
    run = running(workspace)
    run.append(Progress(phase=HOSTILE, done=1, total=2))
    run.append(
        Fading(**{**event(1, 1, 0.5).model_dump(), "methods": {HOSTILE: Correlation(own=0, r=0, low=0, high=0)}})
    )
    for app in (opened(), opened(run=run.id)):
        shown = [element.value for kind in ("markdown", "caption", "info") for element in getattr(app, kind)]
        shown += [bar.text for bar in app.get("progress")]
        for text in shown:
            live = re.sub(r"\\.", "", text)
            for part in ("![", "](", "<img", ":red["):
                assert part not in live


def test_a_file_of_another_study_is_no_example(monkeypatch, tmp_path):
    folder = tmp_path / "examples"
    example_file(folder)
    example_file(folder, "b.json", spec={"kind": "stability", "workspace": "tiny"})
    example_file(folder, "c.json", versions=None)
    monkeypatch.setattr(fading_example, "FOLDER", folder)
    found, broken = fading_example.examples()
    assert len(found) == 1
    assert broken == ["b.json", "c.json"]


def test_the_shipped_examples_name_their_model():
    found, broken = fading_example.examples()
    assert not broken
    for model in ("BERT", "ResNet", "ResNet early in training", "ViT", "T5"):
        assert any(f", {model}" in title for title in found), model


def test_a_batch_larger_than_the_workspace_becomes_its_largest(workspace):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
    app.session_state[form.BATCH] = 5000  # before the widget is made, as a run's settings or another workspace do
    app.switch_page("pages/fading.py").run()
    assert not app.exception
    assert app.session_state[form.BATCH] == 40
