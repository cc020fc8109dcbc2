import shutil

import pytest
from checkpoints import save_tiny_checkpoint, sentences
from pydantic import ValidationError

from influence_core.data import hub
from influence_core.data.opening import run as open_workspace
from influence_core.errors import StaleError, UserError
from influence_core.home import read_json, write_json
from influence_core.models.loading import load
from influence_core.specs import OpenSpec
from influence_core.workspace import Workspace


def opening(tmp_path, **fields):
    return list(open_workspace(OpenSpec(**fields), tmp_path / "result"))[-1].value


def test_open_makes_a_workspace_with_ids_labels_and_predictions(opened):
    assert opened.scope == "last:1"
    assert len(opened.train) == 120
    assert list(opened.train["id"][:2]) == ["1-0", "1-1"]  # the file's own ids
    assert opened.label_names == ("negative", "positive")
    examples = opened.examples("test")
    wrong = opened.mispredictions()
    assert 0 < len(wrong) < 20  # trained, and a tenth of the labels is wrong
    assert (wrong["confidence"].diff().dropna() <= 0).all()
    assert set(wrong["id"]) == set(examples["id"][examples["prediction"] != examples["label"]])


def test_opening_the_same_again_finds_the_same_workspace(opened, tiny_checkpoint, data_files, tmp_path):
    again = opening(tmp_path, checkpoint=str(tiny_checkpoint), data=str(data_files[0]), test=str(data_files[1]))
    assert again["workspace"] == opened.name
    assert Workspace.names() == [opened.name]
    assert len(opened.checkpoints()) == 1


def test_another_checkpoint_joins_the_workspace_of_the_same_data(opened, data_files, tmp_path):
    other = save_tiny_checkpoint(tmp_path / "other", seed=5, trained=False)
    value = opening(tmp_path, checkpoint=str(other), data=str(data_files[0]), test=str(data_files[1]))
    assert value["workspace"] == opened.name
    assert value["checkpoint"] == "other"
    assert [entry.name for entry in opened.checkpoints()] == ["tiny-bert", "other"]


def test_without_a_test_file_every_fifth_row_is_held_out(home, tiny_checkpoint, data_files, tmp_path):
    value = opening(tmp_path, checkpoint=str(tiny_checkpoint), data=str(data_files[0]))
    assert value["rows"] == {"train": 96, "validation": 0, "test": 24}
    workspace = Workspace.open(value["workspace"])
    assert not set(workspace.train["id"]) & set(workspace.dataset.splits["test"]["id"])


def test_a_changed_checkpoint_is_refused_with_both_fingerprints(home, tiny_checkpoint, data_files, tmp_path):
    copy = tmp_path / "mine"
    shutil.copytree(tiny_checkpoint, copy)
    value = opening(tmp_path, checkpoint=str(copy), data=str(data_files[0]), test=str(data_files[1]))
    workspace = Workspace.open(value["workspace"])
    recorded = workspace.checkpoint().fingerprint
    save_tiny_checkpoint(copy, seed=3, trained=False)
    with pytest.raises(StaleError, match=recorded[:16]):
        load(workspace)


def test_wrong_number_of_classes(home, tmp_path, data_files):
    three = save_tiny_checkpoint(tmp_path / "three", names=("negative", "positive", "neutral"), trained=False)
    value = opening(tmp_path, checkpoint=str(three), data=str(data_files[0]), test=str(data_files[1]))
    assert value["classes"] == ["negative", "positive", "neutral"]  # data with fewer classes is fine
    two = save_tiny_checkpoint(tmp_path / "two", names=("bad", "good"), trained=False)
    with pytest.raises(
        UserError, match=r"row 1: label '(negative|positive)' is none of .* \(bad, good, or their numbers"
    ):
        opening(tmp_path, checkpoint=str(two), data=str(data_files[0]))


def test_a_pickle_only_or_code_carrying_checkpoint_is_refused(home, tmp_path, tiny_checkpoint, data_files):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_checkpoint, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    (bare / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    with pytest.raises(UserError, match=r"is no zip archive of torch\.save"):
        opening(tmp_path, checkpoint=str(bare), data=str(data_files[0]))
    coded = tmp_path / "coded"
    shutil.copytree(tiny_checkpoint, coded)
    write_json(coded / "config.json", {**read_json(coded / "config.json"), "auto_map": {"AutoModel": "evil.Model"}})
    with pytest.raises(UserError, match="auto_map"):
        opening(tmp_path, checkpoint=str(coded), data=str(data_files[0]))
    broken = tmp_path / "broken"
    shutil.copytree(tiny_checkpoint, broken)
    (broken / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(UserError, match="not a sound safetensors file"):
        opening(tmp_path, checkpoint=str(broken), data=str(data_files[0]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\n,positive\n", "row 1: the text is empty"),
        ("text,label\ngood,sideways\n", "row 1: label 'sideways' is none of"),
        ("words,label\ngood,positive\n", "has no text column among words, label"),
        ("text,label\n", "has no rows"),
        ("", "cannot be read"),
    ],
)
def test_bad_files_say_what_is_wrong(home, tmp_path, tiny_checkpoint, content, message):
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        opening(tmp_path, checkpoint=str(tiny_checkpoint), data=str(path))
    assert "\n" not in str(caught.value)


def test_missing_and_unknown_files(home, tmp_path, tiny_checkpoint, data_files):
    with pytest.raises(UserError, match=r"nowhere\.csv is missing"):
        opening(tmp_path, checkpoint=str(tiny_checkpoint), data=str(tmp_path / "nowhere.csv"))
    with pytest.raises(UserError, match="there is nothing at"):
        opening(tmp_path, checkpoint=str(tmp_path / "nothing"), data=str(data_files[0]))


def test_offline_hub_names_give_one_line(home, monkeypatch, tmp_path, tiny_checkpoint):
    def unreachable(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(UserError, match="could not fetch the model 'google-bert/bert-base-uncased'") as caught:
        opening(tmp_path, checkpoint="google-bert/bert-base-uncased", data="stanfordnlp/sst2")
    assert "local path" in str(caught.value)
    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(UserError, match="could not fetch the dataset 'stanfordnlp/sst2'"):
        opening(tmp_path, checkpoint=str(tiny_checkpoint), data="stanfordnlp/sst2")


def test_hub_layouts_are_read(home, monkeypatch, tmp_path, tiny_checkpoint):
    from datasets import Dataset, DatasetDict

    parts = {name: sentences(30, seed=seed) for name, seed in (("train", 1), ("validation", 2), ("test", 3))}
    for part in parts.values():
        part["label"] = (part["label"] == "positive").astype(int)
    loaded = DatasetDict({name: Dataset.from_pandas(part) for name, part in parts.items()})
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(tiny_checkpoint))
    monkeypatch.setattr("datasets.load_dataset", lambda name, **_: loaded)
    value = opening(tmp_path, checkpoint="someone/tiny", data="someone/reviews", scope="head")
    assert value["rows"] == {"train": 30, "validation": 30, "test": 30}
    assert hub.looks_like_hub_name("someone/tiny")
    assert not hub.looks_like_hub_name(str(tiny_checkpoint))


@pytest.mark.parametrize("scope", ["heads", "last:0", "last:x", "last:99"])
def test_a_scope_that_does_not_exist_is_refused_and_leaves_nothing(home, tmp_path, tiny_checkpoint, data_files, scope):
    with pytest.raises((UserError, ValidationError), match="scope"):
        opening(tmp_path, checkpoint=str(tiny_checkpoint), data=str(data_files[0]), scope=scope)
    assert Workspace.names() == []


def test_opening_again_with_a_scope_changes_the_default_and_without_one_keeps_it(
    opened, tmp_path, tiny_checkpoint, data_files
):
    files_ = {"checkpoint": str(tiny_checkpoint), "data": str(data_files[0]), "test": str(data_files[1])}
    opening(tmp_path, **files_)
    assert Workspace.open(opened.name).scope == "last:1"
    opening(tmp_path, **files_, scope="head")
    assert Workspace.open(opened.name).scope == "head"


def test_a_checkpoint_that_moved_is_found_again_by_its_tensors(home, tmp_path, tiny_checkpoint, data_files):
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(tiny_checkpoint, first)
    files_ = {"data": str(data_files[0]), "test": str(data_files[1])}
    value = opening(tmp_path, checkpoint=str(first), **files_)
    first.rename(second)
    again = opening(tmp_path, checkpoint=str(second), **files_)
    assert again["checkpoint"] == value["checkpoint"] == "first"
    assert Workspace.open(again["workspace"]).checkpoint().path == str(second)
