"""Corrections on a real tiny workspace."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from influence_core.correction.halves import nearest_half
from influence_core.correction.setting import RETENTION_ROWS, retention_rows
from influence_core.correction.strategies import STRATEGIES, Request
from influence_core.errors import RunFailedError, UserError
from influence_core.events import Progress, Result, Step
from influence_core.home import read_json
from influence_core.models.loading import load, rows_of
from influence_core.runs.stopping import request_stop
from influence_core.similar import features
from influence_core.sizes import scope_size
from influence_core.specs import CorrectionSpec
from influence_core.trajectory.start import optimizer_of

FAST = {"optimizer": "sgd", "learning_rate": 0.1, "k": 6, "batch_size": 16, "method": "tracin"}


def split_events(events):
    events = list(events)
    return [e for e in events if isinstance(e, Step)], events[-1].value, [e for e in events if isinstance(e, Progress)]


@pytest.fixture
def wrong(opened):
    return opened.mispredictions().iloc[0]


def test_a_correction_flips_and_says_what_the_command_line_lists(opened, wrong, tmp_path):
    steps, outcome, progress = split_events(opened.correct(wrong["id"], tmp_path / "run", **FAST))
    desired = opened.label_names[wrong["label"]]
    assert [step.step for step in steps] == list(range(len(steps)))
    first, last = steps[0], steps[-1]
    assert first.divergence == 0
    assert first.integrated_lr == 0
    assert first.retention == 1
    assert first.changed == []
    assert first.prediction == first.base_prediction == opened.label_names[wrong["prediction"]]
    assert first.loss == pytest.approx(wrong["loss"], rel=1e-4)
    assert first.probability == pytest.approx(1 - wrong["confidence"], rel=1e-4)
    assert outcome["flipped"]
    assert outcome["flip_step"] == last.step
    assert last.prediction == desired
    assert all(step.prediction != desired for step in steps[:-1])
    assert last.divergence > steps[1].divergence > 0
    assert last.integrated_lr == pytest.approx(0.1 * last.step)
    assert outcome["retention"] == last.retention
    assert "comparing on the whole test split" in {event.phase for event in progress}


def test_before_and_after_agree_with_predicting_by_hand(opened, wrong, tmp_path):
    _, outcome, _ = split_events(opened.correct(wrong["id"], tmp_path / "run", **FAST))
    classifier = load(opened)
    rows = rows_of(opened, classifier, "test")
    changed = load_file(tmp_path / "run" / "parameters.safetensors")
    with torch.no_grad():
        before = classifier.logits(rows.batch(range(len(rows)))).argmax(1).numpy() == rows.labels
        after = classifier.logits(rows.batch(range(len(rows))), changed).argmax(1).numpy() == rows.labels
    ids = opened.dataset.splits["test"]["id"]
    assert outcome["before"] == pytest.approx(before.mean())
    assert outcome["after"] == pytest.approx(after.mean())
    assert outcome["fixed"] == ids[~before & after].tolist()
    assert outcome["broken"] == ids[before & ~after].tolist()
    assert wrong["id"] in outcome["fixed"]


def test_retention_is_the_share_of_unchanged_predictions(opened, wrong, tmp_path):
    steps, _, _ = split_events(opened.correct(wrong["id"], tmp_path / "run", **{**FAST, "after_flip": 8}))
    ids = retention_rows(opened, [wrong["id"]])
    assert wrong["id"] not in ids
    assert len(ids) == 39 < RETENTION_ROWS  # the tiny test set has 40 rows
    assert ids == retention_rows(opened, [wrong["id"]])
    classifier = load(opened)
    rows = rows_of(opened, classifier, "test")
    numbers = [opened.locate(example)[1] for example in ids]
    changed = load_file(tmp_path / "run" / "parameters.safetensors")
    with torch.no_grad():
        was = classifier.logits(rows.batch(numbers)).argmax(1)
        now = classifier.logits(rows.batch(numbers), changed).argmax(1)
    differs = (was != now).numpy()
    assert steps[-1].changed == [example for example, other in zip(ids, differs, strict=True) if other]
    assert steps[-1].retention == pytest.approx(1 - differs.mean())


def test_zero_epsilon_is_the_uncorrected_run_exactly(opened, wrong):
    steps, outcome, _ = split_events(opened.correct(wrong["id"], epsilon=0.0, steps=3, **FAST))
    assert len(steps) == 4 or outcome["flipped"]
    for step in steps:
        assert step.divergence == 0
        assert (step.loss, step.prediction) == (step.base_loss, step.base_prediction)


def test_stopping_after_the_flip_and_at_the_last_step(opened, wrong):
    steps, outcome, _ = split_events(opened.correct(wrong["id"], after_flip=3, **FAST))
    assert steps[-1].step == outcome["flip_step"] + 3
    at_flip = next(step for step in steps if step.step == outcome["flip_step"])
    assert (outcome["retention"], outcome["retention_at_end"]) == (at_flip.retention, steps[-1].retention)
    assert ("lost_again" in outcome) == (steps[-1].prediction != at_flip.prediction)
    short, outcome, _ = split_events(opened.correct(wrong["id"], **{**FAST, "learning_rate": 1e-6, "steps": 2}))
    assert len(short) == 3
    assert not outcome["flipped"]
    assert outcome["flip_step"] is None
    assert outcome["retention"] == short[-1].retention
    assert "retention_at_end" not in outcome


def test_a_stop_request_ends_early_with_a_usable_result(opened, wrong, tmp_path):
    result = tmp_path / "run"
    events = opened.correct(wrong["id"], result, **{**FAST, "learning_rate": 1e-6})
    steps, outcome = [], None
    for event in events:
        if isinstance(event, Step):
            steps.append(event)
            if event.step == 2:
                request_stop(result)
        if isinstance(event, Result):
            outcome = event.value
    assert steps[-1].step == 2
    assert outcome["steps"] == 2
    assert opened.keep(result, "stopped").parent == opened.checkpoint().name


def test_an_abandoned_correction_leaves_its_parameters(opened, wrong, tmp_path):
    events = opened.correct(wrong["id"], tmp_path / "run", **{**FAST, "learning_rate": 1e-6})
    for event in events:
        if isinstance(event, Step) and event.step == 2:
            break
    events.close()
    assert read_json(tmp_path / "run" / "manifest.json")["steps"] == 2
    assert opened.keep(tmp_path / "run", "abandoned").accuracy == {}


def test_kept_checkpoints_load_in_plain_transformers_and_predict_as_recorded(opened, wrong, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    _, outcome, _ = split_events(opened.correct(wrong["id"], tmp_path / "run", **FAST))
    kept = opened.keep(tmp_path / "run", "better")
    assert [entry.name for entry in opened.checkpoints()] == [opened.checkpoint().name, "better"]
    assert kept.accuracy["test"] == outcome["after"]
    assert kept.notes["correction"]["cursor"] == 0
    assert kept.fingerprint != opened.checkpoint().fingerprint
    module = AutoModelForSequenceClassification.from_pretrained(kept.path).eval()
    tokenizer = AutoTokenizer.from_pretrained(kept.path)
    frame = opened.dataset.splits["test"]
    with torch.no_grad():
        encoded = tokenizer(frame["text"].tolist(), padding=True, return_tensors="pt")
        predicted = module(**encoded).logits.argmax(1).numpy()
    recorded = opened.predictions("test", "better")
    np.testing.assert_array_equal(recorded["prediction"], predicted)
    np.testing.assert_array_equal(opened.predict("test", "better")["prediction"], predicted)
    with pytest.raises(UserError, match="already has a checkpoint 'better'"):
        opened.keep(tmp_path / "run", "better")
    with pytest.raises(UserError, match="cannot name a checkpoint"):
        opened.keep(tmp_path / "run", "../up")
    # the kept checkpoint is one to go on from, with the optimizer state it carries
    left = opened.mispredictions("test", "better")
    if len(left):
        options = {**FAST, "checkpoint": "better", "optimizer": "checkpoint"}
        steps, _, _ = split_events(opened.correct(left["id"].iloc[0], **{**options, "steps": 2}))
        assert len(steps) >= 2


def test_strategies_pick_what_they_say(opened, wrong):
    names, labels = opened.label_names, opened.labels().values
    ranking = opened.rank(wrong["id"], method="tracin", top=8)
    predicted, desired = int(wrong["prediction"]), int(wrong["label"])
    spec = CorrectionSpec(workspace=opened.name, example=wrong["id"], k=8)
    chosen = {
        name: own.choose(Request(opened, spec, predicted, desired, labels, ranking)) for name, own in STRATEGIES.items()
    }
    ids = {name: opened.train["id"].iloc[own.numbers].tolist() for name, own in chosen.items()}
    assert ids["proponents"] == [row.id for row in ranking.proponents]
    assert (chosen["proponents"].labels == desired).all()
    assert ids["opponents"] == [row.id for row in ranking.opponents]
    assert [names[label] for label in chosen["opponents"].labels] == [row.label for row in ranking.opponents]
    assert (labels[chosen["random"].numbers] == predicted).all()
    assert (chosen["random"].labels == desired).all()
    assert len(set(ids["random"])) == 8
    again = STRATEGIES["random"].choose(Request(opened, spec, predicted, desired, labels, None))
    np.testing.assert_array_equal(again.numbers, chosen["random"].numbers)
    reseeded = spec.model_copy(update={"seed": 1})
    other = STRATEGIES["random"].choose(Request(opened, reseeded, predicted, desired, labels, None))
    assert not np.array_equal(other.numbers, chosen["random"].numbers)


def test_a_solve_that_found_nothing_is_named_as_the_reason(opened, wrong):
    """Conjugate Gradient may leave 0 as its best where H is indefinite."""
    empty = opened.rank(wrong["id"], method="tracin", top=8).model_copy(
        update={
            "method": "hif-cg",
            "notes": {"iterations": 0, "residual": 1.0, "converged": False},
            "proponents": [],
            "opponents": [],
        }
    )
    spec = CorrectionSpec(workspace=opened.name, example=wrong["id"], k=8)
    asked = Request(opened, spec, int(wrong["prediction"]), int(wrong["label"]), opened.labels().values, empty)
    for name in ("proponents", "opponents"):
        with pytest.raises(UserError, match=r"hif-cg ranks no row for .*all scores are 0"):
            STRATEGIES[name].choose(asked)


def test_the_base_loss_keeps_the_original_labels_and_b_alone_is_relabelled(opened, wrong, tmp_path):
    before, _, _ = split_events(opened.correct(wrong["id"], strategy="random", steps=2, **FAST))
    untouched = opened.train["id"].iloc[0]
    old = opened.label_names[int(opened.labels().values[0])]
    new = next(name for name in opened.label_names if name != old)
    opened.relabel(untouched, new, expect=old, annotator="ann")
    spec = opened.spec(CorrectionSpec, {"example": wrong["id"], "strategy": "random", "k": 6})
    asked = Request(opened, spec, int(wrong["prediction"]), int(wrong["label"]), opened.labels().values, None)
    rows = STRATEGIES["random"].choose(asked)
    after, _, _ = split_events(opened.correct(wrong["id"], tmp_path / "run", strategy="random", steps=2, **FAST))
    assert [s.base_loss for s in after] == [s.base_loss for s in before]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["cursor"] == 1
    assert manifest["rows"] == opened.train["id"].iloc[rows.numbers].tolist()


def test_permuted_takes_the_proponents_of_another_like_it(opened, wrong, tmp_path):
    _, outcome, _ = split_events(
        opened.correct(wrong["id"], tmp_path / "run", **{**FAST, "strategy": "permuted", "steps": 1})
    )
    manifest = read_json(tmp_path / "run" / "manifest.json")
    other = manifest["proponents_of"]
    frame = opened.mispredictions().set_index("id")
    assert other != wrong["id"]
    assert (frame.loc[other, "prediction"], frame.loc[other, "label"]) == (wrong["prediction"], wrong["label"])
    theirs = opened.rank(other, method="tracin", top=6)
    assert manifest["rows"] == [row.id for row in theirs.proponents]
    assert set(manifest["row_labels"]) == {opened.label_names[wrong["label"]]}
    assert outcome["proponents_of"] == other
    assert read_json(tmp_path / "run" / "ranking.json")["example"] == other


def test_the_share_of_opponents_with_the_desired_label_is_noted(opened, wrong, tmp_path):
    options = {**FAST, "k": 8, "strategy": "opponents", "steps": 1}
    _, outcome, _ = split_events(opened.correct(wrong["id"], tmp_path / "run", **options))
    manifest = read_json(tmp_path / "run" / "manifest.json")
    labels = [row.label for row in opened.rank(wrong["id"], method="tracin", top=8).opponents]
    assert manifest["desired_share"] == labels.count(manifest["desired"]) / 8 == outcome["desired_share"]
    spec = CorrectionSpec(workspace=opened.name, example=wrong["id"], k=4)
    ranking = opened.rank(wrong["id"], method="tracin", top=4)
    numbers = [opened.locate(row.id)[1] for row in ranking.opponents]
    labels = np.zeros(120, dtype=np.int64)
    labels[numbers] = [2, 1, 2, 2]  # as among three classes
    assert STRATEGIES["opponents"].choose(Request(opened, spec, 0, 1, labels, ranking)).desired_share == 0.25


def test_batches_that_come_to_half_of_the_rows_make_the_frozen_parts_outputs_first(opened, wrong, tmp_path):
    """Of 120 training rows; a random choice ranks nothing, so that nothing else makes them."""
    options = {**FAST, "strategy": "random", "learning_rate": 1e-6, "k": 2, "steps": 5}
    found = {}
    for size in (4, 16):  # 20 rows, then 80
        list(opened.correct(wrong["id"], tmp_path / str(size), **{**options, "batch_size": size}))
        found[size] = read_json(tmp_path / str(size) / "manifest.json")["prefix"]
    assert found == {4: "the frozen part's outputs are not computed yet", 16: "kept"}


def test_retention_near_and_far_add_up_to_retention(opened, wrong, tmp_path):
    steps, outcome, _ = split_events(opened.correct(wrong["id"], tmp_path / "run", **{**FAST, "after_flip": 8}))
    manifest = read_json(tmp_path / "run" / "manifest.json")
    near, every = manifest["near_rows"], manifest["retention_rows"]
    values = features(opened, "test").astype(np.float64)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    cosines = {each: unit[opened.locate(each)[1]] @ unit[opened.locate(wrong["id"])[1]] for each in every}
    far = [each for each in every if each not in near]
    assert (len(near), len(far)) == (20, 19)
    assert min(cosines[each] for each in near) >= max(cosines[each] for each in far) - 1e-3  # kept in half precision
    assert steps[-1].changed  # something to count
    for step in steps:
        assert step.near_retention == pytest.approx(1 - len(set(step.changed) & set(near)) / 20)
        assert step.far_retention == pytest.approx(1 - len(set(step.changed) & set(far)) / 19)
        assert 20 * step.near_retention + 19 * step.far_retention == pytest.approx(39 * step.retention)
    at = steps[outcome["flip_step"]]
    assert (outcome["near_retention"], outcome["far_retention"]) == (at.near_retention, at.far_retention)


def test_retention_is_split_where_no_features_are_kept_as_in_a_prepared_demo(opened, wrong, tmp_path):
    options = {**FAST, "strategy": "random", "steps": 3}
    opened.predict("test")
    found = []
    for kept in (True, False):
        if not kept:
            next(opened.path.rglob("features.npy")).unlink()
        steps, outcome, _ = split_events(opened.correct(wrong["id"], tmp_path / str(kept), **options))
        assert steps[0].near_retention == steps[0].far_retention == 1
        found.append((outcome["near_retention"], read_json(tmp_path / str(kept) / "manifest.json")["near_rows"]))
    assert found[0] == found[1]
    assert len(found[0][1]) == 20


def test_a_run_that_fails_while_it_reads_the_rows_still_leaves_its_last_step(opened, wrong, tmp_path, monkeypatch):
    monkeypatch.setattr("influence_core.correction.reading.Retained.batch", property(lambda self: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        list(opened.correct(wrong["id"], tmp_path / "run", **{**FAST, "strategy": "random"}))
    manifest = read_json(tmp_path / "run" / "manifest.json")
    assert manifest["steps"] == 1
    assert "near_rows" not in manifest


def test_the_nearest_half_is_near_to_any_of_those_corrected():
    rows = np.array([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert nearest_half(rows, np.array([[3.0, 0.1]])).tolist() == [True, True, False, True, False]
    assert nearest_half(rows, np.array([[-2.0, 0.0], [0.0, 5.0]])).tolist() == [True, False, True, True, False]
    assert nearest_half(rows[[4, 4, 4]], np.ones((1, 2))).tolist() == [True, True, False]  # equal ones in their order


def test_one_retention_row_has_no_halves(opened, wrong, tmp_path, monkeypatch):
    monkeypatch.setattr("influence_core.correction.setting.RETENTION_ROWS", 1)
    options = {**FAST, "strategy": "random", "steps": 1}
    steps, outcome, _ = split_events(opened.correct(wrong["id"], tmp_path / "run", **options))
    assert "near_retention" not in steps[-1].model_dump(mode="json")
    assert "near_retention" not in outcome
    assert "near_rows" not in read_json(tmp_path / "run" / "manifest.json")


def test_a_run_ends_where_retention_is_too_low(opened, wrong, tmp_path):
    options = {**FAST, "learning_rate": 0.3, "after_flip": 40}
    steps, _, _ = split_events(opened.correct(wrong["id"], **{**options, "steps": 20}))
    least = min(step.retention for step in steps)
    asked = (1 + least) / 2
    first = next(step.step for step in steps if step.retention < asked)
    assert 0 < first < len(steps) - 1
    short, outcome, _ = split_events(
        opened.correct(wrong["id"], tmp_path / "run", **{**options, "steps": 20, "min_retention": asked})
    )
    assert [step.step for step in short] == list(range(first + 1))
    assert outcome["retention_at_stop"] == short[-1].retention < asked
    assert read_json(tmp_path / "run" / "manifest.json")["spec"]["min_retention"] == asked


def test_a_spec_of_before_reads_and_is_written_as_before():
    old = {"kind": "correct", "workspace": "w", "example": "1", "strategy": "random", "steps": 7}
    spec = CorrectionSpec(**old)
    assert spec.min_retention is None
    assert not {"min_retention", "predict"} & set(spec.model_dump())
    assert CorrectionSpec(**spec.model_dump()) == spec
    for bad in (0.0, 1.5):
        with pytest.raises(ValueError, match="min_retention"):
            CorrectionSpec(**old, min_retention=bad)


def test_warm_state_is_the_default_for_adam_and_is_kept(opened, wrong, monkeypatch, tmp_path):
    monkeypatch.setattr("influence_core.trajectory.start.WARM_BATCHES", 5)
    options = {**FAST, "optimizer": "checkpoint", "learning_rate": 1e-3, "steps": 2}
    _, _, progress = split_events(opened.correct(wrong["id"], tmp_path / "run", **options))
    assert [event.done for event in progress if event.phase == "warming the optimizer"] == [1, 2, 3, 4, 5]
    assert read_json(tmp_path / "run" / "manifest.json")["optimizer_state"] == "warm"
    assert read_json(tmp_path / "run" / "manifest.json")["optimizer"]["kind"] == "adam"
    _, _, progress = split_events(opened.correct(wrong["id"], **options))
    assert not [event for event in progress if event.phase == "warming the optimizer"]


def test_the_weight_is_given_as_epsilon_or_share_or_neither():
    spec = CorrectionSpec(workspace="w", example="1")
    assert spec.weight == pytest.approx(12 / 32)  # share k/(k+b): each row of B counts as one row
    assert CorrectionSpec(workspace="w", example="1", share=0.5).weight == pytest.approx(1)
    assert CorrectionSpec(workspace="w", example="1", epsilon=0.3).weight == 0.3


def test_optimizer_of_a_checkpoint(opened):
    checkpoint = opened.checkpoint()
    assert optimizer_of(checkpoint).kind == "adam"
    assert optimizer_of(checkpoint).learning_rate == 1e-5
    recorded = checkpoint.model_copy(
        update={"optimizer": {"kind": "sgd", "learning_rate": 0.1, "momentum": 0.9, "state": "o.safetensors"}}
    )
    found = optimizer_of(recorded)
    assert (found.kind, found.momentum, found.learning_rate) == ("sgd", 0.9, 1e-3)
    adam = optimizer_of(recorded, "adam")
    assert replace(adam, learning_rate=1.0).momentum == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": float("nan")}, "epsilon must be a finite number, got nan"),
        ({"epsilon": float("inf")}, "epsilon must be a finite number, got inf"),
        ({"epsilon": 1e300}, "epsilon = 1e\\+300: give at most 1000000"),
        ({"epsilon": 0.5, "share": 0.5}, "not both"),
        ({"share": 1.0}, "share = 1.0"),
        ({"k": 500}, "k = 500 but there are 120 training rows"),
        ({"k": 0}, "k = 0: give at least 1"),
        ({"batch_size": 400}, "batch size = 400 but there are 120"),
        ({"desired": "sideways"}, "no label 'sideways'"),
        ({"learning_rate": -1.0}, "learning_rate = -1"),
        ({"optimizer_state": "checkpoint", "optimizer": "adam"}, "carries no adam state"),
        ({"k": 119}, r"k = 119 but only \d+ training rows are proponents: lower k"),
        ({"k": 119, "strategy": "random"}, r"k = 119 but only \d+ training rows are labelled"),
        ({"k": 119, "strategy": "permuted"}, r"k = 119 but only \d+ training rows are proponents: lower k"),
        ({"min_retention": 2.0}, "min_retention = 2.0: give at most 1"),
    ],
)
def test_bad_requests_say_what_to_do(opened, wrong, options, message):
    with pytest.raises(UserError, match=message) as caught:
        list(opened.correct(wrong["id"], **{"method": "tracin", **options}))
    assert "\n" not in str(caught.value)


def test_desired_equal_to_the_prediction_and_unknown_rows(opened, wrong):
    predicted = opened.label_names[wrong["prediction"]]
    with pytest.raises(UserError, match=f"already predicted {predicted}"):
        list(opened.correct(wrong["id"], desired=predicted))
    examples = opened.examples()
    right = examples["id"][examples["prediction"] == examples["label"]].iloc[0]
    with pytest.raises(UserError, match="already predicted"):
        list(opened.correct(right))
    with pytest.raises(UserError, match="no example 'nobody'"):
        list(opened.correct("nobody"))
    with pytest.raises(UserError, match="is a training row"):
        list(opened.correct(opened.train["id"].iloc[0]))


def test_rows_relabelled_since_are_projected_again_before_they_are_chosen(opened, wrong, tmp_path):
    options = {**FAST, "steps": 1}
    before = opened.rank(wrong["id"], method="tracin", top=6)
    first = before.proponents[0]
    new = next(name for name in opened.label_names if name != first.label)
    opened.relabel(first.id, new, expect=first.label, annotator="ann")
    assert opened.rank(wrong["id"], method="tracin").stale == 1
    _, outcome, _ = split_events(opened.correct(wrong["id"], tmp_path / "run", **options))
    manifest = read_json(tmp_path / "run" / "manifest.json")
    assert (manifest["cursor"], manifest["stale"], outcome["stale"]) == (1, 0, 0)
    assert first.id not in manifest["rows"]  # with the other label it is an opponent


def test_an_index_without_its_basis_says_how_many_rows_are_stale(opened, wrong, tmp_path):
    opened.index(k=3, iterations=6, hessian_rows=20)
    opened.rank(wrong["id"], method="abif")
    next(opened.path.glob("artefacts/abif/*/basis.safetensors")).unlink()
    row, names = opened.train["id"].iloc[5], opened.label_names
    old = names[int(opened.labels().values[5])]
    opened.relabel(row, next(name for name in names if name != old), expect=old, annotator="ann")
    _, outcome, _ = split_events(
        opened.correct(wrong["id"], tmp_path / "run", **{**FAST, "method": "abif", "steps": 1})
    )
    assert outcome["stale"] == 1
    assert read_json(tmp_path / "run" / "manifest.json")["stale"] == 1


def test_a_result_is_kept_only_on_the_parent_it_started_from(home, tiny_checkpoint, data_files, tmp_path):
    import shutil

    from checkpoints import save_tiny_checkpoint

    from influence_core.data.opening import run as open_workspace
    from influence_core.specs import OpenSpec
    from influence_core.workspace import Workspace

    folder = tmp_path / "mine"
    shutil.copytree(tiny_checkpoint, folder)
    spec = OpenSpec(checkpoint=str(folder), data=str(data_files[0]), test=str(data_files[1]), scope="last:1")
    workspace = Workspace.open(list(open_workspace(spec, tmp_path / "opening"))[-1].value["workspace"])
    example = workspace.mispredictions()["id"].iloc[0]
    list(workspace.correct(example, tmp_path / "run", **{**FAST, "steps": 1}))
    save_tiny_checkpoint(folder, seed=8, trained=False)
    with pytest.raises(UserError, match=r"checkpoint mine has fingerprint \w+, but \w+ is recorded"):
        workspace.keep(tmp_path / "run", "mixed")
    assert [entry.name for entry in workspace.checkpoints()] == ["mine"]
    assert not [path for path in (workspace.path / "checkpoints").iterdir() if path.name.startswith(".")]


def test_a_correction_that_diverges_fails_and_leaves_nothing_to_keep(opened, wrong, tmp_path):
    options = {**FAST, "learning_rate": 1e30, "steps": 3}
    with pytest.raises(RunFailedError, match=r"diverged at step 1 .* lower the learning rate, 1e\+30"):
        list(opened.correct(wrong["id"], tmp_path / "run", **options))
    with pytest.raises(UserError, match="left no parameters"):
        opened.keep(tmp_path / "run", "nan")


SMALL = {**FAST, "learning_rate": 0.05, "steps": 4, "after_flip": 10, "predict": True}


def test_without_predictions_nothing_of_them_is_said(opened, wrong, tmp_path):
    steps, _, _ = split_events(opened.correct(wrong["id"], tmp_path / "run", **{**FAST, "steps": 1}))
    assert not {name for name in steps[-1].model_dump(mode="json") if name.startswith(("predicted", "additive"))}
    assert "predict" not in read_json(tmp_path / "run" / "manifest.json")["spec"]  # as before there were any


@pytest.mark.parametrize("options", [{}, {"optimizer": "adam", "learning_rate": 1e-3, "optimizer_state": "zeros"}])
def test_predictions_change_nothing_else_and_are_kept_in_the_manifest(opened, wrong, tmp_path, options):
    asked = {**SMALL, "strategy": "random", **options}
    plain, _, _ = split_events(opened.correct(wrong["id"], **{**asked, "predict": False}))
    steps, _, _ = split_events(opened.correct(wrong["id"], tmp_path / "run", **asked))
    nothing = dict.fromkeys(["predicted_loss", "predicted_probability", "additive_loss", "additive_probability"])
    assert [step.model_copy(update=nothing) for step in steps] == plain
    assert read_json(tmp_path / "run" / "manifest.json")["spec"]["predict"] is True
    numbers = sum(value.numel() for value in load_file(tmp_path / "run" / "parameters.safetensors").values())
    assert scope_size(opened, None, None) == numbers  # the next estimate knows what tangents take
    first = steps[0]
    assert first.predicted_loss == first.additive_loss == first.base_loss
    for step in steps:
        assert step.predicted_probability == pytest.approx(np.exp(-max(step.predicted_loss, 0)))
        assert step.additive_probability == pytest.approx(np.exp(-max(step.additive_loss, 0)))
    assert steps[-1].predicted_loss != pytest.approx(steps[-1].additive_loss, rel=1e-6)


def test_the_control_is_predicted_to_be_itself(opened, wrong):
    steps, _, _ = split_events(opened.correct(wrong["id"], **{**SMALL, "epsilon": 0.0, "steps": 2}))
    assert [(step.divergence, step.predicted_loss) for step in steps] == [(0.0, step.base_loss) for step in steps]


def test_what_influence_predicts_is_the_shift_of_actual_corrections_to_first_order(opened, wrong):
    def shift(epsilon, **given):
        (*_, last), _, _ = split_events(opened.correct(wrong["id"], **{**SMALL, **given, "epsilon": epsilon}))
        return last.loss - last.base_loss, last.predicted_loss - last.base_loss, last.additive_loss - last.base_loss

    errors = {}
    for epsilon in (0.4, 0.1):
        true, exact, additive = shift(epsilon)
        errors[epsilon] = abs(exact - true), abs(additive - true)
    assert errors[0.4][0] / errors[0.1][0] == pytest.approx(16, rel=0.4)  # O(ε²)
    assert errors[0.4][1] / errors[0.1][1] < 8  # O(ε) remains
    true, exact, additive = shift(0.1)
    assert abs(exact - true) < 0.1 * abs(true)


def test_a_step_without_a_forward_derivative_is_said_in_a_line(opened, wrong, monkeypatch, tmp_path):
    def tangent(*given, **options):
        yield from ()
        raise NotImplementedError("Trying to use forward AD with _sdpa that does not support it. More words")

    monkeypatch.setattr("influence_core.correction.predicting.tangent", tangent)
    with pytest.raises(RunFailedError, match=r"does not support it.*correct without predictions") as caught:
        list(opened.correct(wrong["id"], tmp_path / "run", **SMALL))
    assert "\n" not in str(caught.value)
