"""``train`` end to end: the paper's recipes on tiny local bases and data of the hub's layout."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import sentences
from family_checkpoints import LABEL_WORDS, pictures, save_family
from PIL import Image
from safetensors.torch import load_file

from influence_core.cli import main
from influence_core.data.dataset import Dataset
from influence_core.errors import RunFailedError, UserError
from influence_core.events import Result
from influence_core.home import read_json
from influence_core.training import bases
from influence_core.training import run as training_run
from influence_core.training.folder import UNFINISHED, TrainingFolder
from influence_core.training.recipes import RECIPES, Recipe
from influence_core.training.run import run
from influence_core.trajectory.optimizers import OptimizerState

SMALL = {
    "bert-sst2": {"steps": 11, "learning_rate": 1e-3},
    "t5-sst2": {"epochs": 2, "learning_rate": 1e-2, "prefix": "review: ", "label_words": LABEL_WORDS},
    "resnet-cifar10": {"epochs": 2, "keep_epochs": (1,), "learning_rate": 0.01},
    "vit-cifar10": {"epochs": 2, "learning_rate": 0.01},
}


def small(name: str) -> Recipe:
    """The paper's recipe on 48 rows."""
    return replace(RECIPES[name], batch_size=8, **{"keep_epochs": (), **SMALL[name]})


@pytest.fixture(scope="module")
def sst2(tmp_path_factory) -> Path:
    """stanfordnlp/sst2 as save_to_disk leaves it: its test rows have no labels."""
    from datasets import ClassLabel, DatasetDict, Features, Value
    from datasets import Dataset as Table

    features = Features({"idx": Value("int32"), "sentence": Value("string"), "label": ClassLabel(names=list(NAMES))})
    tables = {}
    for split, count, seed in (("train", 48, 1), ("validation", 24, 2), ("test", 8, 3)):
        frame = sentences(count, seed)
        labels = [-1] * count if split == "test" else [NAMES.index(label) for label in frame["label"]]
        columns = {"idx": list(range(count)), "sentence": frame["text"].tolist(), "label": labels}
        tables[split] = Table.from_dict(columns, features)
    folder = tmp_path_factory.mktemp("data") / "sst2"
    DatasetDict(tables).save_to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory) -> Path:
    """uoft-cs/cifar10 as save_to_disk leaves it."""
    from datasets import ClassLabel, DatasetDict, Features
    from datasets import Dataset as Table
    from datasets import Image as ImageFeature

    features = Features({"img": ImageFeature(), "label": ClassLabel(names=list(NAMES))})
    tables = {}
    for split, count, seed in (("train", 48, 1), ("test", 24, 2)):
        pixels, labels = pictures(count, len(NAMES), seed)
        columns = {"img": [Image.fromarray(picture) for picture in pixels], "label": labels.tolist()}
        tables[split] = Table.from_dict(columns, features)
    folder = tmp_path_factory.mktemp("data") / "cifar10"
    DatasetDict(tables).save_to_disk(folder)
    return folder


NAMES = ("negative", "positive")


@pytest.fixture(scope="module")
def local(tmp_path_factory, sst2, cifar10) -> dict[str, tuple[Path, Path]]:
    """(base, data) of each recipe; BERT's and ViT's base have no head for the data's classes."""
    from transformers import BertModel

    place = tmp_path_factory.mktemp("bases")
    folders = {family: save_family(place / family, family) for family in ("bert", "t5", "resnet")}
    encoder = place / "encoder"
    bases.copy_side_files(folders["bert"], encoder)
    BertModel.from_pretrained(folders["bert"]).save_pretrained(encoder)
    return {
        "bert-sst2": (encoder, sst2),
        "t5-sst2": (folders["t5"], sst2),
        "resnet-cifar10": (folders["resnet"], cifar10),
        "vit-cifar10": (save_family(place / "vit", "vit", ("a", "b", "c")), cifar10),
    }


def trained(recipe: Recipe, local: tuple[Path, Path], out: Path, **options) -> dict:
    base, data = local
    last = list(run(recipe, out, str(data), str(base), **options))[-1]
    assert isinstance(last, Result)
    return last.value


@pytest.mark.parametrize("name", SMALL)
def test_a_recipe_trains_resumes_and_selects(name, local, tmp_path, home):
    recipe, whole = small(name), tmp_path / "whole"
    value = trained(recipe, local[name], whole, select="best-validation", every=5)
    total = recipe.total(6)
    steps = sorted({*range(5, total + 1, 5), *(6 * epoch for epoch in recipe.keep_epochs), total})
    assert value["checkpoints"] == [f"checkpoint-{step}" for step in steps]
    abouts = {step: read_json(whole / f"checkpoint-{step}" / "training.json") for step in steps}
    best = max(steps, key=lambda step: (abouts[step]["validation"]["accuracy"], -step))
    assert value["checkpoint"] == str(whole / f"checkpoint-{best}")
    assert (value["step"], value["epoch"]) == (best, best / 6)
    assert read_json(whole / "selected.json")["checkpoint"] == f"checkpoint-{best}"

    part = interrupted(recipe, local[name], tmp_path / "part")
    resumed = trained(recipe, local[name], part, resume=True, select="best-validation", every=5)
    assert resumed["checkpoints"] == value["checkpoints"]
    for file in ("model.safetensors", "optimizer.safetensors"):
        one, other = (load_file(folder / f"checkpoint-{total}" / file) for folder in (whole, part))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert abouts[total] == read_json(part / f"checkpoint-{total}" / "training.json")
    state = OptimizerState.from_tensors(load_file(whole / f"checkpoint-{total}" / "optimizer.safetensors"))
    assert float(state.step) == total
    assert bool(state.exp_avg) == (recipe.optimizer == "adam")
    assert any(
        not torch.equal(value, load_file(whole / "start" / "model.safetensors")[key])
        for key, value in load_file(whole / f"checkpoint-{total}" / "model.safetensors").items()
    )


def interrupted(recipe: Recipe, local: tuple[Path, Path], out: Path) -> Path:
    """A training that was killed after its first checkpoint, while it wrote the second."""
    base, data = local
    events = run(recipe, out, str(data), str(base), every=5)
    for _ in events:
        if (out / "checkpoint-5").exists():
            break
    events.close()
    shutil.copytree(out / "checkpoint-5", out / f"{UNFINISHED}checkpoint-10")
    return out


def test_a_kept_epoch_is_the_checkpoint_of_that_step(local, tmp_path, home):
    trained(small("resnet-cifar10"), local["resnet-cifar10"], tmp_path / "out")
    kept, same = tmp_path / "out" / "epoch-1", tmp_path / "out" / "checkpoint-6"
    assert sorted(file.name for file in kept.iterdir()) == sorted(file.name for file in same.iterdir())
    assert all((kept / file.name).read_bytes() == file.read_bytes() for file in same.iterdir())
    assert not (tmp_path / "out" / "epoch-2").exists()


def test_what_is_written_is_what_was_evaluated(local, tmp_path, home, sst2):
    """The checkpoint, read back by plain transformers, has the recorded accuracy and loss."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    value = trained(small("bert-sst2"), local["bert-sst2"], tmp_path / "out")
    module = AutoModelForSequenceClassification.from_pretrained(value["checkpoint"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(value["checkpoint"])
    frame = sentences(24, 2)
    with torch.no_grad():
        logits = module(**tokenizer(frame["text"].tolist(), padding=True, return_tensors="pt")).logits
    labels = torch.tensor([NAMES.index(label) for label in frame["label"]])
    assert [module.config.id2label[index] for index in range(2)] == list(NAMES)
    assert value["validation"]["accuracy"] == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert value["validation"]["loss"] == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-4
    )


def test_of_equally_good_checkpoints_the_earlier_is_chosen(tmp_path):
    place = TrainingFolder(tmp_path)
    for step, accuracy in ((2, 0.5), (4, 0.75), (10, 0.75), (12, 0.6)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        about = {"validation": {"accuracy": accuracy, "loss": 1.0}}
        (tmp_path / f"checkpoint-{step}" / "training.json").write_text(json.dumps(about))
    assert place.select("best-validation") == "checkpoint-4"
    assert place.select("last") == "checkpoint-12"


def test_a_folder_in_use_is_not_written_over(local, tmp_path, home):
    recipe, (base, data) = small("bert-sst2"), local["bert-sst2"]
    trained(recipe, (base, data), tmp_path / "out")
    with pytest.raises(UserError, match="holds a training already: add --resume"):
        list(run(recipe, tmp_path / "out", str(data), str(base)))
    other = replace(recipe, seed=5)
    with pytest.raises(UserError, match="has seed 0, not 5"):
        list(run(other, tmp_path / "out", str(data), str(base), resume=True))
    again = trained(recipe, (base, data), tmp_path / "out", resume=True)  # finished: only says so
    assert again["step"] == 11
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        list(run(recipe, tmp_path / "other", str(data), str(base)))


def test_checkpoints_that_do_not_fit_on_the_disk_are_refused_at_once(local, tmp_path, home, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(training_run.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(
        UserError, match=r"11 checkpoints take about 0\.0 GB, .* has 0\.0 GB free: write them less often"
    ):
        trained(small("bert-sst2"), local["bert-sst2"], tmp_path / "out", every=1)
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_a_correction_goes_on_from_a_trained_checkpoint(local, tmp_path, home, sst2):
    """`open` reads what `train` wrote: rates, optimizer state, and the other checkpoints of the training."""
    from influence_core.data.opening import run as open_workspace
    from influence_core.specs import OpenSpec
    from influence_core.workspace import Workspace

    recipe = replace(small("bert-sst2"), weight_decay=0.01, learning_rate=1e-4)
    trained(recipe, local["bert-sst2"], tmp_path / "out")
    spec = OpenSpec(
        checkpoint=str(tmp_path / "out" / "checkpoint-11"), data=str(sst2), test="validation", scope="last:1"
    )
    opened = list(open_workspace(spec, tmp_path / "opening"))[-1]
    workspace = Workspace.open(opened.value["workspace"])
    entry = workspace.checkpoint()
    about = read_json(tmp_path / "out" / "checkpoint-11" / "training.json")
    assert entry.optimizer is not None
    assert entry.optimizer["mean_learning_rate"] == about["mean_learning_rate"] == pytest.approx(1e-4)
    assert (entry.optimizer["weight_decay"], entry.optimizer["decoupled"]) == (0.01, False)
    wrong = workspace.mispredictions()["id"].iloc[0]
    list(workspace.correct(wrong, tmp_path / "run", strategy="random", steps=2))
    assert read_json(tmp_path / "run" / "manifest.json")["optimizer_state"] == "checkpoint"


def test_a_trained_t5_is_opened_as_it_was_trained_every_checkpoint_of_it(local, tmp_path, home, sst2):
    """The folder of a training opens as a whole; prefix, label words and length are the recipe's."""
    from influence_core.data.opening import run as open_workspace
    from influence_core.specs import OpenSpec
    from influence_core.workspace import Workspace

    value = trained(small("t5-sst2"), local["t5-sst2"], tmp_path / "out", every=5)
    spec = OpenSpec(checkpoint=str(tmp_path / "out"), data=str(sst2), test="validation", scope="last:1")
    opened = list(open_workspace(spec, tmp_path / "opening"))[-1].value
    workspace = Workspace.open(opened["workspace"])
    assert len(opened["checkpoints"]) == len(value["checkpoints"])
    entry = workspace.checkpoint()
    assert (entry.preparation.prefix, entry.preparation.label_words) == ("review: ", LABEL_WORDS)
    assert entry.preparation.max_length == small("t5-sst2").max_length == 128
    assert len({str(own.notes["recipe"]) for own in workspace.checkpoints()}) == 1
    example = workspace.mispredictions()["id"].iloc[-1]
    ranking = workspace.rank(example, method="tracin-multi")
    assert len(ranking.notes["checkpoints"]) >= 2


def test_a_base_of_torchvision_is_taken_as_it_lies(tmp_path, home):
    base = save_family(tmp_path / "base", "torchvision", ("a", "b"))
    recipe = small("resnet-cifar10")
    bases.write_start(recipe, str(base), NAMES, tmp_path / "start")
    assert read_json(tmp_path / "start" / "config.json")["id2label"] == {"0": "negative", "1": "positive"}
    classifier = training_run.classifier_of(recipe, tmp_path / "start", NAMES)
    for name, value in load_file(base / "model.safetensors").items():
        assert torch.equal(classifier.module.state_dict()[name].cpu(), value)


def test_a_loss_that_is_no_number_fails_with_advice(local, tmp_path, home, monkeypatch):
    recipe = replace(small("vit-cifar10"), learning_rate=1e30, schedule="none")
    with pytest.raises(RunFailedError, match="lower the learning rate"):
        trained(recipe, local["vit-cifar10"], tmp_path / "out")


def test_the_command_prints_the_chosen_checkpoint(local, tmp_path, home, monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "bert-sst2", small("bert-sst2"))
    base, data = map(str, local["bert-sst2"])
    options = ["--recipe", "bert-sst2", "--data", data, "--base", base, "--out", str(tmp_path / "out"), "--json"]
    with pytest.raises(SystemExit) as ended:
        main(["train", *options, "--select", "best-validation", "--select-every", "4"])
    assert ended.value.code == 0
    value = json.loads(capsys.readouterr().out)
    assert value["checkpoints"] == ["checkpoint-4", "checkpoint-8", "checkpoint-11"]
    assert value.keys() == {"checkpoint", "step", "epoch", "validation", "checkpoints"}
    with pytest.raises(SystemExit) as ended:
        main(["train", "--recipe", "cats", "--out", str(tmp_path / "none")])
    assert ended.value.code == 2
    assert "there is no recipe 'cats': choose one of bert-sst2" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["bert-sst2", "resnet-cifar10"])
def test_without_the_hub_one_line_says_so(name, tmp_path, home, monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(UserError, match=r"could not fetch the dataset .* from the Hugging Face hub") as caught:
        list(run(RECIPES[name], tmp_path / "out"))
    assert "\n" not in str(caught.value)


def test_the_small_vision_models_train_from_nothing(tmp_path, home):
    """The demos' recipes and the paper's ResNet, on a handful of noise images of their own size."""
    import pandas as pd

    from influence_core.data.pictures import netpbm

    rng = np.random.default_rng(0)
    for name, shape in (
        ("fashion-mnist-resnet", (28, 28)),
        ("fashion-mnist-vit", (28, 28)),
        ("resnet-cifar10", (32, 32, 3)),
    ):
        frame = {
            split: pd.DataFrame(
                {
                    "id": [f"{split}-{row}" for row in range(8)],
                    "image": [netpbm(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(8)],
                    "label": np.arange(8) % 2,
                }
            )
            for split in ("train", "validation", "test")
        }
        recipe = replace(RECIPES[name], batch_size=4, epochs=1, keep_epochs=())
        ends = list(training_run.fit(recipe, Dataset("noise", NAMES, frame), tmp_path / name))
        value = ends[-1].value
        assert value["step"] == 2
        numbers = sum(v.numel() for v in load_file(Path(value["checkpoint"]) / "model.safetensors").values())
        assert numbers < 12e6 if name == "resnet-cifar10" else 0.2e6 < numbers < 0.4e6
