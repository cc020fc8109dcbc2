"""Checkpoints on their way into a workspace: what an entry learns, names that two want at once, damage beside it."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from influence_core.data import entering
from influence_core.data.opening import run as open_workspace
from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.home import read_json, write_json
from influence_core.specs import OpenSpec
from influence_core.workspace import Workspace


def opening(folder, data_files, tmp_path) -> tuple[Workspace, str]:
    spec = OpenSpec(checkpoint=str(folder), data=str(data_files[0]), test=str(data_files[1]), scope="last:1")
    value = list(open_workspace(spec, tmp_path / "opening"))[-1].value
    return Workspace.open(value["workspace"]), value["checkpoint"]


def copied(tiny_checkpoint, folder, shift: float = 0.0):
    """Copy the checkpoint; a shift of its last bias makes its tensors others."""
    shutil.copytree(tiny_checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.bias"] += shift
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_an_entry_without_an_optimizer_learns_it_from_the_same_tensors_with_one(
    home, tiny_checkpoint, data_files, tmp_path
):
    plain, trained = copied(tiny_checkpoint, tmp_path / "plain"), copied(tiny_checkpoint, tmp_path / "trained")
    adam = {"kind": "adam", "learning_rate": 1e-3}
    write_json(trained / "training.json", {"step": 5, "epoch": 1, "optimizer": adam, "recipe": {"name": "x"}})
    bias = load_file(trained / "model.safetensors")["classifier.bias"]
    moments = {f"{kind}.classifier.bias": bias * 0 for kind in ("exp_avg", "exp_avg_sq")}
    moments["step"] = torch.tensor(5.0)
    save_file(moments, trained / "optimizer.safetensors")
    workspace, first = opening(plain, data_files, tmp_path)
    before = workspace.checkpoint(first)
    assert before.optimizer is None
    _, second = opening(trained, data_files, tmp_path)
    after = workspace.checkpoint(second)
    assert second == first
    assert (after.path, after.key) == (before.path, before.key)
    assert after.optimizer == {**adam, "state": str(trained / "optimizer.safetensors")}
    assert after.notes == {"step": 5, "epoch": 1, "recipe": {"name": "x"}}
    # and keeps what it knows when opened from the plain folder again
    opening(plain, data_files, tmp_path)
    assert workspace.checkpoint(first) == after


def test_a_trainers_state_is_moved_to_the_entry_that_learns_of_it(home, tiny_checkpoint, data_files, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification

    plain, trained = copied(tiny_checkpoint, tmp_path / "plain"), copied(tiny_checkpoint, tmp_path / "trained")
    module = AutoModelForSequenceClassification.from_pretrained(trained)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.0)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.save(optimizer.state_dict(), trained / "optimizer.pt")
    write_json(trained / "trainer_state.json", {"global_step": 1, "log_history": []})
    workspace, name = opening(plain, data_files, tmp_path)
    assert opening(trained, data_files, tmp_path)[1] == name
    state = workspace.path / "checkpoints" / name / "optimizer.safetensors"
    assert workspace.checkpoint(name).optimizer["state"] == str(state)
    assert "exp_avg.classifier.bias" in load_file(state)


def test_two_openings_that_want_one_name_both_get_in(home, tiny_checkpoint, data_files, tmp_path, monkeypatch):
    workspace, _ = opening(tiny_checkpoint, data_files, tmp_path)
    one = copied(tiny_checkpoint, tmp_path / "a" / "mine", 0.1)
    other = copied(tiny_checkpoint, tmp_path / "b" / "mine", 0.2)
    spec = OpenSpec(checkpoint=str(one), data=str(data_files[0]), test=str(data_files[1]))
    plain, names = entering.enter, []

    def meanwhile(workspace, entry):
        if not names:  # the first has chosen its name and not taken it yet when the second comes in
            names.append("")
            names.append(opening(other, data_files, tmp_path)[1])
        return plain(workspace, entry)

    monkeypatch.setattr("influence_core.data.opening.enter", meanwhile)
    name = list(open_workspace(spec, tmp_path / "opening"))[-1].value["checkpoint"]
    assert (names[1], name) == ("mine", "mine-2")
    assert [entry.path for entry in workspace.checkpoints()][1:] == [str(other), str(one)]


def test_a_folder_that_another_process_has_just_made_is_not_taken(opened, tiny_checkpoint, data_files, tmp_path):
    free, asked = entering._free_name, []

    def chosen(wanted, workspace, place=None):
        name = free(wanted, workspace, place)
        if place is None and not asked:  # made between the look for a free name and its taking, and empty yet
            asked.append(name)
            (workspace.path / "checkpoints" / name).mkdir()
        return name

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entering, "_free_name", chosen)
        _, name = opening(copied(tiny_checkpoint, tmp_path / "mine", 0.1), data_files, tmp_path)
    assert (asked, name) == (["mine"], "mine-2")
    assert not list((opened.path / "checkpoints" / "mine").iterdir())


def test_a_workspace_that_another_opening_made_meanwhile_is_joined_and_doubles_nothing(
    home, tiny_checkpoint, data_files, tmp_path
):
    spec = OpenSpec(checkpoint=str(tiny_checkpoint), data=str(data_files[0]), test=str(data_files[1]))
    install = Workspace.install.__func__

    def late(cls, *given):
        patch.undo()
        opening(tiny_checkpoint, data_files, tmp_path)
        return install(cls, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workspace, "install", classmethod(late))
        last = list(open_workspace(spec, tmp_path / "opening"))[-1]
    assert not isinstance(last, Progress)
    assert [entry.name for entry in Workspace.open(last.value["workspace"]).checkpoints()] == ["tiny-bert"]


@pytest.mark.parametrize("about", [{"name": "broken", "created": "2020"}, ["no object"], {"name": 3}])
def test_a_damaged_workspace_stops_nobody_else(opened, home, tiny_checkpoint, data_files, tmp_path, about):
    place = home / "workspaces" / "broken"
    place.mkdir()
    write_json(place / "workspace.json", about)
    assert opening(tiny_checkpoint, data_files, tmp_path)[0].name == opened.name
    assert Workspace.names() == [opened.name]
    with pytest.raises(UserError, match=r"broken/workspace\.json is damaged"):
        Workspace.open("broken")
    assert read_json(place / "workspace.json") == about
