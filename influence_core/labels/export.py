"""Label events and current labels as CSV, JSON lines or Parquet, for people and programs."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import islice
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from influence_core.errors import UserError
from influence_core.labels.events import LabelEvent
from influence_core.labels.store import LabelStore

FORMATS = ("csv", "jsonl", "parquet")
BLOCK = 4096  # rows in memory
Record = Mapping[str, Any]
Write = Callable[[Sequence[Record]], None]

# A spreadsheet takes a cell that begins with one of these for a formula (full-width forms included):
# https://owasp.org/www-community/attacks/CSV_Injection
_DANGEROUS = "=+\\-@\t\r\n＝＋－＠"
_to_defuse = re.compile(f"'*[{_DANGEROUS}]")
_defused = re.compile(f"'+[{_DANGEROUS}]")


@dataclass(frozen=True)
class CurrentLabel:
    """One row of the current labels; the last three fields are of the event that last set or confirmed it."""

    example: str
    text: str
    original: str  # the dataset's own label
    current: str
    annotator: str | None = None
    at: str | None = None  # UTC, ISO 8601
    note: str | None = None


def current_labels(
    store: LabelStore,
    data_fingerprint: str,
    rows: Iterable[tuple[str, str, str]],
    cursor: int | None = None,
) -> Iterator[CurrentLabel]:
    """Yield every row, given as (example, text, the dataset's label), with its label up to a cursor.

    In memory are the events alone, so ``rows`` may be as many as they like.
    """
    last: dict[str, LabelEvent] = {}
    for past in store.history(data_fingerprint):
        if cursor is not None and (past.seq or 0) > cursor:
            break
        if past.verdict in ("change", "confirm", "undo"):
            last[past.example] = past
    for example, text, original in rows:
        event = last.get(example)
        if event is None:
            yield CurrentLabel(example, text, original, original)
        else:
            yield CurrentLabel(example, text, original, event.new, event.annotator, event.at, event.note)


def export(rows: Iterable[LabelEvent] | Iterable[CurrentLabel], format: str, stream: IO[bytes]) -> int:
    """Write events or current labels as ``csv``, ``jsonl`` or ``parquet``, one row each, in UTF-8; returns how many.

    In CSV every cell that a spreadsheet would run as a formula (beginning with = + - @, tab,
    carriage return or newline, after any apostrophes) gets one apostrophe in front;
    `read_import` takes it off again. JSON lines and Parquet carry the values unchanged. A block of
    rows is in memory at a time.

    Raises:
        UserError: an unknown format.
    """
    if format not in FORMATS:
        raise UserError(f"export format {format!r} is not one of {', '.join(FORMATS)}: choose one of them")
    given: Iterator[LabelEvent | CurrentLabel] = iter(rows)
    block = list(islice(given, BLOCK))
    # No rows have no type to ask: they are taken for current labels.
    events = bool(block) and isinstance(block[0], LabelEvent)
    columns = list(LabelEvent.model_fields) if events else [field.name for field in fields(CurrentLabel)]
    count = 0
    with WRITERS[format](stream, columns) as write:
        while block:
            write([row.model_dump() if isinstance(row, LabelEvent) else vars(row) for row in block])
            count += len(block)
            block = list(islice(given, BLOCK))
    return count


def defuse(cell: str) -> str:
    """Put an apostrophe before a cell that a spreadsheet would run; `undefuse` takes it off."""
    return f"'{cell}" if _to_defuse.match(cell) else cell


def undefuse(cell: str) -> str:
    """Take off the apostrophe that `defuse` put on; the inverse of it for every text."""
    return cell[1:] if _defused.match(cell) else cell


@contextmanager
def _csv(stream: IO[bytes], columns: Sequence[str]) -> Iterator[Write]:
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    # Every cell is quoted, so that no separator of another locale opens a new cell.
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(columns)

    def write(records: Sequence[Record]) -> None:
        for record in records:
            cells = (record[column] for column in columns)
            writer.writerow(["" if cell is None else defuse(str(cell)) for cell in cells])

    yield write
    text.detach()  # flushed, and the stream stays open


@contextmanager
def _json_lines(stream: IO[bytes], columns: Sequence[str]) -> Iterator[Write]:
    def write(records: Sequence[Record]) -> None:
        for record in records:
            stream.write((json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8"))

    yield write


@contextmanager
def _parquet(stream: IO[bytes], columns: Sequence[str]) -> Iterator[Write]:
    # Text stays text where a column holds only missing values; seq is the one number.
    schema = pa.schema([(column, pa.int64() if column == "seq" else pa.string()) for column in columns])
    with pq.ParquetWriter(stream, schema) as writer:
        yield lambda records: writer.write_table(pa.Table.from_pylist(list(records), schema))


WRITERS = {"csv": _csv, "jsonl": _json_lines, "parquet": _parquet}
