"""Helpers for tests of data: look and write in one call, tiny image files, IDX files."""

import gzip
import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from influence_core.data.dataset import Dataset
from influence_core.data.surveying import DataSurvey, survey_data
from influence_core.data.writing import write
from influence_core.specs import OpenSpec

NAMES = ("negative", "positive")


def look(data: Path | str, classes=NAMES, modality="text", **fields) -> DataSurvey:
    """Survey data."""
    spec = OpenSpec(
        checkpoint="c", data=str(data), **{k: str(v) if isinstance(v, Path) else v for k, v in fields.items()}
    )
    return next(each for each in survey_data(spec, classes, modality) if isinstance(each, DataSurvey))


def read(folder: Path, data: Path | str, classes=NAMES, modality="text", **fields) -> Dataset:
    """Survey data and write them under a folder."""
    spec = OpenSpec(
        checkpoint="c", data=str(data), **{k: str(v) if isinstance(v, Path) else v for k, v in fields.items()}
    )
    found = next(each for each in survey_data(spec, classes, modality) if isinstance(each, DataSurvey))
    return next(each for each in write(spec, found, folder / "written") if isinstance(each, Dataset))


def rows(dataset: Dataset) -> list[tuple[str, str, str | bytes, int]]:
    """All rows: split, id, content, label."""
    return [
        (split, *cells)
        for split, frame in dataset.splits.items()
        for cells in zip(frame["id"], frame[dataset.modality], frame["label"], strict=True)
    ]


def png(seed: int, side: int = 6) -> bytes:
    """A small image file of seeded noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_idx(folder: Path, split: str, pixels: np.ndarray, labels: np.ndarray, packed: bool = False) -> Path:
    """Write images [N, H, W] and labels [N] as IDX files; returns the images file."""
    folder.mkdir(parents=True, exist_ok=True)
    images = struct.pack(">4I", 0x803, *pixels.shape) + pixels.astype(np.uint8).tobytes()
    classes = struct.pack(">2I", 0x801, len(labels)) + labels.astype(np.uint8).tobytes()
    ending = ".gz" if packed else ""
    for name, content in ((f"{split}-images-idx3-ubyte", images), (f"{split}-labels-idx1-ubyte", classes)):
        (folder / (name + ending)).write_bytes(gzip.compress(content) if packed else content)
    return folder / f"{split}-images-idx3-ubyte{ending}"
