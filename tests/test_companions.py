"""What lies beside a checkpoint's weights is part of what it is: other keys, another entry, refused once it changed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from family_checkpoints import save_family, write_family_data

from influence_core.artefacts import base_key
from influence_core.data.opening import run as open_workspace
from influence_core.errors import StaleError
from influence_core.events import Result
from influence_core.fingerprints import companions_fingerprint
from influence_core.home import read_json, write_json
from influence_core.models.loading import load, rows_of
from influence_core.models.prefix import open_scope, rows, store_folder
from influence_core.specs import OpenSpec
from influence_core.workspace import Checkpoint, Workspace


@pytest.fixture(scope="module")
def families(tmp_path_factory) -> dict[str, tuple[Path, Path, Path]]:
    """Checkpoint, training data and test data of one family each."""
    root = tmp_path_factory.mktemp("families")
    return {
        family: (save_family(root / family, family), *write_family_data(root / f"data-{family}", family))
        for family in ("distilbert", "vit", "torchvision")
    }


def opening(tmp_path, checkpoint: Path, data: tuple[Path, Path]) -> tuple[Workspace, Checkpoint]:
    spec = OpenSpec(checkpoint=str(checkpoint), data=str(data[0]), test=str(data[1]), scope="last:1")
    value = next(e for e in open_workspace(spec, tmp_path / "result") if isinstance(e, Result)).value
    workspace = Workspace.open(value["workspace"])
    return workspace, workspace.checkpoint(value["checkpoint"])


def activation(folder: Path) -> None:
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "activation": "relu"})


def tokenizer(folder: Path) -> None:
    found = read_json(folder / "tokenizer.json")
    words = found["model"]["vocab"]
    words["good"], words["bad"] = words["bad"], words["good"]
    write_json(folder / "tokenizer.json", found)


def processor(folder: Path) -> None:
    file = folder / "preprocessor_config.json"
    write_json(file, {**read_json(file), "image_mean": [0.1, 0.1, 0.1]})


def normalisation(folder: Path) -> None:
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "image_mean": [0.1, 0.1, 0.1]})


CHANGES = [
    ("distilbert", activation),
    ("distilbert", tokenizer),
    ("vit", processor),
    ("torchvision", normalisation),
]


@pytest.mark.parametrize(("family", "change"), CHANGES)
def test_equal_tensors_with_other_companions_are_another_checkpoint(home, tmp_path, families, family, change):
    source, *data = families[family]
    changed = Path(shutil.copytree(source, tmp_path / "changed"))
    change(changed)
    workspace, first = opening(tmp_path, source, data)
    _, second = opening(tmp_path, changed, data)
    assert second.name == "changed"
    assert first.fingerprint == second.fingerprint
    assert base_key(workspace, first.name, None) != base_key(workspace, second.name, None)
    losses = [workspace.predict("test", entry.name)["loss"].to_numpy() for entry in (first, second)]
    assert np.abs(losses[0] - losses[1]).max() > 1e-6
    # the frozen part's outputs are other ones too, however equal its tensors
    stores = []
    for entry in (first, second):
        scope = open_scope(workspace, entry.name, "head")
        plain = rows_of(workspace, scope.whole, "train")
        kept = [event for event in rows(workspace, scope, "train") if not hasattr(event, "phase")][-1]
        batches = (scope.classifier, kept), (scope.whole, plain)
        ours, theirs = (classifier.losses(own.batch(range(8))).numpy() for classifier, own in batches)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
        stores.append(store_folder(workspace, scope.classifier, "train"))
    assert stores[0] != stores[1]


@pytest.mark.parametrize(("family", "change"), CHANGES)
def test_companions_that_changed_since_opening_are_refused_with_both_values(home, tmp_path, families, family, change):
    source, *data = families[family]
    mine = Path(shutil.copytree(source, tmp_path / "mine"))
    workspace, entry = opening(tmp_path, mine, data)
    load(workspace)
    change(mine)
    found = companions_fingerprint(mine)
    with pytest.raises(StaleError, match="the tokenizer or configuration of checkpoint mine changed") as caught:
        load(workspace)
    assert entry.companions[:16] in str(caught.value)
    assert found[:16] in str(caught.value)
    assert found != entry.companions


def test_what_says_nothing_of_the_model_does_not_count(tmp_path, families):
    mine = Path(shutil.copytree(families["vit"][0], tmp_path / "mine"))
    before = companions_fingerprint(mine)
    config = read_json(mine / "config.json")
    told = {"transformers_version": "0.0", "_name_or_path": "elsewhere", "torch_dtype": "float16"}
    respelled = json.dumps({**told, **dict(reversed(config.items()))}, indent=None)
    (mine / "config.json").write_text(respelled)
    (mine / "README.md").write_text("a model")
    assert companions_fingerprint(mine) == before
    (mine / "merges.txt").write_text("a b")
    assert companions_fingerprint(mine) != before
    (tmp_path / "none").mkdir()
    assert companions_fingerprint(tmp_path / "none") == ""


def test_an_entry_from_before_they_were_recorded_stays_the_same_checkpoint(home, tmp_path, families):
    source, *data = families["distilbert"]
    workspace, entry = opening(tmp_path, source, data)
    older = entry.model_copy(update={"companions": ""})
    write_json(workspace.path / "checkpoints" / entry.name / "manifest.json", older.model_dump(exclude={"companions"}))
    assert workspace.checkpoint().key == {"checkpoint": entry.fingerprint}
    assert opening(tmp_path, source, data)[1] == older
    assert load(workspace).label_names == workspace.label_names


def test_a_kept_correction_has_its_parents_companions(opened, tmp_path):
    wrong = opened.mispredictions().iloc[0]
    fast = {"strategy": "random", "optimizer": "sgd", "learning_rate": 0.05, "steps": 1, "k": 3, "batch_size": 8}
    for _ in opened.correct(wrong["id"], tmp_path / "run", **fast):
        pass
    assert opened.keep(tmp_path / "run", "kept").companions == opened.checkpoint().companions != ""
