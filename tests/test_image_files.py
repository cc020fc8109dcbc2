"""The file that an image came from: kept beside it, shown with it, no part of what identifies the data."""

import json

import numpy as np
import pytest
from opening_data import png, read, write_idx
from workspaces import open_app, tiny_image_workspace, use_home

from influence_core.cli.data import mispredictions
from influence_core.data.dataset import Dataset, words
from influence_core.workspace import Workspace
from pages.components import label_history

NAMES = ("cat", "dog")


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "test"):
        for number, label in enumerate(NAMES * 3):
            place = tmp_path / "pets" / split / label / "deep"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.png").write_bytes(png(number + 100 * (split == "test")))
    return tmp_path / "pets"


def test_each_image_keeps_its_files_name_and_is_called_by_it(folder, tmp_path):
    found = read(tmp_path, folder, NAMES, "image")
    expected = [f"test/{label}/deep/{n}.png" for label, own in (("cat", (0, 2, 4)), ("dog", (1, 3, 5))) for n in own]
    test = found.splits["test"]
    assert [words(test, row) for row in range(6)] == expected == list(test["file"])
    for row in range(6):
        assert (folder / words(test, row)).read_bytes() == test["image"].iloc[row]
    found.save(tmp_path / "saved")
    again = Dataset.load(tmp_path / "saved").splits["test"]
    assert list(again["file"]) == expected
    assert again["file"].dtype == test["id"].dtype


def test_held_out_rows_keep_theirs(folder, tmp_path):
    found = read(tmp_path, folder / "train", NAMES, "image")
    for frame in found.splits.values():
        for row in range(len(frame)):
            assert (folder / "train" / words(frame, row)).read_bytes() == frame["image"].iloc[row]
    assert len(found.splits["test"]) == 1


def test_the_names_of_files_are_no_part_of_the_fingerprint(folder, tmp_path):
    found = read(tmp_path, folder, NAMES, "image")
    bare = {split: frame.drop(columns="file") for split, frame in found.splits.items()}
    assert found.fingerprint == Dataset(found.name, found.label_names, bare).fingerprint
    assert words(bare["test"], 0) == ""


def test_idx_rows_have_no_file(tmp_path):
    path = write_idx(tmp_path / "idx", "train", np.arange(6 * 16).reshape(6, 4, 4), np.array([0, 1] * 3))
    frame = read(tmp_path, path, NAMES, "image").splits["train"]
    assert "file" not in frame
    assert words(frame, 0) == ""


@pytest.fixture
def workspace(monkeypatch, tmp_path):
    """An image workspace whose rows have files."""
    use_home(monkeypatch, tmp_path)
    made = tiny_image_workspace()
    about = dict(made.dataset.notes)
    splits = {
        split: frame.assign(file=[f"{split}/shirt_{row}.png" for row in range(len(frame))])
        for split, frame in made.dataset.splits.items()
    }
    Dataset(made.dataset.name, made.label_names, splits, about).save(tmp_path / "again")
    for written in (tmp_path / "again").iterdir():
        written.replace(made.path / "data" / written.name)  # not written over: those there are mapped
    return Workspace.open(made.name)


def test_pages_show_the_picture_and_under_it_the_files_name(workspace):
    app = open_app("influence", example="test-6")
    assert not app.exception
    assert "test example, true Shirt" in [image.alt for found in app.get("image") for image in found.proto.imgs]
    captions = [found.value for found in app.main.caption]
    assert "test/shirt\\_6\\.png" in [said.replace("\\/", "/") for said in captions]
    assert any("train/shirt" in said.replace("\\/", "/") for said in captions)  # a ranked card's
    assert any(said.value.endswith(" · test/shirt_6.png") for said in app.text)  # the strip's


def test_an_export_of_labels_names_the_files(workspace):
    lines = label_history.exported(workspace, "labels", "jsonl").decode().splitlines()
    assert [json.loads(line)["text"] for line in lines[:2]] == ["train/shirt_0.png", "train/shirt_1.png"]


def test_mispredictions_on_the_command_line_name_the_file(workspace, capsys):
    mispredictions(workspace.name, json=True)
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["text"].startswith("test/shirt_")
