"""A dataset on disk: ids, inputs and original labels, in up to three splits, read where it lies."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from influence_core.data.arrow import BLOCK, IMAGE_BLOCK, read_frame, write_frame
from influence_core.data.ids import first_again
from influence_core.errors import UserError
from influence_core.home import read_json, write_json
from influence_core.specs import Split

Modality = Literal["text", "image"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Dataset:
    """Examples and their original labels; relabelling never changes it.

    ``splits`` maps train, validation and test to frames with the columns ``id`` (text, unique in
    the dataset), ``text`` or ``image`` (bytes of an image file), ``label`` (int, an index into
    ``label_names``) and, where they are known, ``gold`` (int, the truth apart from the label) and
    ``file`` (an image's name inside its folder). What `load`
    returns is mapped from disk: contents are in memory only while they are looked at, so nothing
    here turns a whole column into Python objects.
    """

    name: str
    label_names: tuple[str, ...]
    splits: Mapping[Split, pd.DataFrame]
    notes: Mapping[str, Any] = field(default_factory=dict)  # provenance, for people
    checked: InitVar[bool] = False  # whether ids and labels are known to be sound, as those on disk are

    def __post_init__(self, checked: bool) -> None:
        """Refuse ids that stand twice and labels out of range."""
        if checked:
            return
        if (twice := first_twice(self.splits)) is not None:
            raise UserError(f"the id {twice!r} stands more than once in {self.name}: make ids unique over all splits")
        for split, frame in self.splits.items():
            labels = frame["label"].to_numpy()
            # row numbers, not a mask on the frame, which would make room for all contents
            outside = np.flatnonzero((labels < 0) | (labels >= len(self.label_names)))
            if len(outside):
                raise UserError(
                    f"row {frame['id'].iloc[outside[0]]!r} of {split} has label {labels[outside[0]]}, "
                    f"but there are {len(self.label_names)} classes: fix the row or the class list"
                )

    @property
    def modality(self) -> Modality:
        """What the inputs are; also the name of their column."""
        return "image" if any("image" in frame for frame in self.splits.values()) else "text"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over class names, ids, inputs and original labels, in order; of an image, its bytes' SHA-256.

        Parts that hold a separator are spelled as JSON behind one that begins no other part, so that
        different data never spell the same.
        """
        names = "\x1f".join(self.label_names)
        if any(separated(name) for name in self.label_names):
            names = f"\x1c{json.dumps(self.label_names)}"
        digest = hashlib.sha256(names.encode())
        for split in SPLITS:
            if split in self.splits:
                digest.update(f"\x1d{split}\x1d".encode())
                for example, content, label in rows_of(self.splits[split], self.modality):
                    text = content if isinstance(content, str) else hashlib.sha256(content).hexdigest()
                    row = f"{example}\x1f{text}"
                    if separated(row, 1):
                        row = f"\x1c{json.dumps([example, text])}"
                    digest.update(f"{row}\x1f{label}\x1e".encode())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write the splits as Arrow files and a ``dataset.json`` beside them."""
        folder.mkdir(parents=True, exist_ok=True)
        for split, frame in self.splits.items():
            write_frame(folder / f"{split}.arrow", frame)
        self.describe(folder)

    def describe(self, folder: Path) -> None:
        """Write ``dataset.json`` beside splits that lie there already."""
        about = {
            "name": self.name,
            "label_names": list(self.label_names),
            "splits": {split: len(frame) for split, frame in self.splits.items()},
            "fingerprint": self.fingerprint,
            "notes": dict(self.notes),
        }
        write_json(folder / "dataset.json", about)

    @classmethod
    def load(cls, folder: Path) -> "Dataset":
        """Read what `save` wrote, mapped from disk."""
        about = read_json(folder / "dataset.json")
        splits: dict[Split, pd.DataFrame] = {}
        for split in about["splits"]:
            older = folder / f"{split}.parquet"  # as workspaces were written before
            splits[split] = pd.read_parquet(older) if older.exists() else read_frame(folder / f"{split}.arrow")
        return cls(about["name"], tuple(about["label_names"]), splits, about["notes"], checked=True)


def separated(text: str, own: int = 0) -> bool:
    """Say whether a text holds a separator of the fingerprint's, besides so many of its own between id and input."""
    return text.count("\x1f") > own or "\x1e" in text or "\x1d" in text or "\x1c" in text


def words(frame: pd.DataFrame, row: int) -> str:
    """Return a row's text; of an image, its file's name, or nothing where it has none."""
    column = words_column(frame)
    return "" if column is None else str(frame[column].iloc[row])


def words_column(frame: pd.DataFrame) -> str | None:
    """Return the column that stands for a row's content in words: its text, or an image's file; None without either."""
    return next((name for name in ("text", "file") if name in frame), None)


def rows_of(frame: pd.DataFrame, modality: Modality) -> Iterator[tuple[str, str | bytes, int]]:
    """Yield (id, content, label) of each row, a block of rows in memory at a time."""
    rows = IMAGE_BLOCK if modality == "image" else BLOCK
    for start in range(0, len(frame), rows):
        block = frame.iloc[start : start + rows]
        yield from zip(block["id"].tolist(), block[modality].tolist(), block["label"].tolist(), strict=True)


def first_twice(splits: Mapping[Split, pd.DataFrame]) -> str | None:
    """Return an id that stands more than once over all splits, or None; 8 bytes of memory a row."""
    columns = [frame["id"] for frame in splits.values()]
    hashes = np.sort(np.concatenate([hashed(column) for column in columns])) if columns else np.zeros(0, np.uint64)
    suspects = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    if not len(suspects):
        return None
    return first_again(str(example) for column in columns for example in column[np.isin(hashed(column), suspects)])


def hashed(column: "pd.Series[str]") -> np.ndarray:
    """Return a 64-bit hash of each text, [N] uint64, a block of texts in memory at a time."""
    found = np.zeros(len(column), dtype=np.uint64)
    for start in range(0, len(column), BLOCK):
        block = column.iloc[start : start + BLOCK].to_numpy(dtype=object)
        found[start : start + BLOCK] = pd.util.hash_array(block, categorize=False)
    return found


def places_of(column: "pd.Series[str]", wanted: list[str]) -> dict[str, int]:
    """Return the row numbers of those wanted ids that stand in a column: one scan, nothing kept."""
    if not wanted:
        return {}
    found = pa.compute.index_in(pa.array(column), value_set=pa.array(wanted, pa.large_string()))
    rows = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
    return {wanted[found[int(row)].as_py()]: int(row) for row in rows}
