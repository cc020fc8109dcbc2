"""Rows that come as Arrow tables: Parquet files, and what the `datasets` library keeps."""

import json
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from influence_core.data.source import SAMPLE, Columns, Row, Source, as_row
from influence_core.errors import UserError

TEXT_ROWS, IMAGE_ROWS = 1024, 32  # of one table, in memory together


class Columnar(Source):
    """Columns with types, and with the features that the `datasets` library writes into the schema."""

    numbered = True

    def __init__(self, name: str, origin: str, schema: pa.Schema) -> None:
        self.name, self.origin, self.schema = name, origin, schema
        self.features = features(schema)
        self.columns = tuple(dict.fromkeys(schema.names))
        if twice := [name for name in self.columns if schema.names.count(name) > 1]:
            raise UserError(f"{origin} has several columns that are called {twice[0]!r}: leave one")
        self.image_columns = tuple(each for each in self.columns if self._holds_images(each))

    @abstractmethod
    def tables(self, columns: list[str], rows: int) -> Iterator[pa.Table | pa.RecordBatch]:
        """Yield tables of at most so many rows, with these columns, in order."""

    def rows(self, columns: Columns, contents: bool = True) -> Iterator[Row]:
        """Yield all rows, a table in memory at a time."""
        wanted = [columns.label, *([columns.input] if contents else []), *([columns.id] if columns.id else [])]
        count = IMAGE_ROWS if columns.modality == "image" and contents else TEXT_ROWS
        names = self.class_names(columns.label)
        place = 0
        for table in self.tables(list(dict.fromkeys(wanted)), count):
            labels: list[Any] = values(table.column(columns.label))
            if names:
                labels = [names[v] if isinstance(v, int) and 0 <= v < len(names) else v for v in labels]
            empty = [None] * len(labels)
            inputs = [self.whole(each) for each in values(table.column(columns.input))] if contents else empty
            ids = values(table.column(columns.id)) if columns.id else empty
            for cells in zip(inputs, labels, ids, strict=True):
                place += 1
                yield as_row(place, *cells, columns.modality)

    def whole(self, content: Any) -> Any:
        """Return a content as it is read; sources that keep files beside their tables fetch them here."""
        return content

    def class_names(self, label: str) -> tuple[str, ...]:
        """Return a ClassLabel feature's names."""
        names = self.features.get(label, {}).get("names") or ()
        return tuple(map(str, names))

    def sample(self) -> dict[str, list[Any]]:
        """Return the first values of each column that holds no images."""
        wanted = [name for name in self.columns if name not in self.image_columns]
        first = next(self.tables(wanted, SAMPLE), None) if wanted else None
        return {} if first is None else {name: values(first.column(name)) for name in wanted}

    def _holds_images(self, name: str) -> bool:
        kind = self.schema.field(name).type
        if self.features.get(name, {}).get("_type") == "Image":
            return True
        if pa.types.is_struct(kind):
            return {"bytes", "path"} <= {kind.field(number).name for number in range(kind.num_fields)}
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


class Parquet(Columnar):
    """A Parquet file."""

    kind = "Parquet file"

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path):
            file = pq.ParquetFile(path)
        self._size = file.metadata.num_rows
        super().__init__(path.name, str(path), file.schema_arrow)

    @property
    def size(self) -> int:
        """How many rows there are."""
        return int(self._size)

    def tables(self, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the file's rows, a few pages of it in memory at a time."""
        with reading(self.path), pq.ParquetFile(self.path, memory_map=True, pre_buffer=False) as file:
            yield from file.iter_batches(rows, columns=columns, use_threads=False)


def values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Return a column's values; texts that are no UTF-8 as bytes."""
    try:
        found: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        found = column.cast(pa.large_binary()).to_pylist()
    return found


def features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Return the features that the `datasets` library wrote into a schema, by column; empty where there are none."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):  # another program's key of the same name
        known = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {str(name): each for name, each in known.items() if isinstance(each, dict)}
    return {}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn Arrow's errors into one line that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read ({said}): check the file") from None
