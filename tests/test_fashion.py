"""Fashion-MNIST's rows for the demo: drawn, numbered, and the original's or refused."""

import gzip
import hashlib
import io
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from influence_core.data import fashion
from influence_core.data.dataset import Dataset
from influence_core.data.pictures import decode
from influence_core.errors import UserError

REAL_HUB = fashion.hub.open_dataset


def part(count: int, seed: int) -> fashion.Part:
    rng = np.random.default_rng(seed)
    return fashion.Part(rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), rng.permutation(np.arange(count) % 10))


def test_rows_are_drawn_by_class_without_overlap_and_keep_their_numbers():
    train, test = part(600, 0), part(50, 1)
    sizes = {"train": 200, "validation": 50, "test": 50}
    dataset = fashion.select(train, test, sizes)
    assert {split: len(frame) for split, frame in dataset.splits.items()} == sizes
    for split, frame in dataset.splits.items():
        source = test if split == "test" else train
        if split != "test":
            assert (np.bincount(frame["label"], minlength=10) == sizes[split] // 10).all()
        for example, image, label in zip(frame["id"], frame["image"], frame["label"], strict=True):
            name, _, row = example.partition("-")
            assert name == ("test" if split == "test" else "train")
            assert label == source.labels[int(row)]
            assert np.array_equal(np.asarray(decode(image, example)), source.pixels[int(row)])
    assert not set(dataset.splits["train"]["id"]) & set(dataset.splits["validation"]["id"])
    assert fashion.select(train, test, sizes).fingerprint == dataset.fingerprint
    assert fashion.select(train, test, sizes, seed=1).fingerprint != dataset.fingerprint


@pytest.fixture
def tiny(monkeypatch, tmp_path, home):
    """Two small files in place of the originals, nothing installed and no way to fetch; returns their folder."""
    place = tmp_path / "files"
    place.mkdir()
    for name, count, seed in (("train", 60, 0), ("t10k", 30, 1)):
        own = part(count, seed)
        labels = own.labels.astype(np.uint8).tobytes()
        for kind, header, content in (("images-idx3", 16, own.pixels.tobytes()), ("labels-idx1", 8, labels)):
            file = place / f"{name}-{kind}-ubyte.gz"
            file.write_bytes(gzip.compress(bytes(header) + content))
            monkeypatch.setitem(fashion.SHA256, file.name, hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(fashion, "INSTALLED", tmp_path / "nowhere")
    monkeypatch.setattr(fashion.shutil, "which", lambda name: None)
    monkeypatch.setattr(fashion.hub, "open_dataset", refuse)
    return place


def refuse(*_, **__):
    raise UserError("could not fetch the dataset: check the network")


def loaded() -> Dataset:
    return next(item for item in fashion.load() if isinstance(item, Dataset))


def test_installed_files_are_read(tiny, monkeypatch):
    monkeypatch.setattr(fashion, "INSTALLED", tiny)
    assert len(loaded().splits["test"]) == 30


def test_files_that_are_not_the_originals_are_refused(tiny, monkeypatch):
    monkeypatch.setattr(fashion, "INSTALLED", tiny)
    file = tiny / "t10k-labels-idx1-ubyte.gz"
    file.write_bytes(gzip.compress(bytes(8) + bytes(30)))
    with pytest.raises(UserError, match=r"the t10k labels .* have sha256 .*install dataset-fashion-mnist again"):
        loaded()


def test_without_root_the_package_is_unpacked_under_the_home(tiny, monkeypatch, home):
    asked = []

    def fake(command, *, cwd, **_):
        asked.append(command[0])
        if command[0] == "apt-get":
            (Path(cwd) / "dataset-fashion-mnist_1_all.deb").touch()
            assert home in Path(cwd).parents
        else:
            inside = Path(cwd) / "whole" / fashion.INSTALLED.relative_to("/")
            inside.mkdir(parents=True)
            for file in tiny.iterdir():
                (inside / file.name).write_bytes(file.read_bytes())

    monkeypatch.setattr(fashion.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(fashion.subprocess, "run", fake)
    first = loaded()
    assert loaded().fingerprint == first.fingerprint
    assert asked == ["apt-get", "dpkg-deb"]  # once


def test_the_hub_gives_the_same_rows(tiny, monkeypatch):
    from datasets import ClassLabel, DatasetDict, Features
    from datasets import Dataset as Table
    from datasets import Image as ImageFeature

    def encoded(pixels: np.ndarray) -> dict[str, bytes]:
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        return {"bytes": out.getvalue(), "path": None}

    features = Features({"image": ImageFeature(), "label": ClassLabel(names=list(fashion.LABELS))})
    parts = {"train": part(60, 0), "test": part(30, 1)}
    tables = {
        name: Table.from_dict({"image": [encoded(p) for p in own.pixels], "label": own.labels.tolist()}, features)
        for name, own in parts.items()
    }
    monkeypatch.setattr(fashion.hub, "open_dataset", REAL_HUB)
    monkeypatch.setattr("datasets.load_dataset", lambda name: DatasetDict(tables))
    fetched = loaded()
    monkeypatch.setattr(fashion, "INSTALLED", tiny)
    assert fetched.fingerprint == loaded().fingerprint


def test_with_nothing_there_one_line_says_what_to_install(tiny, monkeypatch):
    with pytest.raises(UserError, match="apt-get install dataset-fashion-mnist") as caught:
        loaded()
    assert "\n" not in str(caught.value)

    def failing(*_, **__):
        raise subprocess.CalledProcessError(100, "apt-get")

    monkeypatch.setattr(fashion.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(fashion.subprocess, "run", failing)
    with pytest.raises(UserError, match="apt-get install dataset-fashion-mnist"):
        loaded()
