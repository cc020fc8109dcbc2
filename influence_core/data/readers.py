"""Which reader a file of rows has, by its ending."""

from collections.abc import Callable
from pathlib import Path

from influence_core.data.columnar import Parquet
from influence_core.data.delimited import Delimited
from influence_core.data.json_lines import JsonLines
from influence_core.data.source import Source

READERS: dict[str, Callable[[Path], Source]] = {
    ".csv": lambda path: Delimited(path, ","),
    ".tsv": lambda path: Delimited(path, "\t"),
    ".jsonl": JsonLines,
    ".parquet": Parquet,
}
