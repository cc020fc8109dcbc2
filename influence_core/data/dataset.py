"""A dataset on disk: ids, inputs and original labels, in up to three splits."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from influence_core.errors import UserError
from influence_core.home import read_json, write_json
from influence_core.specs import Split

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Dataset:
    """Examples and their original labels; relabelling never changes it.

    ``splits`` maps train, validation and test to frames with the columns ``id`` (text, unique in
    the dataset), ``text``, ``label`` (int, an index into ``label_names``) and, where the truth is
    known apart from the label, ``gold`` (int).
    """

    name: str
    label_names: tuple[str, ...]
    splits: Mapping[Split, pd.DataFrame]
    notes: Mapping[str, Any] = field(default_factory=dict)  # provenance, for people

    def __post_init__(self) -> None:
        """Refuse ids that stand twice and labels out of range."""
        ids = pd.concat([frame["id"] for frame in self.splits.values()])
        if ids.duplicated().any():
            twice = ids[ids.duplicated()].iloc[0]
            raise UserError(f"the id {twice!r} stands more than once in {self.name}: make ids unique over all splits")
        for split, frame in self.splits.items():
            outside = frame[(frame["label"] < 0) | (frame["label"] >= len(self.label_names))]
            if len(outside):
                raise UserError(
                    f"row {outside['id'].iloc[0]!r} of {split} has label {outside['label'].iloc[0]}, "
                    f"but there are {len(self.label_names)} classes: fix the row or the class list"
                )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over class names, ids, inputs and original labels, in order."""
        digest = hashlib.sha256("\x1f".join(self.label_names).encode())
        for split in SPLITS:
            if split in self.splits:
                frame = self.splits[split]
                digest.update(f"\x1d{split}\x1d".encode())
                for example, text, label in zip(frame["id"], frame["text"], frame["label"], strict=True):
                    digest.update(f"{example}\x1f{text}\x1f{label}\x1e".encode())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write the splits as parquet and a ``dataset.json`` beside them."""
        folder.mkdir(parents=True, exist_ok=True)
        for split, frame in self.splits.items():
            frame.to_parquet(folder / f"{split}.parquet", index=False)
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
        """Read what `save` wrote."""
        about = read_json(folder / "dataset.json")
        splits = {split: pd.read_parquet(folder / f"{split}.parquet") for split in about["splits"]}
        return cls(about["name"], tuple(about["label_names"]), splits, about["notes"])
