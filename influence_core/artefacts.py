"""What is derived and kept: folders named by the key of all they depend on."""

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from influence_core.errors import StaleError, UserError
from influence_core.fingerprints import companions_fingerprint, key_hash
from influence_core.home import read_json, write_json

if TYPE_CHECKING:
    from influence_core.workspace import Checkpoint, Workspace

CODE_VERSION = 1  # raise it when the meaning of a stored number changes


def base_key(workspace: "Workspace", checkpoint: str | None, scope: str | None) -> dict[str, Any]:
    """Return what all that is made of gradients depends on."""
    return {
        **workspace.checkpoint(checkpoint).key,
        "data": workspace.data_fingerprint,
        "scope": scope or workspace.scope,
        "code": CODE_VERSION,
    }


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Write a table so that a reader sees all of it or nothing."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    table.to_parquet(temporary, index=False)
    os.replace(temporary, path)


class Artefacts:
    """Artefacts of one workspace, ``<kind>/<hash of key>/`` with the whole key in ``key.json``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, kind: str, key: dict[str, Any]) -> Path:
        """Return the artefact's folder (perhaps not made yet)."""
        return self.folder / kind / key_hash(key)

    def make(self, kind: str, key: dict[str, Any]) -> Path:
        """Make the artefact's folder with its key; return it."""
        path = self.path(kind, key)
        if not (path / "key.json").exists():
            path.mkdir(parents=True, exist_ok=True)
            write_json(path / "key.json", key)
        return path

    def find(self, kind: str, **wanted: Any) -> list[tuple[Path, dict[str, Any]]]:
        """Return (folder, key) of the artefacts whose keys have the wanted values, newest first."""
        found = []
        for file in (self.folder / kind).glob("*/key.json"):
            try:
                key = read_json(file)
            except UserError:  # damaged: as if it were not there
                continue
            if all(key.get(name) == value for name, value in wanted.items()):
                found.append((file.stat().st_mtime, file.parent, key))
        return [(path, key) for _, path, key in sorted(found, key=lambda entry: entry[0], reverse=True)]


def check_same(what: str, expected: str, found: str) -> None:
    """Refuse a fingerprint that does not match, showing both."""
    if expected != found:
        raise StaleError(
            f"{what} has fingerprint {found[:16]}, but {expected[:16]} is recorded: "
            "restore the original, or open it again: it comes in under another name"
        )


def check_companions(entry: "Checkpoint") -> None:
    """Refuse a checkpoint whose tokenizer, image processor or configuration is not the one that was recorded."""
    if entry.companions:
        what = f"the tokenizer or configuration of checkpoint {entry.name} changed: it"
        check_same(what, entry.companions, companions_fingerprint(Path(entry.path)))
