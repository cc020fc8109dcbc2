"""Frames as Arrow files: written block by block, read mapped from disk."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa

from influence_core.errors import UserError

BLOCK, IMAGE_BLOCK = 4096, 64  # rows of one record batch
# The types that pandas maps without copying.
TYPES = {"id": pa.large_string(), "text": pa.large_string(), "image": pa.large_binary(), "file": pa.large_string()}


class SplitWriter:
    """Writes one split's rows in order; used as a context manager."""

    def __init__(self, path: Path, columns: dict[str, pa.DataType]) -> None:
        self.schema = pa.schema(list(columns.items()))
        self.path = path
        self.rows = 0

    def __enter__(self) -> Self:
        self._writer = pa.ipc.new_file(str(self.path), self.schema)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: Any, trace: TracebackType | None) -> None:
        self._writer.close()

    def write(self, columns: dict[str, Any]) -> None:
        """Append rows, given as one list or array for each column."""
        arrays = [pa.array(columns[name], self.schema.field(name).type) for name in self.schema.names]
        batch = pa.record_batch(arrays, schema=self.schema)
        self._writer.write_batch(batch)
        self.rows += batch.num_rows


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame; columns that are no id, no input and no file's name are integers."""
    with SplitWriter(path, {str(name): TYPES.get(str(name), pa.int64()) for name in frame.columns}) as writer:
        rows = IMAGE_BLOCK if "image" in frame else BLOCK
        for start in range(0, len(frame), rows):
            block = frame.iloc[start : start + rows]
            writer.write({name: block[name].to_numpy() for name in writer.schema.names})


def read_frame(path: Path) -> pd.DataFrame:
    """Read an Arrow file mapped from disk; raises `UserError` for one that is missing or damaged.

    Numbers are copied (8 bytes a row and column), ids and inputs stay where they are.
    """
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: restore it, or delete {path.parent} and open the data again") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{path} is damaged ({str(error).splitlines()[0]}): delete {path.parent} and open the data again"
        ) from None
    columns: dict[str, Any] = {}
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_integer(column.type):
            columns[name] = column.to_numpy().astype(np.int64)
        elif pa.types.is_large_string(column.type):
            columns[name] = pd.array(column, dtype=pd.StringDtype("pyarrow", na_value=np.nan))
        else:
            columns[name] = pd.arrays.ArrowExtensionArray(column)
    return pd.DataFrame(columns, copy=False)
