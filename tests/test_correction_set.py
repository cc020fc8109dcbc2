"""Several mispredictions corrected together: groups and their weights, what each step reads, what is kept."""

import json
import shlex

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from influence_core.cli import main
from influence_core.correction.replay import replay
from influence_core.correction.together.grouping import _deciders
from influence_core.correction.together.setting import Together, prepare_all
from influence_core.errors import UserError
from influence_core.estimates import START, estimate
from influence_core.events import Progress, Result, SetStep
from influence_core.home import read_json
from influence_core.labels.store import LabelStore
from influence_core.models.loading import load, rows_of
from influence_core.replays import Replayed
from influence_core.reports.commands import correct_command
from influence_core.runs import registry
from influence_core.similar import features
from influence_core.specs import CorrectionSetSpec, CorrectionSpec, ExplainSpec, parse_spec
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.trajectory.step import TrainingStep

FAST = {"optimizer": "sgd", "learning_rate": 0.1, "k": 4, "batch_size": 16, "method": "tracin", "dropout": False}


def corrected(workspace, examples, folder, **options):
    spec = workspace.spec(CorrectionSetSpec, {"examples": tuple(examples), **FAST, **options})
    events = list(registry.start(spec, folder))
    steps = [event for event in events if isinstance(event, SetStep)]
    assert isinstance(events[-1], Result)
    return steps, events[-1].value, read_json(folder / "manifest.json")


@pytest.fixture
def wrong(opened):
    return opened.mispredictions()["id"].tolist()


def test_one_step_is_the_sum_of_the_groups_gradients(opened, wrong, tmp_path):
    examples, rate = wrong[:3], 0.1
    _, outcome, manifest = corrected(opened, examples, tmp_path / "run", steps=1)
    assert [group["name"] for group in manifest["groups"]] == examples
    for group, example in zip(manifest["groups"], examples, strict=True):
        assert group["rows"] == [row.id for row in opened.rank(example, method="tracin", top=4).proponents]
        assert set(group["row_labels"]) == {opened.label_names[opened.truth(example)]}
        assert group["epsilon"] == pytest.approx(4 / 16)  # each row counts as one of the batch
    # by autograd, group after group
    classifier = load(opened)
    scope, rows = classifier.scope("last:1"), rows_of(opened, classifier, "train")
    order = TrainingStep(classifier, scope, OptimizerSpec(kind="sgd", learning_rate=rate), rows, 16, 0).batch_rows(0)
    leaves = {name: value.clone().requires_grad_() for name, value in classifier.parameters(scope).items()}
    loss = F.cross_entropy(classifier.logits(batch := rows.batch(order), leaves), batch.labels)
    for group in manifest["groups"]:
        numbers = [opened.locate(row)[1] for row in group["rows"]]
        batch = rows.batch(numbers, [opened.label_index(label) for label in group["row_labels"]])
        loss = loss + group["epsilon"] * F.cross_entropy(classifier.logits(batch, leaves), batch.labels)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    found = load_file(tmp_path / "run" / "parameters.safetensors")
    for (name, value), gradient in zip(leaves.items(), gradients, strict=True):
        torch.testing.assert_close(found[name], value.detach() - rate * gradient, rtol=1e-4, atol=1e-6)
    assert outcome["of"] == 3


def test_each_step_reads_what_predicting_by_hand_gives(opened, wrong, tmp_path):
    examples = wrong[:5]
    steps, outcome, manifest = corrected(opened, examples, tmp_path / "run", steps=30, after_flip=1)
    assert steps[0].flipped == 0
    assert steps[-1].flipped == 5  # so that there is something to see
    classifier = load(opened)
    frame = opened.examples("test").set_index("id")
    for at, parameters in ((0, None), (-1, load_file(tmp_path / "run" / "parameters.safetensors"))):
        for reading in steps[at].examples:
            split, row = opened.locate(reading.example)
            desired = opened.truth(reading.example)
            with torch.no_grad():
                logits = classifier.logits(rows_of(opened, classifier, split).batch([row], [desired]), parameters)[0]
            assert reading.probability == pytest.approx(float(logits.softmax(0)[desired]), abs=1e-5)
            assert reading.prediction == opened.label_names[int(logits.argmax())]
            assert reading.loss == pytest.approx(float(-logits.log_softmax(0)[desired]), abs=1e-4)
    # which flipped when, counted from the steps
    for about in outcome["examples"]:
        want = opened.label_names[opened.truth(about["example"])]
        seen = [next(each for each in step.examples if each.example == about["example"]) for step in steps]
        flips = [step.step for step, each in zip(steps, seen, strict=True) if each.prediction == want]
        alone = [step.step for step, each in zip(steps, seen, strict=True) if each.base_prediction == want]
        assert about["flip_step"] == (flips[0] if flips else None)
        assert about["base_flip_step"] == (alone[0] if alone else None)
        assert about["flipped"] == (seen[-1].prediction == want)
        assert about["predicted"] == opened.label_names[int(frame.loc[about["example"], "prediction"])]
    assert outcome["flipped"] == sum(about["flipped"] for about in outcome["examples"])
    first = next(step.step for step in steps if step.flipped == 5)
    assert outcome["flip_step"] == first
    assert outcome["steps"] == first + 1
    assert outcome["retention"] == next(step for step in steps if step.step == first).retention
    # joint retention: none of the corrected rows, the near half by the largest cosine to any of them
    retained, near = manifest["retention_rows"], manifest["near_rows"]
    assert not set(examples) & set(retained)
    values = features(opened, "test").astype(np.float64)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    targets = unit[[opened.locate(example)[1] for example in examples]]
    cosines = {each: float((targets @ unit[opened.locate(each)[1]]).max()) for each in retained}
    far = [each for each in retained if each not in near]
    assert min(cosines[each] for each in near) >= max(cosines[each] for each in far) - 1e-3  # kept in half precision
    last = steps[-1]
    assert last.near_retention == pytest.approx(1 - len(set(last.changed) & set(near)) / len(near))
    assert last.retention == pytest.approx(1 - len(last.changed) / len(retained))
    assert outcome["after"] == pytest.approx(outcome["before"] + (len(outcome["fixed"]) - len(outcome["broken"])) / 40)


@pytest.mark.parametrize("by", ["all", "cell", "annotator"])
def test_groups_may_be_all_rows_a_cell_or_an_annotators(opened, wrong, tmp_path, by):
    frame = opened.mispredictions().set_index("id")
    examples = wrong[:4]
    if by == "annotator":
        row = opened.rank(examples[0], method="tracin", top=4).proponents[0]
        names = opened.label_names
        opened.relabel(row.id, names[1 - names.index(row.label)], expect=row.label, annotator="ann")
    _, _, manifest = corrected(opened, examples, tmp_path / "run", steps=1, group_by=by, share=0.5)
    groups = {group["name"]: group for group in manifest["groups"]}
    count = sum(len(group["rows"]) for group in groups.values())
    assert count == 16
    assert sum(group["epsilon"] for group in groups.values()) == pytest.approx(1)  # share one half
    for group in groups.values():
        assert group["epsilon"] == pytest.approx(len(group["rows"]) / count)
    if by == "all":
        assert set(groups) == {"all"}
    elif by == "cell":
        names = opened.label_names
        cells = {f"{names[frame.loc[each, 'prediction']]} → {names[frame.loc[each, 'label']]}" for each in examples}
        assert set(groups) == cells
    else:
        assert set(groups) <= {"ann", "nobody"}
        if "ann" in groups:
            assert set(groups["ann"]["rows"]) == {row.id}


def test_epsilons_are_one_a_group(opened, wrong, tmp_path):
    _, _, manifest = corrected(opened, wrong[:2], tmp_path / "run", steps=1, epsilons=(0.1, 0.4))
    assert [group["epsilon"] for group in manifest["groups"]] == [0.1, 0.4]
    with pytest.raises(UserError, match="1 epsilons for 2 groups"):
        corrected(opened, wrong[:2], tmp_path / "other", steps=1, epsilons=(0.1,))


def test_even_groups_weigh_the_same_however_many_rows_they_have(opened, wrong, tmp_path):
    row = opened.rank(wrong[0], method="tracin", top=4).proponents[0]
    names = opened.label_names
    opened.relabel(row.id, names[1 - names.index(row.label)], expect=row.label, annotator="ann")
    # a proponent that is relabelled opposes: it is among the opponents
    options = {"steps": 1, "group_by": "annotator", "share": 0.5, "even_groups": True, "strategy": "opponents"}
    _, _, manifest = corrected(opened, wrong[:2], tmp_path / "run", **{**options, "k": 40})
    sizes = [len(group["rows"]) for group in manifest["groups"]]
    assert len(sizes) == 2
    assert sizes[0] != sizes[1]
    assert [group["epsilon"] for group in manifest["groups"]] == pytest.approx([0.5, 0.5])
    assert "--even-groups" in correct_command(manifest, {"flip_step": None}, None, None)


def test_random_rows_differ_from_example_to_example(opened, wrong, tmp_path):
    _, _, manifest = corrected(opened, wrong[:3], tmp_path / "run", steps=1, strategy="random")
    rows = [tuple(group["rows"]) for group in manifest["groups"]]
    assert len(set(rows)) == 3


def test_what_cannot_be_corrected_is_counted(opened, wrong, tmp_path):
    frame = opened.examples("test")
    right = frame[frame["prediction"] == frame["label"]]["id"].tolist()
    with pytest.raises(
        UserError, match=rf"example '{right[0]}' is already predicted .* \(2 of 4 cannot be corrected\)"
    ):
        corrected(opened, [wrong[0], *right[:2], wrong[1]], tmp_path / "run")
    with pytest.raises(UserError, match="there is no example 'nowhere'"):
        corrected(opened, [wrong[0], "nowhere"], tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"examples": ["a"]}, "examples"),
        ({"examples": ["a", "b", "a"]}, "example 'a' is given twice"),
        ({"examples": ["a", "b"], "predict": True}, "predict follows one example"),
        ({"examples": ["a", "b"], "epsilons": [1], "share": 0.2}, "not both"),
        ({"examples": ["a", "b"], "epsilons": [1, 2], "even_groups": True}, "which makes them equal, not both"),
    ],
)
def test_a_set_that_is_none_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        parse_spec({"kind": "correct-set", "workspace": "w", **options})


def test_a_kept_set_is_a_checkpoint_with_a_card_and_replays_bit_for_bit(opened, wrong, tmp_path):
    examples = wrong[:3]
    steps, outcome, manifest = corrected(opened, examples, tmp_path / "run", steps=4, dropout=True)
    kept = opened.keep(tmp_path / "run", "several")
    card = (opened.path / "checkpoints" / "several" / "README.md").read_text()
    assert "so that 3 mispredictions change together" in card
    for example in examples:
        assert example in card
    predictions = opened.predictions("test", "several").set_index("id")
    for reading in steps[-1].examples:
        desired = opened.truth(reading.example)
        assert predictions.loc[reading.example, f"p{desired}"] == pytest.approx(reading.probability, abs=1e-5)
    found = [event for event in replay(opened, "several") if isinstance(event, Replayed)][-1]
    assert found.same, found.differing
    # the command says all of it
    words = shlex.split(correct_command(manifest, outcome, None, None))
    assert [words[place + 1] for place, word in enumerate(words) if word == "--example"] == examples
    assert kept.notes["outcome"]["of"] == 3


def test_the_command_line_takes_several_examples(opened, wrong, capsys, tmp_path):
    asked = ["correct", opened.name, *(word for each in wrong[:2] for word in ("--example", each))]
    asked += ["--method", "tracin", "--optimizer", "sgd", "--learning-rate", "0.1", "--steps", "2", "--k", "4"]
    with pytest.raises(SystemExit) as ended:
        main([*asked, "--json", "--group-by", "all", "--keep", "two"])
    assert ended.value.code == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["step"] == 0
    assert [each["example"] for each in lines[0]["examples"]] == wrong[:2]
    assert set(lines[-1]) == {"flipped", "of", "flip_step", "steps", "examples", "retention", "checkpoint"}
    assert lines[0]["near_retention"] == 1
    assert lines[-1]["checkpoint"] == "two"
    with pytest.raises(SystemExit):
        main([*asked, "--group-by", "cell", "--strategy", "opponents", "--report", str(tmp_path / "r.html")])
    out, err = capsys.readouterr()
    assert "flipped at" in out
    assert "% of the half most similar to those corrected" in out
    assert "of the chosen opponents carry the desired label, on average" in out + err
    page = (tmp_path / "r.html").read_text()
    assert "Correction of 2 rows" in page
    assert all(example in page for example in wrong[:2])
    for example in wrong[:2]:
        assert example in out
    with pytest.raises(SystemExit) as ended:
        main(["correct", opened.name, "--example", wrong[0], "--group-by", "all"])
    assert ended.value.code == 2
    assert "give --example more than once" in capsys.readouterr().err


def test_an_estimate_grows_with_the_set(opened, wrong):
    opened.predict("test")
    alone = estimate(opened, opened.spec(CorrectionSpec, {"example": wrong[0], **FAST}))
    few = estimate(opened, opened.spec(CorrectionSetSpec, {"examples": tuple(wrong[:2]), **FAST}))
    shared = {"method": "tracin", "split": "test", "examples": tuple(wrong[:6])}
    rankings = estimate(opened, opened.spec(ExplainSpec, shared))
    free = {"examples": tuple(wrong[:6]), **FAST, "strategy": "random"}
    without = estimate(opened, opened.spec(CorrectionSetSpec, free))
    many = estimate(opened, opened.spec(CorrectionSetSpec, {"examples": tuple(wrong[:6]), **FAST}))
    assert alone.seconds < few.seconds < many.seconds
    assert many.seconds - without.seconds == pytest.approx(rankings.seconds - START)  # the rankings are one pass


def test_a_set_that_is_stopped_leaves_what_can_be_kept(opened, wrong, tmp_path):
    from influence_core.runs.stopping import request_stop

    spec = opened.spec(CorrectionSetSpec, {"examples": tuple(wrong[:2]), **FAST, "steps": 40, "after_flip": 40})
    seen = []
    for event in registry.start(spec, tmp_path / "run"):
        if isinstance(event, SetStep):
            seen.append(event)
            if event.step == 2:
                request_stop(tmp_path / "run")
        assert isinstance(event, SetStep | Progress | Result)
    assert seen[-1].step == 2
    assert opened.keep(tmp_path / "run", "stopped").notes["correction"]["steps"] == 2


def test_an_annotators_rows_are_those_whose_standing_label_they_gave(opened, wrong, tmp_path):
    rows = opened.rank(wrong[0], method="tracin", top=4).proponents
    names = opened.label_names

    def decide(row, annotator, verdict=None, label=None):
        now = names[int(opened.labels().values[opened.locate(row.id)[1]])]
        given = now if label is None else label
        return opened.relabel(row.id, given, expect=now, annotator=annotator, verdict=verdict)

    other = names[1 - names.index(rows[0].label)]
    decide(rows[0], "alice", label=other)
    decide(rows[0], "bob", "skip")  # says nothing of the label
    undone = decide(rows[1], "bob", label=names[1 - names.index(rows[1].label)])
    LabelStore().undo(undone.event_id, "carol")
    decide(rows[2], "dora")  # confirms it
    spec = opened.spec(CorrectionSetSpec, {"examples": tuple(wrong[:2]), **FAST, "group_by": "annotator"})
    together = next(event for event in prepare_all(spec, tmp_path) if isinstance(event, Together))
    assert _deciders(together) == {rows[0].id: "alice", rows[2].id: "dora"}


def test_what_ends_a_run_is_no_stop_by_a_person(opened, wrong):
    spec = opened.spec(CorrectionSetSpec, {"examples": tuple(wrong[:2]), **FAST, "min_retention": 0.9})
    manifest = {"spec": spec.model_dump(), "checkpoint": "c", "scope": "all", "steps": 0}
    ended = correct_command(manifest, {"flip_step": None, "retention_at_stop": 0.5}, None, None)
    assert "--steps" not in shlex.split(ended)
    stopped = shlex.split(correct_command(manifest, {"flip_step": None}, None, None))
    assert stopped[stopped.index("--steps") + 1] == "1"
