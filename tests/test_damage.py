"""Damaged and unusable files: one line that names them, or as if they were not there; never a traceback."""

import shutil

import numpy as np
import pytest
from checkpoints import save_tiny_checkpoint
from safetensors.numpy import load_file, save_file

from influence_core.cli import main
from influence_core.data.opening import run as open_workspace
from influence_core.errors import UserError
from influence_core.home import write_text
from influence_core.specs import OpenSpec
from influence_core.workspace import Workspace

INDEX = {"k": 3, "iterations": 6, "hessian_rows": 20}


def damage(file) -> None:
    """Overwrite a file with what it cannot be."""
    file.write_bytes(b"{damaged" * 8)


@pytest.fixture
def example(opened):
    found = opened.mispredictions()["id"].iloc[0]
    opened.index(**INDEX)
    for method in ("tracin", "abif"):
        opened.rank(found, method=method)
    return found


@pytest.mark.parametrize(
    ("pattern", "method"),
    [
        ("predictions/*/predictions.parquet", "abif"),
        ("predictions/*/key.json", "abif"),
        ("abif/*/queries/*", "abif"),
        ("tracin/*/queries/*", "tracin"),
        ("../../../cache/rankings/cache.db", "abif"),
    ],
)
def test_what_can_be_made_again_is_made_again(opened, example, pattern, method):
    before = opened.rank(example, method=method)
    for file in opened.path.glob(f"artefacts/{pattern}"):
        damage(file)
    after = Workspace.open(opened.name).rank(example, method=method)
    assert [row.id for row in after.proponents] == [row.id for row in before.proponents]


@pytest.mark.parametrize(
    ("pattern", "method"),
    [
        ("abif/*/manifest.json", "abif"),
        ("abif/*/index.zarr/products/c/0/0", "abif"),
        ("abif/*/index.zarr/zarr.json", "abif"),
        ("tracin/*/train.safetensors", "tracin"),
        ("tracin/*/manifest.json", "tracin"),
    ],
)
def test_what_cannot_is_named_in_one_line(opened, example, pattern, method):
    for file in opened.path.glob(f"artefacts/{pattern}"):
        damage(file)
    with pytest.raises(UserError, match=r"damaged.*delete") as caught:
        opened.rank(example, method=method, top=3)
    assert str(opened.path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_damaged_workspace_does_not_hide_the_others(opened):
    other = opened.path.with_name("other")
    other.mkdir()
    damage(other / "workspace.json")
    assert Workspace.names() == [opened.name]
    with pytest.raises(UserError, match="damaged"):
        Workspace.open("other")


def test_a_missing_data_folder_is_named(opened):
    shutil.rmtree(opened.path / "data")
    with pytest.raises(UserError, match=r"dataset\.json is missing"):
        _ = Workspace.open(opened.name).train


def test_a_home_that_cannot_be_made_is_one_line_and_exit_2(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INFLUENCE_HOME", str(tmp_path / "file"))
    for command in (["runs"], ["mispredictions", "w"], ["demo", "prepare", "movie-reviews"]):
        with pytest.raises(SystemExit) as caught:
            main(command)
        assert caught.value.code == 2
        assert "set INFLUENCE_HOME to a folder that you can write" in capsys.readouterr().err


def test_an_export_to_a_bad_place_is_one_line(opened, capsys, tmp_path):
    with pytest.raises(SystemExit) as caught:
        main(["labels", "export", opened.name, "--out", str(tmp_path / "no" / "x.csv")])
    assert caught.value.code == 2
    assert "cannot be written" in capsys.readouterr().err


def test_broken_weights_are_refused_when_they_are_first_used(home, tmp_path, data_files):
    folder = save_tiny_checkpoint(tmp_path / "nan", trained=False)
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.bias"] = np.full(2, np.nan, dtype=np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    spec = OpenSpec(checkpoint=str(folder), data=str(data_files[0]), test=str(data_files[1]))
    with pytest.raises(UserError, match=r"classifier\.bias that are not finite: use another checkpoint"):
        list(open_workspace(spec, tmp_path / "result"))


def test_configurations_and_ids_that_are_none(home, tmp_path, tiny_checkpoint, data_files):
    folder = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(UserError, match="holds a list, not a configuration"):
        list(open_workspace(OpenSpec(checkpoint=str(folder), data=str(data_files[0])), tmp_path / "result"))
    rows = tmp_path / "rows.csv"
    rows.write_text("id,text,label\na,good,positive\n  ,bad,negative\n")
    with pytest.raises(UserError, match="row 2: the id is empty"):
        list(open_workspace(OpenSpec(checkpoint=str(tiny_checkpoint), data=str(rows)), tmp_path / "result"))
    with pytest.raises(UserError, match="the data is empty"):
        list(open_workspace(OpenSpec(checkpoint=str(tiny_checkpoint), data=" "), tmp_path / "result"))


def test_a_text_that_cannot_be_put_in_its_place_leaves_nothing_beside_it(tmp_path):
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_text(tmp_path / "taken.html", "page")
    assert [file.name for file in tmp_path.iterdir()] == ["taken.html"]
