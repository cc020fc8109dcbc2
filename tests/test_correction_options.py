"""What a correction may be told: which rows, whose labels, which modes, when to stop; each against a hand count."""

import copy
import re
import shlex

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checkpoints import sentences
from family_checkpoints import save_family, write_family_data
from homes import living_in
from safetensors.torch import load_file

from influence_core.cli import main
from influence_core.correction.replay import replay
from influence_core.correction.run import above
from influence_core.data.opening import run as open_workspace
from influence_core.errors import UserError
from influence_core.events import Step
from influence_core.home import read_json
from influence_core.models.loading import load, rows_of
from influence_core.models.predict import Predictions, predict
from influence_core.replays import Replayed
from influence_core.reports.chosen import FEW, chosen_words, few_desired
from influence_core.reports.commands import correct_command
from influence_core.specs import VALIDATION_ROWS, CorrectionSetSpec, CorrectionSpec, OpenSpec, RankSpec
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.trajectory.step import TrainingStep
from influence_core.validation import loss_before, rounded_up, validation_rows
from influence_core.workspace import Workspace

FAST = {"optimizer": "sgd", "learning_rate": 0.1, "k": 6, "batch_size": 16, "method": "tracin"}
STILL = {**FAST, "share": 0.0, "steps": 1, "dropout": False}  # one step on L alone


@pytest.fixture
def example(opened):
    return str(opened.mispredictions()["id"].iloc[0])


def other(workspace, row):
    return workspace.label_names[1 - int(workspace.train["label"].iloc[row])]


def relabel(workspace, rows):
    """Let an annotator change the labels of training rows; returns their ids with what they became."""
    changed = {}
    for row in rows:
        name, label = str(workspace.train["id"].iloc[row]), int(workspace.train["label"].iloc[row])
        changed[name] = other(workspace, row)
        workspace.relabel(name, changed[name], expect=workspace.label_names[label], annotator="ann")
    return changed


def corrected(workspace, example, folder, **options):
    events = list(workspace.correct(example, folder, **options))
    return [event for event in events if isinstance(event, Step)], events[-1].value, read_json(folder / "manifest.json")


def one_step(workspace, labels, seed=0, batch_size=16, rate=0.1):
    """Return the scope's parameters after a step of plain SGD on the first batch, in eval mode, by autograd alone."""
    classifier = load(workspace)
    scope, rows = classifier.scope("last:1"), rows_of(workspace, classifier, "train")
    order = TrainingStep(
        classifier, scope, OptimizerSpec(kind="sgd", learning_rate=0.1), rows, batch_size, seed
    ).batch_rows(0)
    leaves = {name: value.clone().requires_grad_() for name, value in classifier.parameters(scope).items()}
    batch = rows.batch(order, labels[order])
    loss = F.cross_entropy(classifier.logits(batch, leaves), batch.labels)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return order, {name: v.detach() - rate * g for (name, v), g in zip(leaves.items(), gradients, strict=True)}


def test_b_is_of_rows_that_annotators_changed_alone(opened, example, tmp_path):
    ranking = opened.rank(example, method="tracin", top=120)
    rows = [opened.locate(row.id)[1] for row in [*ranking.proponents[2:9:3], *ranking.opponents[:1]]]
    before = opened.rank(example, method="tracin", top=120)
    changed = relabel(opened, rows)
    now = opened.rank(example, method="tracin", top=120)
    for side in ("proponents", "opponents"):  # the same order as among all rows
        asked = RankSpec(workspace=opened.name, example=example, method="tracin", top=120, only_annotated=True)
        ids = [row.id for row in getattr(opened.ready(asked), side)]
        assert ids == [row.id for row in getattr(now, side) if row.id in changed]
    for strategy in ("proponents", "opponents", "random"):
        options = {**FAST, "strategy": strategy, "only_annotated": True, "steps": 2}
        _, _, manifest = corrected(opened, example, tmp_path / strategy, **options)
        chosen = manifest["rows"]
        assert 0 < len(chosen) <= len(changed) < FAST["k"]
        assert dict(zip(chosen, manifest["row_labels"], strict=True)) == {row: changed[row] for row in chosen}
        assert manifest["epsilon"] == pytest.approx(len(chosen) / 16)  # no up-sampling, of the rows that there are
        if strategy == "proponents":  # those that supported the prediction until they were changed, strongest first
            # of two classes: with the other label a row's gradient points the other way
            assert set(chosen) == {row.id for row in before.proponents if row.id in changed}
            fresh = opened.rank(example, method="tracin", top=120)  # the run projected them again
            assert chosen == [row.id for row in fresh.opponents if row.id in chosen]
    assert set(chosen) == set(changed)  # random takes all of so few


def test_rows_scored_by_an_earlier_label_are_still_the_proponents_that_annotators_changed(opened, example, tmp_path):
    opened.index(k=3, iterations=6, hessian_rows=20)
    before = opened.rank(example, method="abif", top=120)
    next(opened.path.glob("artefacts/abif/*/basis.safetensors")).unlink()  # nothing can be projected again
    rows = [before.proponents[place].id for place in (1, 4)] + [before.opponents[0].id]
    relabel(opened, [opened.locate(row)[1] for row in rows])
    options = {**FAST, "method": "abif", "only_annotated": True, "steps": 1}
    _, _, manifest = corrected(opened, example, tmp_path / "run", **options)
    assert manifest["stale"] == 3
    assert manifest["rows"] == rows[:2]
    assert chosen_words(manifest) == "Annotators changed fewer rows of the kind than k = 6: B is of 2."


def test_opponents_of_several_are_warned_of_where_any_has_few_with_the_desired_label():
    several = {"examples": [{"desired_share": 0.25}, {"desired_share": 0.75}]}
    said = chosen_words(several)
    assert said == (
        "50 % of the chosen opponents carry the desired label, on average; for 1 of 2 rows fewer than half do. " + FEW
    )
    assert few_desired(several)
    assert not few_desired({"examples": [{"desired_share": 0.5}]})
    assert chosen_words({"examples": [{}]}) is None


def test_without_such_rows_it_says_what_to_do(opened, example):
    with pytest.raises(UserError, match="only rows that annotators changed were asked for, and no such row"):
        list(opened.correct(example, **FAST, only_annotated=True))


def test_the_loss_has_the_original_labels_unless_told(opened, example, tmp_path):
    original = opened.train["label"].to_numpy()
    order, _ = one_step(opened, original)
    relabel(opened, order[:5])
    annotated = opened.labels().values
    assert (annotated != original).sum() == 5
    for labels, told in ((original, False), (annotated, True)):
        corrected(opened, example, tmp_path / str(told), **STILL, annotated_loss=told)
        found = load_file(tmp_path / str(told) / "parameters.safetensors")
        _, expected = one_step(opened, labels)
        assert found.keys() == expected.keys()
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)
    first, second = (load_file(tmp_path / told / "parameters.safetensors") for told in ("False", "True"))
    assert any(not torch.allclose(value, second[name], rtol=1e-4, atol=1e-6) for name, value in first.items())


def test_a_replay_has_the_labels_of_its_run_in_the_loss(opened, example, tmp_path):
    relabel(opened, range(10))
    corrected(opened, example, tmp_path / "run", **FAST, steps=3, annotated_loss=True)
    opened.keep(tmp_path / "run", "better")
    relabel(opened, range(10, 40))
    found = [event for event in replay(opened, "better") if isinstance(event, Replayed)][-1]
    assert found.same, found.differing


def test_dropout_can_be_left_off(opened, example, tmp_path):
    _, expected = one_step(opened, opened.train["label"].to_numpy())
    for on in (False, True):
        corrected(opened, example, tmp_path / str(on), **{**STILL, "dropout": on})
        found = load_file(tmp_path / str(on) / "parameters.safetensors")
        same = all(torch.allclose(value, expected[name], rtol=1e-4, atol=1e-6) for name, value in found.items())
        assert same != on


def test_warm_states_are_kept_apart_by_labels(opened, example, monkeypatch, tmp_path):
    monkeypatch.setattr("influence_core.trajectory.start.WARM_BATCHES", 3)
    options = {**FAST, "optimizer": "adam", "learning_rate": 1e-4, "steps": 1, "strategy": "random"}

    def warmed(**more):
        events = list(opened.correct(example, tmp_path / "run", **options, **more))
        return any(getattr(event, "phase", "") == "warming the optimizer" for event in events)

    assert warmed()
    assert not warmed()
    assert not warmed(annotated_loss=True)  # the same labels so far
    relabel(opened, range(5))
    assert not warmed()
    assert warmed(annotated_loss=True)


@pytest.fixture
def images(tmp_path):
    with living_in(tmp_path / "home"):
        checkpoint = save_family(tmp_path / "model", "torchvision")
        train, test = write_family_data(tmp_path / "data", "torchvision")
        spec = OpenSpec(checkpoint=str(checkpoint), data=str(train), test=str(test), scope="last:1")
        yield Workspace.open(list(open_workspace(spec, tmp_path / "opening"))[-1].value["workspace"])


def test_batchnorm_by_the_batch_moves_statistics_that_are_kept(images, tmp_path):
    example = str(images.mispredictions()["id"].iloc[0])
    options = {**FAST, "learning_rate": 1e-4, "batch_size": 8, "steps": 2, "after_flip": 2}
    options = {**options, "batchnorm": "train"}
    steps, _, _ = corrected(images, example, tmp_path / "run", **options)
    usual, _, _ = corrected(images, example, tmp_path / "usual", **{**options, "batchnorm": "eval"})
    assert steps[0] == usual[0]
    assert steps[1].loss != usual[1].loss
    kept = images.keep(tmp_path / "run", "kept")
    held = load_file(f"{kept.path}/model.safetensors")
    parent = load_file(f"{images.checkpoint().path}/model.safetensors")
    moved = {name for name in held if not torch.equal(held[name].double(), parent[name].double()) and "running" in name}
    assert moved

    # the first step's statistics, by a plain module in train mode on the same batch
    corrected(images, example, tmp_path / "one", **{**options, "steps": 1})
    one = load_file(tmp_path / "one" / "parameters.safetensors")
    classifier = load(images)
    scope, rows = classifier.scope("last:1"), rows_of(images, classifier, "train")
    step = TrainingStep(classifier, scope, OptimizerSpec(kind="sgd", learning_rate=0.1), rows, 8, 0)
    module = copy.deepcopy(classifier.module)
    for part in scope.modules:
        module.get_submodule(part).train()
    with torch.no_grad():
        module(**rows.batch(step.batch_rows(0)).inputs)
    plain = module.state_dict()
    assert {name for name in one if "running" in name} == moved
    for name in sorted(moved):
        torch.testing.assert_close(one[name], plain[name], rtol=1e-4, atol=1e-5)
    assert one[next(name for name in one if "tracked" in name)].dtype == torch.int64

    # what was compared is what the kept checkpoint predicts, and a replay gives its bits
    classifier = load(images, "kept")
    again = next(e for e in predict(classifier, rows_of(images, classifier, "test")) if isinstance(e, Predictions))
    np.testing.assert_allclose(again.losses, images.predictions("test", "kept")["loss"], atol=1e-5)
    _, row = images.locate(example)
    desired = images.truth(example)
    assert images.predictions("test", "kept")[f"p{desired}"].iloc[row] == pytest.approx(steps[-1].probability, abs=1e-5)
    found = [event for event in replay(images, "kept") if isinstance(event, Replayed)][-1]
    assert found.same, found.differing


def test_batchnorm_needs_a_layer_of_it(opened, example):
    with pytest.raises(UserError, match="batchnorm = train, but scope last:1 of this checkpoint has no BatchNorm"):
        list(opened.correct(example, **FAST, batchnorm="train"))
    with pytest.raises(UserError, match="predict with batchnorm = train"):
        list(opened.correct(example, **FAST, batchnorm="train", predict=True))


@pytest.fixture
def validated(home, tiny_checkpoint, data_files, tmp_path):
    """A workspace with a validation split of more rows than are read."""
    sentences(VALIDATION_ROWS + 30, seed=5).to_csv(tmp_path / "validation.csv", index=False)
    spec = OpenSpec(
        checkpoint=str(tiny_checkpoint),
        data=str(data_files[0]),
        validation=str(tmp_path / "validation.csv"),
        test=str(data_files[1]),
        scope="last:1",
    )
    return Workspace.open(list(open_workspace(spec, tmp_path / "opening"))[-1].value["workspace"])


def test_a_run_ends_where_the_validation_loss_is_too_high(validated, tmp_path):
    example = str(validated.mispredictions("test")["id"].iloc[0])
    options = {**FAST, "learning_rate": 0.5, "share": 0.9, "steps": 8, "after_flip": 8}
    steps, outcome, _ = corrected(validated, example, tmp_path / "all", **options, max_validation_loss=100.0)
    assert "validation_loss_at_stop" not in outcome
    rows = validation_rows(validated)
    assert len(set(rows)) == VALIDATION_ROWS
    name = str(validated.dataset.splits["validation"]["id"].iloc[rows[0]])
    others = validation_rows(validated, [name])  # without the row that is corrected
    assert rows[0] not in others
    assert len(set(others)) == VALIDATION_ROWS
    classifier = load(validated)
    batch = rows_of(validated, classifier, "validation").batch(rows)
    for at, parameters in ((0, None), (-1, load_file(tmp_path / "all" / "parameters.safetensors"))):
        with torch.no_grad():
            expected = F.cross_entropy(classifier.logits(batch, parameters), batch.labels)
        assert steps[at].validation_loss == pytest.approx(float(expected), rel=1e-4)
    losses = [step.validation_loss for step in steps]
    assert max(losses) > losses[0]
    limit = (losses[0] + max(losses)) / 2
    first = next(number for number, loss in enumerate(losses) if loss > limit)
    short, outcome, _ = corrected(validated, example, tmp_path / "run", **options, max_validation_loss=limit)
    assert [step.step for step in short] == list(range(first + 1))
    assert outcome["validation_loss_at_stop"] == short[-1].validation_loss == losses[first]


def test_a_limit_that_is_below_the_loss_before_the_first_step_is_refused(validated, tmp_path):
    examples = [str(example) for example in validated.mispredictions("test")["id"].iloc[:2]]
    assert loss_before(validated, None, examples) is None  # not predicted: the run does that first
    with pytest.raises(UserError, match=r"max_validation_loss = 0\.001 but the validation loss is"):
        list(validated.correct(examples[0], **FAST, max_validation_loss=0.001))
    now = loss_before(validated, None, examples)
    classifier = load(validated)
    batch = rows_of(validated, classifier, "validation").batch(validation_rows(validated))
    with torch.no_grad():
        assert now == pytest.approx(float(F.cross_entropy(classifier.logits(batch), batch.labels)), rel=1e-4)
    said = f"max_validation_loss = {now / 2:g} but the validation loss is {rounded_up(now):g} before the first step"
    options = {**FAST, "max_validation_loss": now / 2}
    with pytest.raises(UserError, match=re.escape(said)):
        list(validated.correct(examples[0], **options))
    with pytest.raises(UserError, match=re.escape(said)):
        validated.outcome(validated.spec(CorrectionSetSpec, {**options, "examples": tuple(examples)}))


def test_without_a_validation_split_that_rule_is_refused(opened, example):
    with pytest.raises(UserError, match=r"max_validation_loss = 0\.5 but .* has no validation split"):
        list(opened.correct(example, **FAST, max_validation_loss=0.5))


def test_a_spec_says_only_what_was_changed_and_the_command_says_all_of_it(opened, example, tmp_path):
    plain = CorrectionSpec(workspace="w", example="1").model_dump()
    told = {"only_annotated": True, "annotated_loss": True, "dropout": False, "batchnorm": "train"}
    told["max_validation_loss"] = 2.5
    assert not told.keys() & plain.keys()
    spec = CorrectionSpec(workspace="w", example="1", **told)
    assert told.items() <= spec.model_dump().items()
    assert CorrectionSpec(**spec.model_dump()) == spec
    words = correct_command(
        {"spec": spec.model_dump(), "checkpoint": "c", "scope": "all", "steps": 50}, {"flip_step": None}, None, None
    )
    given = shlex.split(words)
    assert {"--only-annotated", "--annotated-loss", "--no-dropout"} <= set(given)
    assert given[given.index("--batchnorm") + 1] == "train"
    assert given[given.index("--max-validation-loss") + 1] == "2.5"

    relabel(opened, range(30))
    asked = ["correct", opened.name, "--example", example, "--method", "tracin", "--steps", "1", "--keep", "own"]
    asked += ["--only-annotated", "--annotated-loss", "--no-dropout", "--k", "4", "--batch-size", "8"]
    with pytest.raises(SystemExit) as ended:
        main([*asked, "--optimizer", "sgd"])
    assert ended.value.code == 0
    found = opened.checkpoint("own").notes["correction"]["spec"]
    assert (found["only_annotated"], found["annotated_loss"], found["dropout"]) == (True, True, False)


def test_a_validation_loss_that_is_no_number_ends_a_run():
    spec = CorrectionSpec(workspace="w", example="1", max_validation_loss=2.0)
    fields = dict.fromkeys(("loss", "probability", "base_loss", "base_probability", "divergence", "integrated_lr"), 0.0)
    step = Step(step=1, prediction="a", base_prediction="a", retention=1.0, changed=[], **fields)
    for loss, ends in ((1.9, False), (2.1, True), (float("nan"), True), (None, False)):
        assert above(spec, step.model_copy(update={"validation_loss": loss})) == ends
