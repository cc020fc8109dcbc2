"""What a checkpoint's configurations ask for: files elsewhere, sizes and types that are none, each said in one line."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import NAMES
from family_checkpoints import pictures, save_family, write_family_data
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from influence_core.checkpoints.inspecting import inspect
from influence_core.data.opening import run as open_workspace
from influence_core.errors import UserError
from influence_core.events import Result
from influence_core.home import read_json, write_json
from influence_core.models.importing import import_checkpoint
from influence_core.models.loading import load, load_folder
from influence_core.specs import CheckSpec, OpenSpec
from influence_core.workspace import Workspace


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {family: save_family(root / family, family) for family in ("distilbert", "torchvision", "vit")}


@pytest.fixture
def copy(saved, tmp_path):
    """Copies a family's checkpoint and changes one of its configurations; returns the folder."""

    def make(family: str, file: str = "config.json", **changes) -> Path:
        folder = Path(shutil.copytree(saved[family], tmp_path / "mine", dirs_exist_ok=True))
        before = read_json(folder / file) if (folder / file).exists() else {}
        write_json(folder / file, {**before, **changes})
        return folder

    return make


@pytest.fixture
def no_tensors(monkeypatch):
    """Whatever would give a tensor memory, or build a model, fails the test."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("a tensor was allocated")

    for name in ("load", "empty", "zeros", "frombuffer", "from_numpy"):
        monkeypatch.setattr(torch, name, refuse)
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", refuse)


def look(folder: Path, **fields):
    spec = CheckSpec(checkpoint=str(folder), data="unused", **fields)
    return spec, inspect(spec, folder)[0]


def bring_in(folder: Path, place: Path):
    spec, found = look(folder)
    return import_checkpoint(found, spec, place, NAMES)


def refused(folder: Path, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        look(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        ("config.json", "configuration_files", ["config.4.0.0.json"]),
        ("config.json", "configuration_files", ["../outside/config.4.0.0.json"]),
        ("tokenizer_config.json", "fast_tokenizer_files", ["tokenizer.4.0.0.json"]),
    ],
)
def test_other_files_in_place_of_those_that_were_looked_at(copy, no_tensors, file, name, value):
    refused(copy("distilbert", file, **{name: value}), rf"{file} names other files .*\({name}\)")


@pytest.mark.parametrize("file", ["tokenizer_config.json", "preprocessor_config.json", "processor_config.json"])
@pytest.mark.parametrize("value", ["/etc/passwd", "../vocab.txt", ["vocab.txt", "a/b"]])
def test_files_that_are_not_in_the_folder(copy, no_tensors, file, value):
    refused(
        copy("distilbert", file, nested={"vocab_file": value}),
        rf"{file} says vocab_file = .* no file of its own folder",
    )


def test_what_older_versions_noted_of_files_is_fine(copy, tmp_path):
    noted = {"special_tokens_map_file": "/root/.cache/map.json", "tokenizer_file": None, "vocab_file": "vocab.txt"}
    folder = copy("distilbert", "tokenizer_config.json", **noted)
    imported = bring_in(folder, tmp_path / "place")
    classifier = load_folder.__wrapped__(imported.path, "some", NAMES, imported.kind, imported.preparation)
    assert len(classifier.encode(["good film"])[0]) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"size": {"height": 6000, "width": 6000}},
        {"pad_size": {"height": 20_000, "width": 16}},
        {"crop_size": 5000},
        {"size": [16, 5000]},
        {"image_processor": {"size": {"shortest_edge": 10**6}}},
        {"image_processor": [{"resize": {"max_width": 0}}]},
        {"image_processor": {"crop_pct": 1e-6}},
    ],
)
@pytest.mark.parametrize("file", ["preprocessor_config.json", "processor_config.json"])
def test_pictures_of_no_sane_size(copy, no_tensors, file, changes):
    refused(copy("vit", file, **changes), rf"{file} (asks for images of \d+ pixels a side|says crop_pct)")


def test_a_processors_own_settings_are_fine(copy, tmp_path):
    settings = {"do_resize": True, "size_divisor": 32, "pad_size": None, "crop_pct": 0.875, "default_to_square": False}
    folder = copy("vit", "preprocessor_config.json", **settings)
    assert look(folder)[1].kind == "image"


@pytest.mark.parametrize("count", [10**9, 65_537, 0, -1, "x", [2], 3])
def test_numbers_of_classes_that_the_head_does_not_have(copy, no_tensors, count):
    folder = copy("distilbert")
    config = {name: value for name, value in read_json(folder / "config.json").items() if "label" not in name}
    write_json(folder / "config.json", {**config, "num_labels": count})
    refused(folder, r"num_labels = |names 3 classes .* has 2 rows")


def test_more_class_names_than_any_model_has(copy, no_tensors):
    names = {str(number): str(number) for number in range(65_537)}
    refused(copy("distilbert", id2label=names), "names 65,537 classes, its num_labels is None")
    refused(copy("distilbert", id2label={"0": "a", "1": "b"}, num_labels=40_000), "num_labels is 40000: correct it")


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("torchvision", {"image_mean": ["x", "y", "z"]}, r"says image_mean = \['x', 'y', 'z'\]"),
        ("torchvision", {"image_std": "abc"}, "says image_std = abc"),
        ("torchvision", {"image_std": {"r": 1}}, "says image_std = "),
        ("torchvision", {"image_size": [32, 32]}, r"says image_size = \[32, 32\]: give one number"),
        ("torchvision", {"image_size": "32"}, "says image_size = 32: give one number"),
        ("distilbert", {"architectures": 5}, "says architectures = 5, not a list"),
        ("distilbert", {"architectures": "DistilBertForSequenceClassification"}, "not a list of names"),
        ("distilbert", {"architectures": [None]}, "not a list of names"),
    ],
)
def test_values_of_a_wrong_type(copy, no_tensors, family, changes, said):
    refused(copy(family, **changes), said)


@pytest.mark.parametrize("changes", [{"image_mean": ["x", "y", "z"]}, {"rescale_factor": "much"}, {"resample": "up"}])
def test_an_image_processor_that_cannot_work_says_so_in_one_line(copy, tmp_path, changes):
    imported = bring_in(copy("vit", "preprocessor_config.json", **changes), tmp_path / "place")
    with pytest.raises(UserError, match="the image processor in ") as caught:
        load_folder.__wrapped__(imported.path, "some", NAMES, imported.kind).encode(
            [Image.fromarray(pictures(1, 2, 0)[0][0])]
        )
    assert "\n" not in str(caught.value)


def test_a_link_that_was_put_in_after_opening_is_refused(copy, tmp_path):
    folder = copy("distilbert")
    imported = bring_in(folder, tmp_path / "place")
    shutil.move(folder / "tokenizer.json", tmp_path / "elsewhere.json")
    (folder / "tokenizer.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(UserError, match=r"tokenizer.json is a link that leads out of"):
        load_folder.__wrapped__(imported.path, "some", NAMES, imported.kind, imported.preparation)


def test_a_state_dict_of_one_channel_is_opened_and_gets_the_mean_of_the_usual_normalisation(home, saved, tmp_path):
    tensors = load_file(saved["torchvision"] / "model.safetensors")
    tensors["conv1.weight"] = tensors["conv1.weight"].sum(1, keepdim=True).contiguous()
    save_file(tensors, tmp_path / "grey.safetensors")
    train, test = write_family_data(tmp_path / "data", "torchvision", train_rows=8, test_rows=6)
    spec = OpenSpec(
        checkpoint=str(tmp_path / "grey.safetensors"),
        data=str(train),
        test=str(test),
        architecture="resnet18-cifar",
        classes={name: str(number) for number, name in enumerate(NAMES)},
        scope="head",
    )
    value = next(e for e in open_workspace(spec, tmp_path / "result") if isinstance(e, Result)).value
    workspace = Workspace.open(value["workspace"])
    classifier = load(workspace)
    pixels = np.full((32, 32), 100, dtype=np.uint8)
    mean, std = np.mean([0.4914, 0.4822, 0.4465]), np.mean([0.2470, 0.2435, 0.2616])
    (item,) = classifier.encode([pixels])
    assert item.shape == (1, 32, 32)
    np.testing.assert_allclose(item, (100 / 255 - mean) / std, rtol=1e-5)
    from torchvision.models import resnet18

    module = resnet18(num_classes=2)
    module.conv1, module.maxpool = nn.Conv2d(1, 64, 3, 1, 1, bias=False), nn.Identity()
    module.load_state_dict(tensors)
    images = [
        np.asarray(workspace.image(e).convert("L").resize((32, 32), Image.Resampling.BILINEAR))
        for e in workspace.dataset.splits["test"]["id"]
    ]
    with torch.no_grad():
        given = torch.from_numpy(np.stack(images))[:, None].float() / 255
        theirs = module.eval()((given - float(mean)) / float(std)).softmax(1)
    ours = workspace.predict("test")[["p0", "p1"]].to_numpy()
    np.testing.assert_allclose(ours, theirs.numpy(), atol=0.05)
