"""Training-side arrays and query files on disk."""

import hashlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from influence_core.attribution.base import Arrays, Query
from influence_core.errors import UserError
from influence_core.home import read_json, write_json

SHARD = 1000  # training rows whose completion is recorded together
CHUNK = 64 * SHARD  # rows a file: few files are read fast, and zarr replaces a file in one move


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays as safetensors, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, temporary)
    os.replace(temporary, path)


class Table:
    """One method's artefact folder: ``manifest.json``, training-side arrays, ``queries/``."""

    def __init__(self, folder: Path, key: dict[str, Any]) -> None:
        self.folder = folder
        self.key = key

    @property
    def lock(self) -> Path:
        """The file that a process holds (`runs.locks.locked`) while it writes here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / "lock"

    @property
    def manifest(self) -> dict[str, Any]:
        """When and how the table was made."""
        return dict(read_json(self.folder / "manifest.json"))

    @property
    def complete(self) -> bool:
        """Whether the training side is finished."""
        return (self.folder / "manifest.json").exists()

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Mark the training side as finished."""
        write_json(self.folder / "manifest.json", dict(manifest))

    def query_file(self, query: Query) -> Path:
        """Return the file of a query's arrays."""
        name = hashlib.sha256(f"{query.example}\x1f{query.target}".encode()).hexdigest()[:24]
        return self.folder / "queries" / f"{name}.safetensors"

    def query(self, query: Query) -> Arrays | None:
        """Read a query's arrays, or None."""
        file = self.query_file(query)
        try:
            return load_file(file) if file.exists() else None
        except (SafetensorError, OSError):  # damaged: as if it were not there, and so made again
            return None

    def read_arrays(self, name: str) -> Arrays:
        """Read training-side arrays; raises `UserError` naming a damaged file."""
        file = self.folder / f"{name}.safetensors"
        try:
            return dict(load_file(file))
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} is damaged ({error}): delete {self.folder} and rank again") from None

    def write_query(self, query: Query, arrays: Arrays) -> None:
        """Keep a query's arrays."""
        write_arrays(self.query_file(query), arrays)

    def revision(self, query: Query) -> str:
        """Name the state of all files that the query's scores follow from."""
        files = [self.folder / "manifest.json", self.query_file(query)]
        return "/".join(str(file.stat().st_mtime_ns) for file in files if file.exists())


class IndexArrays:
    """The index on disk: uncompressed zarr arrays of N rows, written shard by shard.

    ``products`` [N, k], ``sqnorms`` [N] (of the full gradients), ``labels`` [N] (those projected),
    ``done`` [shards]. A build that was interrupted goes on with the shards that are not done. Made
    with k to write, where arrays that are missing are made empty; `reading` opens a finished index.
    """

    def __init__(self, folder: Path, rows: int, k: int | None) -> None:
        self.rows = rows
        self.shards = -(-rows // SHARD)
        self.folder = folder
        self.finished = k is None
        try:
            self.group = zarr.open_group(str(folder / "index.zarr"), mode="r" if k is None else "a")
            empty = "done" not in self.group
        except (RuntimeError, ValueError, OSError, KeyError) as error:
            self._check_there()
            raise self._damaged(error) from None
        if k is not None and empty:
            chunk = min(rows, CHUNK)
            plain: dict[str, Any] = {"compressors": None}  # noise does not compress
            self.group.create_array("products", shape=(rows, k), chunks=(chunk, k), dtype="float32", **plain)
            self.group.create_array("sqnorms", shape=(rows,), chunks=(chunk,), dtype="float32", **plain)
            self.group.create_array("labels", shape=(rows,), chunks=(chunk,), dtype="int64", **plain)
            self.group.create_array("done", shape=(self.shards,), chunks=(self.shards,), dtype="uint8")

    @classmethod
    def reading(cls, folder: Path, rows: int) -> "IndexArrays":
        """Open a finished index to read; it makes nothing. Raises `UserError`, as `read` does, for one that is not."""
        return cls(folder, rows, None)

    def array(self, name: str) -> zarr.Array[Any]:
        """Return one of the arrays."""
        try:
            found = self.group[name]
        except (ValueError, OSError, KeyError) as error:
            self._check_there()
            raise self._damaged(error) from None
        if not isinstance(found, zarr.Array):
            raise self._damaged(TypeError(f"{name} is no array"))
        return found

    def read(self, name: str) -> np.ndarray:
        """Read one array whole; raises `UserError` for one that is damaged, or that is being removed meanwhile."""
        source = self.array(name)
        try:
            found = np.asarray(source[:])
        except (RuntimeError, ValueError, OSError) as error:  # what its codecs raise
            self._check_there()
            raise self._damaged(error) from None
        self._check_there()  # a file that is gone reads as zeros
        return found

    def _check_there(self) -> None:
        """Refuse to read an index that is not finished: whoever clears one removes its manifest first."""
        if self.finished and not (self.folder / "manifest.json").exists():
            raise UserError(
                f"the index in {self.folder} is missing or being built: wait for that run, or build it again"
            )

    def _damaged(self, error: Exception) -> UserError:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        return UserError(f"the index in {self.folder} is damaged ({said}): delete that folder and build it again")

    def missing(self) -> list[tuple[int, int, int]]:
        """Return (shard, first row, end row) of the shards not written yet."""
        done = self.read("done")
        return [(s, s * SHARD, min((s + 1) * SHARD, self.rows)) for s in range(self.shards) if not done[s]]

    def rewrite(self, rows: np.ndarray, products: np.ndarray, sqnorms: np.ndarray, labels: np.ndarray) -> None:
        """Replace some rows ([m]); a row's label is written last, so that it never vouches for an old product."""
        for name, values in (("products", products), ("sqnorms", sqnorms), ("labels", labels)):
            whole = self.read(name)
            whole[rows] = values
            self.array(name)[:] = whole

    def write(self, shard: int, products: np.ndarray, sqnorms: np.ndarray, labels: np.ndarray) -> None:
        """Write one shard and then mark it done."""
        where = slice(shard * SHARD, min((shard + 1) * SHARD, self.rows))
        self.array("products")[where] = products
        self.array("sqnorms")[where] = sqnorms
        self.array("labels")[where] = labels
        self.array("done")[shard] = 1
