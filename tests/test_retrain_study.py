"""The retraining study on a tiny workspace: its trainings against plain ones, its table by hand, resuming, refusals."""

import json
import shutil
import sysconfig
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import NAMES
from homes import living_in
from noisy_workspaces import noisy_workspace

from influence_core.cli import main
from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.models.predict import Predictions, predict
from influence_core.runs import registry
from influence_core.runs.stopping import request_stop
from influence_core.specs import RetrainSpec, parse_spec
from influence_core.studies import retraining
from influence_core.studies.cases import Case
from influence_core.studies.intervals import wilson
from influence_core.studies.retrain import Relabels, labels_with
from influence_core.studies.retrain_table import Outcome, Retrained, row, summary
from influence_core.training.bases import write_start
from influence_core.training.loop import train
from influence_core.training.origins import Origin, origin_of
from influence_core.training.recipes import Recipe
from influence_core.training.run import classifier_of, rows_of

STUDY = {"mispredictions": 3, "k": 6, "method": "tracin", "repeats": 1}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return Recipe(
        name="tiny",
        base=str(tmp_path_factory.mktemp("base") / "model"),
        epochs=2,
        batch_size=16,
        learning_rate=5e-3,
        scope="head",
        seed=4,
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, recipe):
    root = tmp_path_factory.mktemp("retrain")
    with living_in(root / "home"):
        made = noisy_workspace(root / "model")
        shutil.copytree(root / "model", recipe.base)
        made.change_checkpoint("tiny", notes={"recipe": recipe.as_json()})
        yield made


@pytest.fixture(autouse=True)
def at_home(workspace, monkeypatch):
    monkeypatch.setenv("INFLUENCE_HOME", str(workspace.path.parents[1]))


@pytest.fixture(scope="module")
def value(workspace, tmp_path_factory):
    with living_in(workspace.path.parents[1]):
        return study(workspace, tmp_path_factory.mktemp("run"))


def study(workspace, result, **options):
    spec = RetrainSpec(workspace=workspace.name, **{**STUDY, **options})
    assert parse_spec(spec.model_dump_json()) == spec
    found = list(registry.start(spec, result))[-1].value
    json.dumps(found, allow_nan=False)
    return found


def timeless(value):
    return {**value, "seconds": 0}


def plainly(workspace, recipe, labels, folder):
    """Train on a dataset whose own labels are these, without anything of the study; returns test probabilities."""
    frame = workspace.train.assign(label=labels)
    dataset = replace(workspace.dataset, splits={**workspace.dataset.splits, "train": frame}, checked=True)
    write_start(recipe, None, NAMES, folder)
    classifier = classifier_of(recipe, folder, NAMES)
    for _ in train(classifier, rows_of(classifier, dataset, "train"), recipe):
        pass
    return next(
        each.probabilities
        for each in predict(classifier, rows_of(classifier, dataset, "test"))
        if isinstance(each, Predictions)
    )


def relabelled(workspace, example, strategy):
    """Return the training labels with those of a misprediction's six proponents changed, by its ranking."""
    labels = workspace.train["label"].to_numpy(copy=True)
    for each in workspace.rank(example, method="tracin", top=6).proponents:
        _, place = workspace.locate(each.id)
        labels[place] = workspace.truth(example) if strategy == "proponents" else workspace.train["gold"].iloc[place]
    return labels


def test_a_line_is_a_plain_training_on_data_with_those_labels(workspace, recipe, value, tmp_path):
    original, truth = workspace.train["label"].to_numpy(), workspace.dataset.splits["test"]["gold"].to_numpy()
    control = plainly(workspace, recipe, original, tmp_path / "control")
    other = plainly(workspace, replace(recipe, seed=5), original, tmp_path / "other")
    assert value["accuracy"]["control"] == (control.argmax(1) == truth).mean()
    assert value["accuracy"]["seeds"] == [{"seed": 5, "accuracy": (other.argmax(1) == truth).mean()}]
    assert {each["strategy"] for each in value["rows"]} == {"proponents", "gold"}
    for strategy in ("proponents", "gold"):
        line = next(each for each in value["rows"] if each["strategy"] == strategy)
        labels = relabelled(workspace, line["example"], strategy)
        assert line["relabelled"] == (labels != original).sum() > 0
        after = plainly(workspace, recipe, labels, tmp_path / strategy)
        _, place = workspace.locate(line["example"])
        desired = truth[place]
        assert line["probability"]["after"] == pytest.approx(after[place, desired], abs=1e-5)
        assert line["probability"]["control"] == pytest.approx(control[place, desired], abs=1e-5)
        assert abs(after[place, desired] - control[place, desired]) > 1e-3  # the labels reach the training
        assert line["flipped"] == (after[place].argmax() == desired)
        assert line["by_itself"] == (control[place].argmax() == desired)
        assert line["accuracy"]["after"] == (after.argmax(1) == truth).mean()


def test_before_is_the_checkpoint(workspace, value):
    table = workspace.predict("test").set_index("id")
    truth = workspace.dataset.splits["test"]["gold"].to_numpy()
    assert value["accuracy"]["checkpoint"] == (table["prediction"].to_numpy() == truth).mean()
    for line in value["rows"]:
        desired = workspace.truth(line["example"])
        assert NAMES[desired] == line["desired"] != line["predicted"]
        assert line["probability"]["before"] == pytest.approx(table.loc[line["example"], f"p{desired}"])
        assert 0 <= line["retention"]["after"] <= 1


def test_summaries_are_a_hand_count_of_the_lines(value):
    assert value["trainings"] == value["trainings_asked"] == len(value["rows"]) + 2
    for own in value["summary"]:
        lines = [each for each in value["rows"] if each["strategy"] == own["strategy"]]
        assert own["mispredictions"] == own["trainings"] == len(lines) == 3 - sum(own["skipped"].values())
        flips, alone = (sum(each[name] for each in lines) for name in ("flipped", "by_itself"))
        assert own["flipped"] == wilson(flips, len(lines)).as_json()
        assert own["by_itself"] == wilson(alone, len(lines)).as_json()
        assert own["against_control"]["value"] == pytest.approx((flips - alone) / len(lines))
        for name in ("after", "control"):
            key = "retention" if name == "after" else "control_retention"
            assert own[key]["value"] == pytest.approx(np.mean([each["retention"][name] for each in lines]))
        changes = [each["accuracy"]["after"] - each["accuracy"]["control"] for each in lines]
        assert own["accuracy_change"]["value"] == pytest.approx(np.mean(changes))


def test_a_table_by_hand():
    truth = np.array([0, 1, 1, 0])

    def outcome(*ones):  # probability of class 1 of four rows
        return Outcome(np.array([[1 - each, each] for each in ones]), truth)

    before, control, after = outcome(0.9, 0.2, 0.8, 0.1), outcome(0.6, 0.3, 0.7, 0.1), outcome(0.4, 0.6, 0.2, 0.1)
    first, second, kept = Case("a", 0, 1, 0), Case("b", 1, 0, 1), np.array([2, 3])
    done = [Retrained(first, "gold", 2, kept, after), Retrained(second, "gold", 1, kept, after)]
    line = row(done[0], before, control, ("no", "yes"))
    assert (line["predicted"], line["desired"], line["flipped"], line["by_itself"]) == ("yes", "no", True, False)
    assert line["probability"] == pytest.approx({"before": 0.1, "control": 0.4, "after": 0.6})
    assert line["accuracy"] == {"before": 0.5, "control": 0.5, "after": 0.75}
    assert line["retention"] == {"control": 1.0, "after": 0.5}
    own = summary("gold", done, ["why", "why"], before, control, [after, control])
    assert (own["flipped"]["value"], own["by_itself"]["value"], own["by_seeds"]["value"]) == (1, 0, 0.5)
    assert own["against_control"]["value"] == 1
    assert (own["trainings"], own["accuracy_change"]["value"], own["skipped"]) == (1, 0.25, {"why": 2})
    assert own["probability_change"]["value"] == pytest.approx(0.25)  # 0.2 and 0.3
    empty = summary("gold", [], [], before, control, [])
    assert empty["flipped"]["value"] is None


def test_rows_wanted_with_two_labels_keep_their_own():
    labels, case = np.zeros(6, dtype=np.int64), Case("a", 0, 0, 1)
    wanted = [
        Relabels(case, np.array([0, 2, 3]), np.array([1, 1, 2])),
        Relabels(case, np.array([2, 3, 5]), np.array([1, 1, 2])),
    ]
    changed, conflicting = labels_with(wanted, labels)
    assert changed.tolist() == [1, 0, 1, 0, 0, 2]
    assert conflicting == 1
    assert not labels.any()


def test_together_is_one_training_with_all_relabels(workspace, recipe, tmp_path):
    together = study(workspace, tmp_path, together=True, strategies=("gold",), mispredictions=5)
    lines, own = together["rows"], together["summary"][0]
    assert together["trainings"] == together["trainings_asked"] == 3
    assert own["trainings"] == 1 < len(lines)
    labels = workspace.train["label"].to_numpy(copy=True)
    for line in lines:
        changed = relabelled(workspace, line["example"], "gold")
        labels = np.where(changed != workspace.train["label"], changed, labels)
    after = plainly(workspace, recipe, labels, tmp_path / "plain")
    for line in lines:
        _, place = workspace.locate(line["example"])
        expected = after[place, workspace.truth(line["example"])]
        assert line["probability"]["after"] == pytest.approx(expected, abs=1e-5)


def test_labels_are_those_that_stand(workspace, tmp_path, value):
    origin, stand = origin_of(workspace, RetrainSpec(workspace="noisy")), workspace.labels().values
    changed = stand.copy()
    changed[3] = 1 - changed[3]
    assert origin.key(workspace, stand.tolist(), 4) != origin.key(workspace, changed.tolist(), 4)
    assert origin.key(workspace, stand.tolist(), 4) != origin.key(workspace, stand.tolist(), 5)
    folder = workspace.artefacts.path("retrain", origin.key(workspace, stand.tolist(), 4))
    assert json.loads((folder / "about.json").read_text())["strategy"] == "control"


def test_a_stopped_study_is_a_valid_table_and_goes_on(workspace, value, tmp_path, monkeypatch):
    kept = workspace.path / "artefacts" / retraining.KIND
    shutil.move(kept, tmp_path / "kept")
    spec, stopped = RetrainSpec(workspace=workspace.name, **STUDY), tmp_path / "stopped"
    for event in registry.start(spec, stopped):
        if isinstance(event, Progress) and event.phase == "training again" and event.done == 3:
            request_stop(stopped)
        ended = event
    assert ended.value["trainings"] == 3 < ended.value["trainings_asked"]
    assert len(ended.value["rows"]) == 1
    assert ended.value["rows"][0] == value["rows"][0]
    for event in registry.start(spec, halfway := tmp_path / "halfway"):
        if isinstance(event, Progress) and event.phase.startswith("with the relabels") and "training" in event.phase:
            request_stop(halfway)  # in the midst of one: nothing of it is kept
        ended = event
    assert len(list(kept.glob("*/probabilities.safetensors"))) == 3
    assert ended.value["trainings"] < ended.value["trainings_asked"]
    rushed = study(workspace, tmp_path / "rushed", budget_minutes=1e-9)
    assert ended.value["trainings"] < rushed["trainings"] < rushed["trainings_asked"]  # a call always gets further
    assert len(list(kept.glob("*/probabilities.safetensors"))) == 4
    assert timeless(study(workspace, tmp_path / "rest")) == timeless(value)
    monkeypatch.setattr(retraining, "classifier_of", lambda *_: pytest.fail("all of it is kept"))
    assert timeless(study(workspace, tmp_path / "again")) == timeless(value)


def test_a_study_stopped_at_once_has_no_table(workspace, tmp_path):
    request_stop(tmp_path)
    found = study(workspace, tmp_path, repeats=0)
    assert (found["trainings"], found["summary"], found["rows"], found["accuracy"]["control"]) == (0, [], [], None)


def test_going_on_from_the_checkpoint_trains_it_a_few_epochs(workspace, tmp_path):
    options = {"start": "checkpoint", "mispredictions": 1, "strategies": ("proponents",), "repeats": 0}
    found = study(workspace, tmp_path, **options, epochs=2, learning_rate=2e-3, batch_size=8)
    assert found["start"] == "checkpoint"
    recipe = Recipe(name="x", epochs=2, batch_size=8, learning_rate=2e-3, scope="head", seed=0)
    line = found["rows"][0]
    folder = Path(workspace.checkpoint().path)
    classifier = classifier_of(recipe, folder, NAMES)
    rows = rows_of(classifier, workspace.dataset, "train")
    rows.labels = relabelled(workspace, line["example"], "proponents")
    for _ in train(classifier, rows, recipe):
        pass
    _, place = workspace.locate(line["example"])
    batch = rows_of(classifier, workspace.dataset, "test").batch([place])
    with torch.no_grad():
        expected = classifier.logits(batch).softmax(1)[0, workspace.truth(line["example"])]
    assert line["probability"]["after"] == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize(
    ("notes", "said"),
    [
        ({}, "checkpoint tiny of noisy records no recipe of its training.*--from checkpoint"),
        ({"recipe": {"trainer": "/somewhere"}}, "its recipe records trainer of its training"),
        ({"recipe": {"name": "a", "epochs": 1}}, "its recipe lacks batch_size"),
        ({"recipe": {"name": "a", "epochs": 1, "batch_size": 2, "learning_rate": 0.1}}, "records a recipe but no base"),
    ],
)
def test_what_is_not_recorded_is_said(workspace, notes, said, tmp_path):
    recorded = workspace.checkpoint("tiny").notes
    try:
        workspace.change_checkpoint("tiny", notes=notes)
        with pytest.raises(UserError, match=said):
            study(workspace, tmp_path)
    finally:
        workspace.change_checkpoint("tiny", notes=recorded)


def test_more_mispredictions_than_there_are_is_refused(workspace, tmp_path):
    with pytest.raises(UserError, match=r"mispredictions = 150, but noisy has \d+"):
        study(workspace, tmp_path, mispredictions=150)


def test_gold_needs_the_truth(opened, tmp_path):
    with pytest.raises(UserError, match="has no gold labels of its training rows: give strategy proponents alone"):
        study(opened, tmp_path, strategies=("gold",), start="checkpoint")


def test_a_demo_knows_its_own_base(workspace, monkeypatch):
    """The shipped recipe of the movie reviews names neither base nor schedule: the demo does."""
    from influence_core.demo import movies

    shipped = json.loads(movies.MOVIES.recipe_file.read_text())["recipe"]
    monkeypatch.setattr(workspace, "name", movies.MOVIES.name)
    entry = workspace.checkpoint("tiny").model_copy(update={"notes": {"recipe": shipped}})
    monkeypatch.setattr(workspace, "checkpoint", lambda _: entry)
    origin = origin_of(workspace, RetrainSpec(workspace=movies.MOVIES.name))
    assert origin.recipe == movies.MOVIES.recipe
    assert origin.start == str(movies.base_folder())


def test_the_command(workspace, value, capsys, tmp_path):
    small = ["study", "retrain", "noisy", "--mispredictions", "3", "--k", "6", "--method", "tracin", "--repeats", "1"]
    figure = tmp_path / "retrained.html"
    for options in (["--json"], ["--figure", str(figure)]):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([*small, *options])
        assert not caught.value.code
        out = capsys.readouterr().out
        if "--json" in options:
            assert json.loads(out) == {name: value[name] for name in ("accuracy", "summary", "rows")}
        else:
            assert f"{value['trainings']} of {value['trainings']} trainings" in out
            assert "trained again without relabels" in out
            assert "mispredictions flipped" in figure.read_text()


def test_a_result_names_its_base_without_this_machines_folders(home):
    recipe = Recipe(name="r", learning_rate=0.1, batch_size=4, epochs=1)
    packages = sysconfig.get_path("purelib")
    assert Origin(recipe, f"{packages}/encoder/model", False).shown == "package: encoder/model"
    assert (
        Origin(recipe, str(home / "workspaces" / "x" / "checkpoints" / "y"), True).shown
        == "home: workspaces/x/checkpoints/y"
    )
    assert Origin(recipe, "/data/mine", False).shown == "/data/mine"  # the user's own folder is what they know
    assert Origin(recipe, "google/small-bert", False).shown == "google/small-bert"
