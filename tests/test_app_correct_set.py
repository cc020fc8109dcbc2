"""Correcting several rows together on the page: choosing them, what is submitted, following, the outcome, bad input."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file
from workspaces import catch_runs, open_app, tiny_workspace, use_home

from influence_core.events import Reading, Result, SetStep
from influence_core.home import write_json
from influence_core.runs.directory import RunDirectory
from influence_core.specs import CorrectionSetSpec
from pages.components import correction_set, filters, set_choice
from pages.components import correction_settings as form
from pages.components.correction_set_groups import GROUP
from pages.components.correction_set_words import outcome_words, settings_words, share_words, table_rows

WRONG = ["test-0", "test-3", "test-6", "test-9", "test-12", "test-15", "test-18", "test-21"]  # most confident first


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    return tiny_workspace()


@pytest.fixture
def submitted(workspace, monkeypatch):
    return catch_runs(monkeypatch)


def opened(page="correct", **query):
    app = open_app(page, **query)
    assert not app.exception
    return app


def spec_of(workspace, examples, **options):
    return CorrectionSetSpec(workspace=workspace.name, checkpoint="first", examples=tuple(examples), **options)


def step(n, flips, examples):
    """Step n of a run in which ``flips`` says from which step on each example is predicted as desired."""
    readings = [
        Reading(
            example=example,
            loss=1.0 - 0.1 * n,
            probability=0.3 + 0.1 * n,
            prediction="negative" if flip is None or n < flip else "positive",
            base_probability=0.3,
            base_prediction="negative",
        )
        for example, flip in zip(examples, flips, strict=True)
    ]
    return SetStep(
        step=n,
        flipped=sum(each.prediction == "positive" for each in readings),
        examples=readings,
        divergence=0.001 * n,
        integrated_lr=1e-5 * n,
        retention=1.0,
        changed=[],
    )


def finished(workspace, examples, flips):
    run = RunDirectory.create(spec_of(workspace, examples))
    run.claim()
    for n in range(4):
        run.append(step(n, flips, examples))
    value = {
        "flipped": sum(flip is not None for flip in flips),
        "of": len(examples),
        "flip_step": None if None in flips else max(flips),
        "examples": [
            {
                "example": example,
                "predicted": "negative",
                "desired": "positive",
                "flip_step": flip,
                "base_flip_step": None,
                "probability": 0.6,
                "flipped": flip is not None,
            }
            for example, flip in zip(examples, flips, strict=True)
        ],
        "retention": 1.0,
        "steps": 3,
        "before": 16 / 24,
        "after": 17 / 24,
        "fixed": [examples[0]],
        "broken": [],
    }
    run.append(Result(value=value))
    write_json(run.result / "result.json", value)
    save_file({"weight": np.ones((2, 3), dtype=np.float32)}, run.result / "parameters.safetensors")
    groups = [
        {"name": each, "epsilon": 0.1, "rows": ["train-0", f"train-{place}"], "row_labels": ["positive", "positive"]}
        for place, each in enumerate(examples, start=1)
    ]
    manifest = {"steps": 3, "spec": run.spec().model_dump(), "data": workspace.data_fingerprint, "cursor": 0}
    write_json(run.result / "manifest.json", {**manifest, "stale": 0, "groups": groups})
    run.finish()
    return run


def test_rows_are_offered_together_once_the_list_is_narrowed(workspace):
    app = opened("mispredictions")
    assert not any(button.key == "correct_together" for button in app.button)
    app.session_state[filters.CELL] = ("positive", "negative")
    app.run()
    wrong = workspace.mispredictions()
    names = workspace.label_names
    cell = wrong[(wrong["label"] == names.index("positive")) & (wrong["prediction"] == names.index("negative"))]
    count = app.number_input(key=set_choice.COUNT)
    assert (count.value, count.max) == (min(5, len(cell)), len(cell))
    count.set_value(2).run()
    app.button(key="correct_together").click().run()
    assert not app.exception
    assert json.loads(app.query_params["set"]) == cell["id"].tolist()[:2]
    assert "Correct 2 rows together" in [each.value for each in app.subheader]


def test_start_submits_the_set_with_the_forms_settings(workspace, submitted):
    examples = [each for each in WRONG if workspace.truth(each) == 1][:3]
    app = opened(set=json.dumps(examples))
    app.number_input(key=form.K).set_value(4).run()
    app.selectbox(key=GROUP).set_value("all").run()
    assert not app.exception
    app.button(key=correction_set.START).click().run()
    (run_id,) = submitted
    spec = RunDirectory.open(run_id).spec()
    assert isinstance(spec, CorrectionSetSpec)
    expected = spec_of(workspace, examples, k=4, group_by="all", learning_rate=1e-5)
    assert spec == expected
    assert app.query_params["run"] == run_id


def test_few_opponents_with_the_desired_label_are_warned_of_before_the_start(workspace, monkeypatch):
    """Of the rows whose ranking is kept: for one three of four opponents have the desired label, for one one has it."""
    labels = {WRONG[0]: "pppn", WRONG[1]: "pnnn"}
    names = {"p": "positive", "n": "negative"}

    def ranking_of(workspace, spec):
        own = labels.get(spec.example)
        rows = [SimpleNamespace(id=str(place), label=names[one]) for place, one in enumerate(own or "")]
        return None if own is None else SimpleNamespace(opponents=rows, proponents=[])

    monkeypatch.setattr("pages.components.correction_checks.ranking_of", ranking_of)
    app = opened(set=json.dumps(WRONG[:3]))
    app.number_input(key=form.K).set_value(4)
    app.radio(key=form.STRATEGY).set_value("opponents").run()
    assert not app.exception
    warned = [each.value for each in app.warning]
    right = [workspace.label_names[workspace.truth(each)][0] for each in WRONG[:2]]
    shares = [labels[each].count(want) / 4 for each, want in zip(WRONG[:2], right, strict=True)]
    few = sum(share < 0.5 for share in shares)
    assert few  # something to warn of
    said = f"on average; for {few} of the 2 rows of 3 that are ranked already fewer than half do"
    assert any(said in each for each in warned)
    app.radio(key=form.STRATEGY).set_value("proponents").run()
    assert not any("on average" in each.value for each in app.warning)


def test_what_the_address_says_wrong_is_said_in_words(workspace):
    app = opened(set=json.dumps(["test-0", "nowhere", "test-3"]))
    assert any("there is no example 'nowhere'" in error.value.replace("\\", "") for error in app.error)
    assert "Correct 2 rows together" in [each.value for each in app.subheader]
    app = opened(set=json.dumps(["test-0"]))
    assert "Two rows at least are needed" in app.info[0].value
    app = opened(set=json.dumps(["test-0", "test-1", "test-3"]))  # test-1 is right
    assert any("'test-1' is already predicted" in error.value.replace("\\", "") for error in app.error)
    assert not any(button.key == correction_set.START for button in app.button)
    app = opened(set="{not json")
    assert "choose a misprediction first" in app.info[0].value
    app = opened(set=json.dumps(["train-0", "test-0"]))
    assert any("'train-0' is a training row" in error.value.replace("\\", "") for error in app.error)


def test_a_finished_run_says_which_flipped_when(workspace):
    examples = [each for each in WRONG if workspace.truth(each) == 1][:3]
    run = finished(workspace, examples, [1, 2, None])
    app = opened(run=run.id)
    assert any("2 of 3 are predicted as desired after 3 steps" in each.value for each in app.warning)
    table = next(each.value for each in app.dataframe if "flipped at" in each.value)
    assert table["flipped at"].tolist() == ["step 1", "step 2", "–"]
    assert table["at the end"].tolist() == ["as desired", "as desired", "not"]
    assert "The 6 rows of B" in [each.label for each in app.expander]
    rows = next(each.value for each in app.dataframe if "trained as" in each.value)
    assert rows["group"].tolist() == [each for each in examples for _ in range(2)]
    assert rows["id"].tolist() == ["train-0", "train-1", "train-0", "train-2", "train-0", "train-3"]
    assert rows["label"].tolist() == [workspace.original_labels([row])[row] for row in rows["id"]]
    assert any(button.key == f"keep_{run.id}" for button in app.button)
    app.button(key=f"change_{run.id}").click().run()
    assert json.loads(app.query_params["set"]) == examples


def test_runs_of_the_same_set_are_compared_whatever_the_order(workspace):
    examples = [each for each in WRONG if workspace.truth(each) == 1][:3]
    run, other = finished(workspace, examples, [1, 2, None]), finished(workspace, examples[::-1], [1, 2, 3])
    finished(workspace, examples[:2], [1, 2])  # of other rows
    app = opened(run=run.id)
    app.toggle(key=f"compare_{run.id}").set_value(True).run()
    assert not app.exception
    assert [option[-8:] for option in app.multiselect(key=f"compared_{run.id}").options] == [other.id[:8]]
    titles = [json.loads(chart.proto.spec)["layout"]["meta"]["title"] for chart in app.get("plotly_chart")][4:]
    said = f"2 at step 3 in this run; 3 at the flip, step 3 in run {other.id[:8]}"
    assert titles[0] == f"Rows predicted as desired: {said}"
    table = next(each.value for each in app.dataframe if "all at" in each.value)
    assert table["as desired at the end"].tolist() == ["2 of 3", "3 of 3"]
    assert table["all at"].tolist() == ["none", "step 3"]


def test_another_strategy_and_more_steps_are_one_click(workspace, submitted):
    examples = [each for each in WRONG if workspace.truth(each) == 1][:2]
    run = finished(workspace, examples, [1, 2])
    app = opened(run=run.id)
    app.button(key=f"control_{run.id}").click().run()
    app = opened(run=run.id)
    app.button(key=f"further_{run.id}").click().run()
    assert not app.exception
    control, longer = (RunDirectory.open(each).spec() for each in submitted)
    assert control == run.spec().model_copy(update={"strategy": "random"})
    assert longer == run.spec().model_copy(update={"after_flip": 11})  # all at step 2, to step 13


def test_changing_the_settings_starts_from_those_of_the_run(workspace, submitted):
    examples = [each for each in WRONG if workspace.truth(each) == 1][:3]
    options = {"k": 5, "batch_size": 20, "share": 0.4, "group_by": "all", "optimizer": "sgd", "learning_rate": 0.01}
    spec = spec_of(workspace, examples, **options, strategy="random", seed=7, steps=20, min_retention=0.9)
    run = RunDirectory.create(spec)
    run.claim()
    app = opened(run=run.id)
    app.button(key=f"change_{run.id}").click().run()
    assert not app.exception
    app.button(key=correction_set.START).click().run()
    assert RunDirectory.open(submitted[0]).spec() == spec


def test_a_live_run_is_followed_and_can_be_stopped(workspace):
    examples = [each for each in WRONG if workspace.truth(each) == 1][:2]
    run = RunDirectory.create(spec_of(workspace, examples))
    run.claim()
    for n in range(2):
        run.append(step(n, [1, None], examples))
    app = opened(run=run.id)
    assert any(button.key == f"stop_{run.id}" for button in app.button)
    assert len(app.get("plotly_chart")) == 4


def test_choosing_one_example_leaves_the_set(workspace):
    both = {"set": json.dumps(["test-0", "test-6"]), "example": "test-3"}
    app = opened(**both)
    assert "Correct 2 rows together" in [each.value for each in app.subheader]
    app.button(key="set_close").click().run()
    assert not app.exception
    assert "set" not in app.query_params
    for example in ("test-3", "test-6"):  # an address of one example, of the selected one too
        app = opened(**both)
        del app.query_params["set"]
        app.query_params["example"] = example
        app.run()
        assert not app.exception
        assert "Correct 2 rows together" not in [each.value for each in app.subheader]
        assert any(button.key == "correct_start" for button in app.button)


def test_one_row_that_is_left_is_offered_by_itself(workspace):
    app = opened(set=json.dumps(["test-3"]))
    assert "Correct 1 row together" in [each.value for each in app.subheader]
    app.button(key="set_alone").click().run()
    assert not app.exception
    assert app.query_params["example"] == "test-3"
    assert "set" not in app.query_params
    assert any(button.key == "correct_start" for button in app.button)


def test_a_sets_run_leads_back_to_the_selected_example_and_says_what_the_form_lacks(workspace):
    examples = [each for each in WRONG if workspace.truth(each) == 1][:2]
    run = RunDirectory.create(spec_of(workspace, examples, epsilons=(0.1, 0.3)))
    run.claim()
    app = opened(run=run.id, example="test-3")
    assert any("Run again keeps them" in caption.value for caption in app.caption)
    app.button(key="correct_selected").click().run()
    assert any(button.key == "correct_start" for button in app.button)


def test_garbled_sets_in_the_address_are_none(workspace):
    for garbled in ("[" * 3000, "[1, null]", "7"):
        app = opened(set=garbled)
        assert "choose a misprediction first" in app.info[0].value


def test_words_of_a_set(workspace):
    spec = spec_of(workspace, ["a", "b", "c"], k=4, batch_size=12)
    assert share_words(spec) == "4 rows for each of 3 carry 50 % of the batch's weight (Σ ε = 1): no up-sampling."
    doubled = spec.model_copy(update={"share": 2 / 3})
    assert "each counts as 2 rows of the batch" in share_words(doubled)
    assert "the control" in share_words(spec.model_copy(update={"share": 0.0}))
    assert "stops when all have flipped" in settings_words(spec, workspace.checkpoint("first"))
    later = spec.model_copy(update={"after_flip": 5})
    assert "stops 5 steps after all have flipped" in settings_words(later, workspace.checkpoint("first"))
    few = spec.model_copy(update={"only_annotated": True})
    assert "12" not in share_words(few).split("batch")[0]
    assert "50 % of the batch's weight together" in share_words(few.model_copy(update={"share": 0.5}))
    outcome = {
        "flipped": 1,
        "of": 2,
        "steps": 9,
        "examples": [
            {"example": "a", "predicted": "n", "desired": "p", "flip_step": 3, "base_flip_step": None,
             "probability": 0.4, "flipped": False},
            {"example": "b", "predicted": "n", "desired": "p", "flip_step": 2, "base_flip_step": 5,
             "probability": 0.9, "flipped": True},
        ],
    }  # fmt: skip
    said = outcome_words(outcome, spec)
    assert said.startswith("1 of 2 are predicted as desired after 9 steps of at most 50. 1 had flipped before")
    assert "Without correction 1 would have flipped by then." in said
    assert [row["at the end"] for row in table_rows(outcome)] == ["lost again", "as desired"]
