"""The frozen part's outputs on disk: one array a row, memory-mapped, written shard by shard."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from influence_core.errors import UserError
from influence_core.home import read_json, write_json
from influence_core.models.items import Items

SHARD = 1000  # rows whose completion is recorded together
VALUES = "values.bin"


@dataclass(frozen=True)
class Form:
    """What one row's output looks like."""

    width: tuple[int, ...]  # shape of one unit: (d,) of a token, or the whole output where all have one shape
    ragged: bool  # a row is [T, *width] with a T of its own, else one unit
    dtype: str

    @property
    def unit_bytes(self) -> int:
        """Bytes of one token, or of one row where all have one shape."""
        return int(np.prod(self.width)) * np.dtype(self.dtype).itemsize


class Outputs(Items):
    """N rows as views into the file; nothing is read before it is used."""

    def __init__(self, values: np.ndarray, offsets: np.ndarray, ragged: bool) -> None:
        self.values = values  # [units, *width]
        self.offsets = offsets  # [N + 1] int64, in units
        self.ragged = ragged

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def item(self, row: int) -> np.ndarray:
        """Return a view of one row's output."""
        found: np.ndarray = self.values[self.offsets[row] : self.offsets[row + 1]] if self.ragged else self.values[row]
        return found


def held(folder: Path) -> int:
    """Return the bytes of outputs that the stores in a folder keep, or have begun to."""
    found = 0
    for file in folder.glob(f"*/{VALUES}"):
        with suppress(FileNotFoundError):  # being replaced
            found += file.stat().st_size
    return found


class Store:
    """``values.bin``, ``offsets.npy``, ``shape.json`` and, written last, ``done.json`` (finished shards) in a folder.

    A shard is recorded as done after its values have reached the disk, so a build that was killed
    goes on with what is missing. Files of another form are replaced, never written into: whoever
    reads the old ones keeps them.
    """

    def __init__(self, folder: Path, lengths: np.ndarray, form: Form) -> None:
        self.folder, self.form = folder, form
        units = lengths if form.ragged else np.ones(len(lengths), np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(units, dtype=np.int64)])  # [N + 1]
        self.about: dict[str, Any] = {
            "rows": len(lengths),
            "width": list(form.width),
            "ragged": form.ragged,
            "dtype": form.dtype,
        }

    @property
    def lock(self) -> Path:
        """The file that a process holds (`runs.locks.locked`) while it writes here."""
        return self.folder / "lock"

    def missing(self) -> list[tuple[int, int, int]]:
        """Return (shard, first row, end row) of the shards not written yet."""
        done = self._done() if self._fits() else []
        rows = len(self.offsets) - 1
        shards = range(-(-rows // SHARD))
        return [(s, s * SHARD, min((s + 1) * SHARD, rows)) for s in shards if s not in done]

    def start(self) -> None:
        """Make the files, unless they are there with the right form; raises `UserError` as `writing` does."""
        if self._fits():
            return
        with self.disk():
            for name in ("done.json", "shape.json", "offsets.npy", VALUES):
                (self.folder / name).unlink(missing_ok=True)
            with (self.folder / VALUES).open("xb") as stream:
                stream.truncate(self.bytes)
            np.save(self.folder / "offsets.npy", self.offsets)
            write_json(self.folder / "shape.json", self.about)

    @contextmanager
    def writing(self, shard: int) -> Iterator[IO[bytes]]:
        """Give the file for `put`; the shard is recorded as done if the block ends without an error.

        Raises:
            UserError: the disk is full or refuses.
        """
        with self.disk():
            with (self.folder / VALUES).open("r+b") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            write_json(self.folder / "done.json", sorted({*self._done(), shard}))

    @contextmanager
    def disk(self) -> Iterator[None]:
        """Turn what the disk refuses in the block into a `UserError`."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"the frozen part's outputs cannot be kept in {self.folder} ({error.strerror or error}): free "
                f"{self.bytes / 1e9:.1f} GB there, or set INFLUENCE_CACHE_GB=0"
            ) from None

    def put(self, stream: IO[bytes], row: int, output: np.ndarray) -> None:
        """Write one row's output at its place."""
        units = self.offsets[row + 1] - self.offsets[row]
        shape = (units, *self.form.width) if self.form.ragged else self.form.width
        if output.shape != tuple(shape):
            raise ValueError(f"row {row} gives an output of shape {output.shape}, expected {tuple(shape)}")
        stream.seek(int(self.offsets[row]) * self.form.unit_bytes)
        stream.write(np.ascontiguousarray(output, dtype=self.form.dtype).data)

    def open(self) -> Outputs:
        """Map the file read-only."""
        shape = (int(self.offsets[-1]), *self.form.width)
        if self.bytes == 0:
            return Outputs(np.zeros(shape, self.form.dtype), self.offsets, self.form.ragged)
        mapped = np.memmap(self.folder / VALUES, dtype=self.form.dtype, mode="r", shape=shape)
        return Outputs(mapped.view(np.ndarray), self.offsets, self.form.ragged)  # slices of a plain array are cheap

    @property
    def bytes(self) -> int:
        """What all rows' outputs take."""
        return int(self.offsets[-1]) * self.form.unit_bytes

    def _done(self) -> list[int]:
        file = self.folder / "done.json"
        return list(read_json(file)) if file.exists() else []

    def _fits(self) -> bool:
        """Say whether the files are there, whole, and of the rows and form asked for."""
        try:
            return (
                read_json(self.folder / "shape.json") == self.about
                and np.array_equal(np.load(self.folder / "offsets.npy"), self.offsets)
                and (self.folder / VALUES).stat().st_size == self.bytes
                and all(isinstance(shard, int) for shard in self._done())
            )
        except (OSError, ValueError, TypeError):  # missing or damaged: as if not there, and so made again
            return False
