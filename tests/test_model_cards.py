"""The model card of a kept correction: what it says, that its code loads the folder, that data stay texts in it."""

import csv
import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
from family_checkpoints import TEXT, save_family, write_family_data

from influence_core.data.opening import run as open_workspace
from influence_core.events import Step
from influence_core.reports.cards import base_of
from influence_core.reports.cautions import ACCURACY_DROP, LEAST_RETENTION, caution, halves_words
from influence_core.reports.commands import correct_command
from influence_core.reports.correction import correction_page
from influence_core.reports.facts import Correction, read
from influence_core.reports.markdown import cell, code, fenced, listed
from influence_core.specs import CorrectionSpec, OpenSpec, Strategy
from influence_core.workspace import Workspace

FAST = {"optimizer": "sgd", "learning_rate": 0.1, "k": 6, "batch_size": 16, "method": "tracin", "steps": 2}


def block(card: str, heading: str) -> str:
    """Return the first block of code beneath a heading."""
    found = re.search(rf"## {heading}\n\n(`+)\w+\n(.*?)\n\1\n", card, re.DOTALL)
    assert found is not None
    return found[2]


def predicted_alone(folder: Path, inputs: list[str], place: Path) -> list[str]:
    """Run the card's own code in another process, which does not have this library, on texts or files."""
    lines = [block((folder / "README.md").read_text(), "Load it"), "import json, sys"]
    lines += ["assert 'influence_core' not in sys.modules", "print(json.dumps(predict(json.load(sys.stdin))))"]
    (place / "alone.py").write_text("\n".join(lines))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", str(place / "alone.py")],
        input=json.dumps(inputs),
        capture_output=True,
        text=True,
        cwd=folder,
        env={**environment, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("family", ["bert", "t5", "vit", "torchvision"])
def test_a_kept_folder_loads_by_its_cards_own_code_and_predicts_as_recorded(home, tmp_path, family):
    checkpoint = save_family(tmp_path / "model", family)
    train, test = write_family_data(tmp_path / "data", family, train_rows=40, test_rows=16)
    asked = {"checkpoint": str(checkpoint), "data": str(train), "test": str(test), "scope": "head"}
    workspace = Workspace.open(list(open_workspace(OpenSpec(**asked), tmp_path / "o"))[-1].value["workspace"])
    examples = workspace.examples()
    example = examples["id"].iloc[0]
    names = workspace.label_names
    desired = names[(int(examples["prediction"].iloc[0]) + 1) % len(names)]
    list(workspace.correct(example, tmp_path / "run", desired=desired, **FAST))
    kept = workspace.keep(tmp_path / "run", "kept")
    frame = workspace.dataset.splits["test"]
    if family in TEXT:
        inputs = frame["text"].tolist()
    else:
        inputs = [str(tmp_path / f"{row}.png") for row in range(len(frame))]
        for file, content in zip(inputs, frame["image"], strict=True):
            Path(file).write_bytes(content)
    recorded = workspace.predictions("test", "kept")["prediction"]
    assert predicted_alone(Path(kept.path), inputs, tmp_path) == [names[label] for label in recorded]


@pytest.fixture
def validated(home, tiny_checkpoint, data_files, tmp_path) -> Workspace:
    """A workspace with validation rows, whose test ids are formulas and Markdown."""
    test = pd.read_csv(data_files[1])
    test.assign(id=[f"v{row}" for row in range(len(test))]).to_csv(tmp_path / "validation.csv", index=False)
    test.assign(id=[f"=1+{row}|`<b>`" for row in range(len(test))]).to_csv(tmp_path / "test.csv", index=False)
    asked = {"validation": str(tmp_path / "validation.csv"), "test": str(tmp_path / "test.csv"), "scope": "last:1"}
    spec = OpenSpec(checkpoint=str(tiny_checkpoint), data=str(data_files[0]), **asked)
    return Workspace.open(list(open_workspace(spec, tmp_path / "opening"))[-1].value["workspace"])


def test_validation_is_compared_as_test_is_and_both_are_in_the_card(validated, tmp_path):
    example = validated.mispredictions()["id"].iloc[0]
    outcome = list(validated.correct(example, tmp_path / "run", **FAST))[-1].value
    rows = validated.dataset.splits["validation"]
    before = validated.predict("validation")["prediction"].to_numpy() == rows["label"].to_numpy()
    kept = validated.keep(tmp_path / "run", "kept")
    after = validated.predictions("validation", "kept")["prediction"].to_numpy() == rows["label"].to_numpy()
    assert outcome["validation"]["before"] == pytest.approx(before.mean())
    assert outcome["validation"]["after"] == pytest.approx(after.mean())
    assert outcome["validation"]["fixed"] == rows["id"][~before & after].tolist()
    assert outcome["validation"]["broken"] == rows["id"][before & ~after].tolist()
    assert kept.accuracy == {"test": outcome["after"], "validation": outcome["validation"]["after"]}
    again = validated.outcome(_predict(validated, "validation", "kept"))
    assert again["accuracy"] == pytest.approx(after.mean())  # the recorded predictions are the kept folder's own

    card = (Path(kept.path) / "README.md").read_text()
    for value in (kept.notes["correction"]["data"], validated.checkpoint().fingerprint):
        assert value in card
    assert "| validation | 40 |" in card
    assert "| test | 40 |" in card
    shown = [line for line in card.splitlines() if line.startswith("- test, fixed")]
    assert len(shown) == 1
    assert f"`` {example}"[:8] in card
    assert card.startswith(f'---\nbase_model: "{validated.checkpoint().path}"\n')  # the user's own folder
    assert str(home_of(validated)) not in card  # and no other place of this machine

    with (Path(kept.path) / "changed-rows.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert len(table) == sum(
        len(about[kind]) for about in (outcome, outcome["validation"]) for kind in ("fixed", "broken")
    )
    assert all(row["id"].startswith("'=") for row in table if row["split"] == "test")  # no formula in a spreadsheet
    names = set(validated.label_names)
    assert all({row["label"], row["before"], row["after"]} <= names for row in table)
    assert all((row["after"] == row["label"]) == (row["change"] == "fixed") for row in table)


def home_of(workspace: Workspace) -> Path:
    return workspace.path.parents[1]


def _predict(workspace, split, checkpoint):
    from influence_core.specs import PredictSpec

    return PredictSpec(workspace=workspace.name, split=split, checkpoint=checkpoint)


def test_the_card_says_by_whose_labels(opened, tmp_path):
    example = opened.mispredictions()["id"].iloc[0]
    first = opened.rank(example, method="tracin", top=1).proponents[0]
    opened.relabel(first.id, first.label, expect=first.label, annotator="Ann <b> `x`", note="a secret")
    other = next(row for row in opened.train["id"] if row != first.id)
    list(opened.correct(example, tmp_path / "run", **FAST))
    own = opened.original_labels([other])[other]
    opened.relabel(other, own, expect=own, annotator="Later")
    card = (Path(opened.keep(tmp_path / "run", "kept").path) / "README.md").read_text()
    assert "were set to the desired label as an experiment; no annotation was written" in card
    assert r"Annotators had decided on 1 of them before: Ann \<b\> \`x\`." in card
    assert "The run read the labels as they stood at label event 1." in card
    assert "in the workspace named above, with the labels as they stood at label event 1: the ranking" in card
    assert "Later" not in card
    assert "a secret" not in card
    assert "no validation split" in card


def test_an_abandoned_run_is_kept_with_what_is_not_known(opened, tmp_path):
    events = opened.correct(opened.mispredictions()["id"].iloc[0], tmp_path / "run", **FAST)
    for event in events:
        if isinstance(event, Step) and event.step == 1:
            break
    events.close()
    folder = Path(opened.keep(tmp_path / "run", "kept").path)
    card = (folder / "README.md").read_text()
    assert "Not compared: the run ended before it." in card
    assert "what this does to other rows is not known" in card
    assert "--steps 1" in block(card, "Reproduce it")
    assert not (folder / "changed-rows.csv").exists()


def outcome(before: float, after: float, retention: float, **more) -> dict[str, object]:
    about = {"before": before, "after": after, "fixed": [], "broken": []}
    return {"split": "test", "retention": retention, **about, **more}


def test_what_got_worse_is_said_beyond_a_visible_limit_only():
    assert caution(outcome(0.8, 0.8 - ACCURACY_DROP + 1e-9, LEAST_RETENTION)) is None
    assert caution(outcome(0.8, 0.9, 1.0)) is None
    assert ACCURACY_DROP < 0.8825 - 0.8775  # as floats have it
    assert caution(outcome(0.8825, 0.8775, 1.0)) is None
    said = caution(outcome(0.8, 0.78, 1.0))
    assert said == ("This correction has a price: accuracy on test fell by 2 points (80 % → 78 %; more than 0.5).")
    assert "retention fell to 90 % (less than 95 %)" in str(caution(outcome(0.8, 0.8, 0.9)))
    worse = {"before": 0.7, "after": 0.6, "fixed": [], "broken": []}
    assert "accuracy on validation fell by 10 points" in str(caution(outcome(0.8, 0.8, 1.0, validation=worse)))
    assert "not known" in str(caution({}))
    ended = {**outcome(0.8, 0.8, 1.0), "retention_at_end": 0.9}  # what is kept is the end, not the flip
    assert "retention fell to 90 % (less than 95 %)" in str(caution(ended))
    halves = {"near_retention": 0.92, "far_retention": 1.0}  # what the average hides
    assert "retention of the most similar rows fell to 92 % (less than 95 %)" in str(
        caution(outcome(0.8, 0.8, 0.96, **halves))
    )
    later = {"retention_at_end": 0.97, "near_retention_at_end": 0.96, "far_retention_at_end": 0.98}
    assert caution(outcome(0.8, 0.8, 0.96, **halves, **later)) is None
    far = {"near_retention": 1.0, "far_retention": 0.92}
    assert "retention of the least similar rows fell to 92 %" in str(caution(outcome(0.8, 0.8, 0.96, **far)))


def test_the_halves_are_those_of_what_is_kept():
    halves = {"near_retention": 0.92, "far_retention": 1.0}
    assert halves_words(outcome(0.8, 0.8, 0.96)) is None
    assert "the corrected one, by the model's features: 92 %; of the others: 100 %" in str(
        halves_words(outcome(0.8, 0.8, 0.96, **halves))
    )
    later = {"retention_at_end": 0.97, "near_retention_at_end": 0.96, "far_retention_at_end": 0.98}
    assert "Retention at the end of the half" in str(halves_words(outcome(0.8, 0.8, 0.96, **halves, **later)))
    assert ": 96 %; of the others: 98 %" in str(halves_words(outcome(0.8, 0.8, 0.96, **halves, **later)))
    assert halves_words({**outcome(0.8, 0.8, 0.96, **halves), "retention_at_end": 0.9}) is None  # older results


def test_texts_stay_texts_in_markdown():
    assert code("a`b") == "``a`b``"
    assert code("`") == "`` ` ``"
    assert code("x\ny") == "`x y`"
    assert cell("a|b") == "`a\\|b`"
    assert fenced("```\ncode", "bash") == "````bash\n```\ncode\n````"
    assert listed(["a", "b", "c"], 2) == "`a`, `b` and 1 more"
    assert listed([], 2) == "none"


def test_the_base_is_a_name_that_others_know(opened, tmp_path):
    entry = opened.checkpoint()
    hub = "/somewhere/hub/models--google--vit-base/snapshots/abc"
    assert base_of(entry) == entry.path
    assert base_of(entry.model_copy(update={"path": hub})) == "google/vit-base"
    assert base_of(entry.model_copy(update={"path": str(opened.path / "checkpoints" / "x"), "name": "x"})) == "x"


def test_the_command_has_every_option_that_differs_from_its_default():
    spec = CorrectionSpec(
        workspace="my; rm -rf ~",
        example="it's $(1)",
        method="hif-cr",
        settings={"damping": 0.1, "iterations": 7},
        share=0.4,
        learning_rate=2e-5,
        after_flip=3,
        predict=True,
    )
    manifest = {"spec": spec.model_dump(), "checkpoint": "one", "scope": "last:1", "steps": 9}
    assert correct_command(manifest, {"flip_step": 6}, "hif-cr", None) == (
        "python -m influence_core correct 'my; rm -rf ~' --example 'it'\"'\"'s $(1)' --checkpoint one --scope last:1 "
        "--method hif-cr --share 0.4 --learning-rate 2e-05 --after-flip 3 --predict "
        "--set iterations=7 --set damping=0.1"
    )
    assert "--steps 9" in correct_command(manifest, {"flip_step": 7}, "hif-cr", None)  # stopped before its own end


def test_labels_of_b_are_those_at_the_runs_cursor(opened, tmp_path):
    example = opened.mispredictions()["id"].iloc[0]
    list(opened.correct(example, tmp_path / "run", **{**FAST, "strategy": "opponents"}))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    row = manifest["rows"][0]
    old = opened.original_labels([row])[row]
    opened.relabel(row, next(name for name in opened.label_names if name != old), expect=old, annotator="later")
    found = Correction(opened, manifest, {}, ())
    assert found.labels == manifest["row_labels"]
    assert found.label_events == []
    at = {**manifest, "cursor": 1}
    assert Correction(opened, at, {}, ()).labels[0] != old


def test_annotators_rows_are_not_said_to_have_the_desired_label(opened, tmp_path):
    example = opened.mispredictions()["id"].iloc[0]
    list(opened.correct(example, tmp_path / "run", **FAST))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    for strategy in get_args(Strategy):
        for only in (False, True):
            spec = {**manifest["spec"], "strategy": strategy, "only_annotated": only}
            said = dict(Correction(opened, {**manifest, "spec": spec}, {}, ()).settings)["rows of B"]
            assert said.startswith("6 ")
            assert ("relabelled to the desired label" in said) is (not only and strategy != "opponents")
            assert ("with the annotators' label" in said) is only
            assert ("(control)" in said) is (strategy in ("random", "permuted"))


def test_labels_before_any_event_are_named(opened, tmp_path):
    list(opened.correct(opened.mispredictions()["id"].iloc[0], tmp_path / "run", **FAST))
    page = correction_page(read(opened, tmp_path / "run"), [])
    card = (Path(opened.keep(tmp_path / "run", "kept").path) / "README.md").read_text()
    assert "The run read the data's own labels, before any label event." in card
    assert "in the workspace named above, with the data's own labels, before any label event: the ranking" in card
    assert "Made with the data's own labels, before any label event. Written by" in unescape(page)


def test_label_events_of_the_batches_are_told_where_the_loss_had_them(opened, tmp_path):
    example = opened.mispredictions()["id"].iloc[0]
    rows = opened.train["id"].astype(str)
    labels = opened.original_labels(list(rows[:3]))
    other = {row: next(name for name in opened.label_names if name != old) for row, old in labels.items()}
    for row in labels:
        opened.relabel(row, other[row], expect=labels[row], annotator="anna")
    for told in (False, True):
        list(opened.correct(example, tmp_path / str(told), **FAST, strategy="opponents", annotated_loss=told))
    same = opened.original_labels([rows[5]])[rows[5]]
    opened.relabel(rows[5], same, expect=same, annotator="latecomer")
    without, told = (read(opened, tmp_path / str(each)) for each in (False, True))
    assert without.batch_events == []
    outside = [row for row in labels if row not in told.rows]
    assert [event.example for event in told.batch_events] == outside
    assert outside
    card = (Path(opened.keep(tmp_path / "True", "told").path) / "README.md").read_text()
    assert f"They had decided on {len(outside)} other training rows: anna." in card
    assert all(f"- `{row}`: `{labels[row]}` → `{other[row]}` (change), by `anna`" in card for row in outside)
    page = correction_page(told, [])
    assert f"They had decided on {len(outside)} other training rows: anna." in page
    assert "latecomer" not in page
