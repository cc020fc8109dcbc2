"""Fashion-MNIST behind ``demo:fashion-mnist``: a seeded part of its training images, and all its test images.

Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST" (arXiv:1708.07747, MIT licence), as Debian's
package dataset-fashion-mnist has it.
"""

import gzip
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from influence_core.data import hub
from influence_core.data.dataset import Dataset
from influence_core.data.draws import draw
from influence_core.data.pictures import decode, netpbm
from influence_core.data.source import Columns, Source
from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.home import folder
from influence_core.specs import Split

PACKAGE = "dataset-fashion-mnist"
HUB = "zalando-datasets/fashion_mnist"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")
LIMIT_SECONDS = 120
SHA256 = {  # of what follows each file's header
    "train-images-idx3-ubyte.gz": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "train-labels-idx1-ubyte.gz": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "t10k-images-idx3-ubyte.gz": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    "t10k-labels-idx1-ubyte.gz": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}
LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SIDE = 28  # pixels
SIZES: dict[Split, int] = {"train": 10_000, "validation": 2_000, "test": 10_000}
SEED = 0


@dataclass(frozen=True)
class Part:
    """One file's rows."""

    pixels: np.ndarray  # [N, 28, 28] uint8
    labels: np.ndarray  # [N] int64


def load() -> Iterator[Progress | Dataset]:
    """Find or fetch the images, and draw the demo's rows; yields progress, then the dataset.

    Takes the installed package, else Debian's package unpacked under the home, else the hub's copy.
    Raises `UserError` when none is to be had, or a file is not the original.
    """
    phase = "reading Fashion-MNIST"
    yield Progress(phase=phase, done=0, total=2, unit="parts")
    found = _found()
    if found is None:
        yield Progress(phase="fetching Fashion-MNIST (30 MB)", done=0, total=1, unit="files")
        found = _fetched()
    train, test = _from_hub() if found is None else (_read(found, "train"), _read(found, "t10k"))
    yield Progress(phase=phase, done=1, total=2, unit="parts")
    dataset = select(train, test)
    yield Progress(phase=phase, done=2, total=2, unit="parts")
    yield dataset


def select(train: Part, test: Part, sizes: dict[Split, int] = SIZES, seed: int = SEED) -> Dataset:
    """Draw training and validation rows, as many of each class, from the training part; all test rows are kept.

    Ids are the row numbers in the original files.
    """
    drawn = np.array([draw(seed, "fashion-mnist", str(row)) for row in range(len(train.labels))], dtype=np.uint64)
    chosen: dict[Split, list[int]] = {"train": [], "validation": []}
    for label in range(len(LABELS)):
        rows = np.flatnonzero(train.labels == label)
        rows = rows[np.argsort(drawn[rows], kind="stable")]
        start = 0
        for split, taken in chosen.items():
            stop = start + sizes[split] // len(LABELS)
            taken += rows[start:stop].tolist()
            start = stop
    splits = {split: _frame("train", train, sorted(taken)) for split, taken in chosen.items()}
    splits["test"] = _frame("test", test, range(min(sizes["test"], len(test.labels))))
    notes = {
        "source": f"Fashion-MNIST (Debian's {PACKAGE}), sha256 of the training pixels {next(iter(SHA256.values()))}",
        "rows": "train and validation: drawn by class from the 60,000 training images; test: all test images",
        "seed": seed,
    }
    return Dataset("fashion-mnist", LABELS, splits, notes)


def _frame(name: str, part: Part, rows: list[int] | range) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [f"{name}-{row:05d}" for row in rows],
            "image": [netpbm(part.pixels[row]) for row in rows],
            "label": part.labels[list(rows)],
        }
    )


def _unpacked() -> Path:
    return folder("downloads") / PACKAGE


def _found() -> Path | None:
    """Return the folder that holds the files already, or None."""
    inside = _unpacked() / INSTALLED.relative_to("/")
    return next((place for place in (INSTALLED, inside) if all((place / name).is_file() for name in SHA256)), None)


def _fetched() -> Path | None:
    """Fetch Debian's package without being root and unpack it under the home; None where that does not work."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return None
    target = _unpacked()
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=target.parent) as temporary:
        try:
            _quietly(["apt-get", "download", "-qq", PACKAGE], temporary)
            archive = next(Path(temporary).glob(f"{PACKAGE}_*.deb"))
            _quietly(["dpkg-deb", "-x", archive.name, "whole"], temporary)
        except (subprocess.SubprocessError, OSError, StopIteration):
            return None
        shutil.rmtree(target, ignore_errors=True)
        (Path(temporary) / "whole").replace(target)
    return _found()


def _quietly(command: list[str], place: str) -> None:
    subprocess.run(command, cwd=place, check=True, capture_output=True, timeout=LIMIT_SECONDS)


def _read(place: Path, name: str) -> Part:
    """Read a part's two IDX files."""
    files = place / f"{name}-images-idx3-ubyte.gz", place / f"{name}-labels-idx1-ubyte.gz"
    pixels, labels = (gzip.decompress(file.read_bytes())[header:] for file, header in zip(files, (16, 8), strict=True))
    return _checked(name, pixels, labels, str(place))


def _checked(name: str, pixels: bytes, labels: bytes, where: str) -> Part:
    """Return a part whose bytes are the original's."""
    for kind, content in (("images-idx3", pixels), ("labels-idx1", labels)):
        expected, found = SHA256[f"{name}-{kind}-ubyte.gz"], hashlib.sha256(content).hexdigest()
        if found != expected:
            raise UserError(
                f"the {name} {kind[:6]} of Fashion-MNIST in {where} have sha256 {found[:16]}, "
                f"expected {expected[:16]}: install {PACKAGE} again"
            )
    shaped = np.frombuffer(pixels, dtype=np.uint8).reshape(-1, SIDE, SIDE)
    return Part(shaped, np.frombuffer(labels, dtype=np.uint8).astype(np.int64))


def _from_hub() -> tuple[Part, Part]:
    try:
        named = hub.open_dataset(HUB)
    except UserError as error:
        raise UserError(f"Fashion-MNIST is not here: apt-get install {PACKAGE} (without it, {error})") from None
    return _part("train", named["train"]), _part("t10k", named["test"])


def _part(name: str, source: Source) -> Part:
    pixels, labels, names = bytearray(), bytearray(), source.class_names("label")
    for row in source.rows(Columns("image", "label", None, "image")):
        assert isinstance(row.content, bytes)
        pixels += decode(row.content, f"{HUB} {row.place}").tobytes()
        labels.append(names.index(row.label))
    return _checked(name, bytes(pixels), bytes(labels), HUB)
