"""Replaying a kept correction: the same bits from its manifest, whatever labels became since; a change is seen."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from influence_core.cli import main
from influence_core.correction.replay import _apart, replay
from influence_core.errors import StaleError, UserError
from influence_core.events import Progress, Step
from influence_core.home import read_json, write_json
from influence_core.replays import Replayed
from influence_core.runs.stopping import request_stop
from influence_core.workspace import Workspace

FAST = {"optimizer": "sgd", "learning_rate": 0.1, "k": 6, "batch_size": 16, "method": "tracin"}
ADAM = {"optimizer": "adam", "learning_rate": 1e-3, "k": 6, "batch_size": 16, "method": "tracin", "steps": 3}


def replayed(workspace: Workspace, name: str) -> Replayed:
    return [event for event in replay(workspace, name) if isinstance(event, Replayed)][-1]


def weights(workspace: Workspace, name: str) -> Path:
    return Path(workspace.checkpoint(name).path) / "model.safetensors"


def command_of(folder: Path) -> list[str]:
    """Return the arguments of the model card's command."""
    card = (folder / "README.md").read_text()
    block = re.search(r"## Reproduce it\n\n(`+)bash\n(.*?)\n\1\n", card, re.DOTALL)
    assert block is not None
    words = shlex.split(block[2])
    assert words[:3] == ["python", "-m", "influence_core"]
    return words[3:]


@pytest.fixture
def example(opened):
    return opened.mispredictions()["id"].iloc[0]


@pytest.fixture
def kept(opened, example, tmp_path):
    """A correction kept as "better"."""
    list(opened.correct(example, tmp_path / "run", **FAST))
    return opened.keep(tmp_path / "run", "better")


@pytest.fixture
def warm(monkeypatch):
    monkeypatch.setattr("influence_core.trajectory.start.WARM_BATCHES", 5)


def test_a_replay_gives_the_same_bits_and_restores_the_threads(opened, kept):
    before = torch.get_num_threads()
    events = list(replay(opened, "better"))
    found = events[-1]
    assert (found.same, found.largest, found.differing, found.reasons) == (True, 0.0, (), ())
    assert found.tensors == len(load_file(weights(opened, "better")))
    assert found.words.startswith("the same, bit for bit")
    assert [event.done for event in events if isinstance(event, Progress)][-1] == found.steps
    assert torch.get_num_threads() == before


def test_the_recorded_threads_are_used(opened, kept, monkeypatch):
    used: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    manifest = {**kept.notes["correction"], "threads": 3}
    opened.change_checkpoint("better", notes={**kept.notes, "correction": manifest})
    before = torch.get_num_threads()
    list(replay(opened, "better"))
    assert used == [3, before]


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("state", ["warm", "zeros"])
def test_adam_from_a_warmed_state_and_from_zeros(opened, example, tmp_path, state):
    list(opened.correct(example, tmp_path / "run", optimizer_state=state, **ADAM))
    opened.keep(tmp_path / "run", "adam")
    assert replayed(opened, "adam").same


@pytest.mark.usefixtures("warm")
def test_a_correction_of_a_kept_one_goes_on_from_its_state(opened, example, tmp_path):
    list(opened.correct(example, tmp_path / "run", after_flip=2, **{**ADAM, "learning_rate": 1e-6}))
    opened.keep(tmp_path / "run", "first")
    options = {**ADAM, "optimizer": "checkpoint", "checkpoint": "first"}
    list(opened.correct(example, tmp_path / "next", **options))
    second = opened.keep(tmp_path / "next", "second")
    assert second.notes["correction"]["optimizer_state"] == "checkpoint"
    assert replayed(opened, "second").same


def test_labels_and_rankings_of_today_play_no_part(opened, example, kept, tmp_path):
    rows = kept.notes["correction"]["rows"]
    for row in rows:
        old = opened.original_labels([row])[row]
        new = next(label for label in opened.label_names if label != old)
        opened.relabel(row, new, expect=old, annotator="ann")
    list(opened.correct(example, tmp_path / "again", **FAST))
    assert read_json(tmp_path / "again" / "manifest.json")["rows"] != rows  # today's ranking has another B
    assert replayed(opened, "better").same


def test_behind_the_frozen_part_or_not_as_the_run_was(opened, example, kept, tmp_path):
    assert kept.notes["correction"]["prefix"] == "kept"
    list(opened.correct(example, tmp_path / "whole", **FAST))
    manifest = read_json(tmp_path / "whole" / "manifest.json")
    write_json(tmp_path / "whole" / "manifest.json", {**manifest, "prefix": "not computed yet"})
    opened.keep(tmp_path / "whole", "whole")
    found = replayed(opened, "whole")  # the same up to rounding, by the whole model
    assert found.largest < 1e-5


def test_a_changed_tensor_is_found_and_told(opened, kept, capsys):
    tensors = load_file(weights(opened, "better"))
    name = "classifier.weight"
    tensors[name][0, 0] += 0.25
    save_file(tensors, weights(opened, "better"), metadata={"format": "pt"})
    found = replayed(opened, "better")
    assert not found.same
    assert found.differing == (name,)
    assert found.largest == pytest.approx(0.25, rel=1e-3)
    assert "changed after they were kept" in found.reasons[0]
    with pytest.raises(SystemExit) as ended:
        main(["replay", opened.name, "better"])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert f"1 of {found.tensors} tensors differ, by 0.25 at most, in {name}" in said
    assert "why that can be: the kept weights were changed" in said


def test_a_tensor_that_was_not_trained_and_one_that_is_missing(opened, kept):
    tensors = load_file(weights(opened, "better"))
    frozen = "bert.embeddings.LayerNorm.bias"
    tensors[frozen] = torch.zeros_like(tensors[frozen])
    save_file(tensors, weights(opened, "better"), metadata={"format": "pt"})
    assert frozen in replayed(opened, "better").differing  # the parent's own tensors are compared too
    del tensors[frozen]
    save_file(tensors, weights(opened, "better"), metadata={"format": "pt"})
    found = replayed(opened, "better")
    assert (found.differing, found.largest) == ((frozen,), None)
    assert "beyond comparison" in found.words


def test_bits_are_compared_and_not_values():
    zero = torch.zeros(2)
    assert _apart(zero, torch.zeros(2)) is None
    assert _apart(zero, -zero) == 0.0  # equal as numbers, other bits
    assert _apart(zero, torch.full((2,), float("nan"))) == float("inf")
    nan = torch.full((2,), float("nan"))
    assert _apart(nan, nan.clone()) is None


def test_what_cannot_be_replayed_says_why(opened, kept):
    with pytest.raises(UserError, match=r"is no kept correction.*choose one of better"):
        list(replay(opened, opened.checkpoint().name))
    opened.change_checkpoint("better", notes={"correction": {**kept.notes["correction"], "data": "0" * 64}})
    with pytest.raises(StaleError, match="the workspace's data"):
        list(replay(opened, "better"))


def test_the_command_line_says_the_same(opened, kept, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["replay", opened.name, "better", "--json"])
    assert ended.value.code == 0
    value = json.loads(capsys.readouterr().out)
    assert value["same"] is True
    assert value["words"].startswith("the same, bit for bit")


@pytest.mark.parametrize("stopped", [False, True])
def test_the_cards_command_makes_the_same_weights(opened, example, tmp_path, capsys, stopped):
    options = {**FAST, "share": 0.5, "by": "score", "seed": 3, "strategy": "opponents"}
    if stopped:
        options["learning_rate"] = 1e-6
    for event in opened.correct(example, tmp_path / "run", **options):
        if stopped and isinstance(event, Step) and event.step == 2:
            request_stop(tmp_path / "run")
    kept = opened.keep(tmp_path / "run", "once")
    words = command_of(Path(kept.path))
    assert words[-2:] == ["--keep", "once"]
    assert ("--steps" in words) == stopped
    with pytest.raises(SystemExit) as ended:
        main([*words[:-1], "twice"])
    assert ended.value.code == 0
    capsys.readouterr()
    once, twice = load_file(weights(opened, "once")), load_file(weights(opened, "twice"))
    assert all(torch.equal(value, twice[name]) for name, value in once.items())
    assert opened.checkpoint("once").fingerprint == opened.checkpoint("twice").fingerprint


def test_the_command_names_what_the_run_took_from_the_workspace(opened, example, tmp_path):
    list(opened.correct(example, tmp_path / "run", optimizer="sgd", learning_rate=0.1, k=6, batch_size=16))
    opened.keep(tmp_path / "run", "plain")
    words = command_of(Path(opened.checkpoint("plain").path))
    pairs = dict(zip(words[2::2], words[3::2], strict=True))
    assert pairs["--method"] == "tracin"  # there was no index: it would be abif if one were built since
    assert pairs["--scope"] == opened.scope
    assert pairs["--checkpoint"] == opened.checkpoint().name
    assert "--by" not in pairs  # a default that does not depend on the workspace
