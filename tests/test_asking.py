"""Requests whose parts do not fit: refused in one line, before anything is read."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from checkpoints import save_tiny_checkpoint, write_data
from opening_data import png, write_idx

from influence_core.data.asking import is_checkpoint, is_data, refuse_misplaced
from influence_core.data.opening import look
from influence_core.errors import UserError
from influence_core.specs import OpenSpec


@pytest.fixture
def saved(tmp_path) -> tuple[Path, Path]:
    (tmp_path / "data").mkdir()
    return save_tiny_checkpoint(tmp_path / "model", trained=False), write_data(tmp_path / "data", 12, 4)[0]


def refusal(checkpoint, data, **fields) -> str:
    with pytest.raises(UserError) as caught:
        list(look(OpenSpec(checkpoint=str(checkpoint), data=str(data), **fields)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_swapped_arguments_are_recognised(saved):
    model, data = saved
    assert refusal(data, model).endswith("give them the other way round")
    assert refusal(data, data) == f"the checkpoint {data} holds data: give the checkpoint first, then the data"
    assert refusal(model, model).startswith(f"the data {model} are a checkpoint: ")
    assert refusal(model, model / "model.safetensors").startswith("the data ")


def test_data_and_checkpoints_are_told_by_the_names_of_their_files(saved, tmp_path):
    model, data = saved
    trainer = tmp_path / "out"
    shutil.copytree(model, trainer / "checkpoint-4")
    images = tmp_path / "images" / "cat"
    images.mkdir(parents=True)
    (images / "a.PNG").write_bytes(png(0))
    idx = write_idx(tmp_path / "idx", "train", np.zeros((2, 4, 4)), np.zeros(2))
    saved_set = tmp_path / "saved"
    saved_set.mkdir()
    (saved_set / "state.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    held = [data, data.parent, images.parent, idx, idx.parent, saved_set]
    models = [model, trainer, model / "model.safetensors"]
    neither = [tmp_path / "empty", tmp_path / "nowhere", "someone/thing", "a\0b"]
    assert [is_data(str(each)) for each in (*held, *models, *neither)] == [True] * 6 + [False] * 7
    assert [is_checkpoint(str(each)) for each in (*held, *models, *neither)] == [False] * 6 + [True] * 3 + [False] * 4
    shutil.copy(data, model / "train.csv")  # somebody keeps both in one folder
    assert is_data(str(model))
    assert not is_checkpoint(str(model))


def test_a_folder_that_cannot_be_listed_is_left_to_whoever_reads_it(saved, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    model, data = saved
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert not is_data(str(data.parent))
    assert not is_checkpoint(str(model))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"revision": "main"}, "revision is 'main', but .* is no name on the hub: leave it out"),
        ({"configuration": "en"}, "configuration is 'en', but .* is no data set on the hub: leave it out"),
        ({"data_revision": "v1"}, "data_revision is 'v1', but .* is no data set on the hub: leave it out"),
        ({"train": "foo"}, r"has no split 'foo' \(it has no named splits\): leave train out"),
    ],
)
def test_options_that_do_not_apply_are_refused(saved, fields, said):
    assert re.search(said, refusal(*saved, **fields))


def test_options_of_the_hub_are_taken_for_names_there():
    spec = OpenSpec(checkpoint="a/b", data="c/d", revision="main", configuration="en", data_revision="v1")
    refuse_misplaced(spec)
    refuse_misplaced(spec.model_copy(update={"checkpoint": "/models/a", "also": ("a/b",)}))


def test_a_file_that_is_no_checkpoint_is_answered_with_the_folder_to_give(saved, tmp_path):
    model, data = saved
    for name in ("config.json", "tokenizer.json"):
        assert refusal(model / name, data) == f"{model / name} is no weights file: give the folder {model}"
    weights = model / "model.safetensors"
    assert refusal(weights, data) == f"{weights} is one file of a checkpoint: give its folder {model}"
    (tmp_path / "notes.txt").write_text("hello")
    assert "is no weights file: give a folder, or a state dict" in refusal(tmp_path / "notes.txt", data)
    alone = tmp_path / "alone.safetensors"
    shutil.copy(weights, alone)
    assert "give the architecture" in refusal(alone, data)
