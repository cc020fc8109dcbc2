"""What a kept correction is made of: the tensors that were trained, and no file of its parent that is not its own."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from influence_core.arrays import read_arrays
from influence_core.checkpoints.recorded import recorded
from influence_core.data.opening import run as open_workspace
from influence_core.errors import UserError
from influence_core.events import Step
from influence_core.home import read_json, write_json
from influence_core.models.loading import load, rows_of
from influence_core.models.predict import Predictions, predict
from influence_core.similar import features
from influence_core.specs import OpenSpec
from influence_core.workspace import Workspace

FAST = {"method": "tracin", "optimizer": "adam", "learning_rate": 1e-5, "k": 8, "batch_size": 8, "steps": 3}


def opening(folder, data_files, tmp_path) -> Workspace:
    spec = OpenSpec(checkpoint=str(folder), data=str(data_files[0]), test=str(data_files[1]), scope="last:1")
    return Workspace.open(list(open_workspace(spec, tmp_path / "opening"))[-1].value["workspace"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_all_dtypes_are_read_as_torch_reads_them(tmp_path, dtype):
    tensors = {
        "half": torch.randn(3, 4).to(dtype), "one": torch.tensor(0.5, dtype=dtype), "none": torch.zeros(0, 2),
        "double": torch.randn(2, dtype=torch.float64), "count": torch.tensor(7), "flags": torch.tensor([True, False]),
    }  # fmt: skip
    save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt"})
    found = read_arrays(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        expected = (value.float() if value.is_floating_point() else value).numpy()
        np.testing.assert_array_equal(found[name], expected, strict=True)


def test_a_dtype_that_no_model_has_is_refused(tmp_path):
    save_file({"a": torch.zeros(2, dtype=torch.float8_e4m3fn)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="holds a as F8_E4M3"):
        read_arrays(tmp_path / "a.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_correction_of_a_half_precision_checkpoint_is_kept_as_it_was_trained(
    home, tiny_checkpoint, data_files, tmp_path, dtype
):
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path / "half"
    shutil.copytree(tiny_checkpoint, folder)
    tensors = {name: value.to(dtype) for name, value in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "dtype": str(dtype).split(".")[-1]})
    workspace = opening(folder, data_files, tmp_path)
    example = workspace.mispredictions()["id"].iloc[0]
    last = [e for e in workspace.correct(example, tmp_path / "run", **FAST) if isinstance(e, Step)][-1]
    kept = workspace.keep(tmp_path / "run", "kept")
    assert kept.companions == workspace.checkpoint("half").companions
    held = load_file(f"{kept.path}/model.safetensors")
    trained = load_file(tmp_path / "run" / "parameters.safetensors")
    assert all(torch.equal(held[name], trained.get(name, value.float())) for name, value in tensors.items())
    # what the run predicted at its end is what the kept folder predicts, here and in plain transformers
    classifier = load(workspace, "kept")
    again = next(e for e in predict(classifier, rows_of(workspace, classifier, "test")) if isinstance(e, Predictions))
    cached = workspace.predictions("test", "kept")
    np.testing.assert_allclose(again.losses, cached["loss"], atol=1e-6)
    own = features(workspace, "test", "kept")  # by which a correction of the kept one tells near from far rows
    np.testing.assert_allclose(own, again.features.astype(np.float16), atol=2e-3)
    assert not np.array_equal(own, features(workspace, "test", "half"))
    _, row = workspace.locate(example)
    desired = workspace.label_names.index(read_json(tmp_path / "run" / "manifest.json")["desired"])
    assert cached[f"p{desired}"].iloc[row] == pytest.approx(last.probability, abs=1e-6)
    plain = AutoModelForSequenceClassification.from_pretrained(kept.path)
    assert all(torch.equal(value, held[name]) for name, value in plain.state_dict().items() if name in held)


def test_a_kept_folder_tells_its_own_training_and_not_its_parents(home, tiny_checkpoint, data_files, tmp_path):
    folder = tmp_path / "trained"
    shutil.copytree(tiny_checkpoint, folder)
    sgd = {"kind": "sgd", "learning_rate": 0.5, "momentum": 0.9}
    write_json(folder / "training.json", {"step": 7, "epoch": 2, "optimizer": sgd, "recipe": {"max_length": 12}})
    write_json(folder / "trainer_state.json", {"global_step": 7})
    (folder / "README.md").write_text("of the parent")
    workspace = opening(folder, data_files, tmp_path)
    assert workspace.checkpoint().optimizer["kind"] == "sgd"
    example = workspace.mispredictions()["id"].iloc[0]
    list(workspace.correct(example, tmp_path / "run", **FAST))
    kept = workspace.keep(tmp_path / "run", "kept")
    files = {file.name for file in (workspace.path / "checkpoints" / "kept").iterdir()}
    own = {"manifest.json", "correction.json", "training.json", "model.safetensors", "optimizer.safetensors"}
    own |= {"README.md", "changed-rows.csv"}
    assert "of the parent" not in (Path(kept.path) / "README.md").read_text()
    assert files - own == {"config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"}
    found = recorded(workspace.path / "checkpoints" / "kept")
    assert found.step == 3
    assert found.epoch is None
    assert (found.optimizer["kind"], found.optimizer["learning_rate"]) == ("adam", 1e-5)

    shutil.copytree(kept.path, tmp_path / "again")  # without its workspace: opened as a folder of one's own
    for name in ("manifest.json", "correction.json"):
        (tmp_path / "again" / name).unlink()
    shutil.rmtree(home)
    again = opening(tmp_path / "again", data_files, tmp_path).checkpoint()
    constants = {name: value for name, value in kept.optimizer.items() if name != "state"}
    assert constants.items() <= again.optimizer.items()
    assert again.optimizer["mean_learning_rate"] == 1e-5
    assert again.optimizer["state"] == "optimizer.safetensors"
    assert again.preparation == kept.preparation
    assert again.preparation.max_length == 12
