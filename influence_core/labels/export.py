"""Label events and current labels as CSV, JSON lines or Parquet, for people and programs."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pandas as pd

from influence_core.errors import UserError
from influence_core.labels.events import LabelEvent
from influence_core.labels.store import LabelStore

FORMATS = ("csv", "jsonl", "parquet")

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
    originals: Mapping[str, str],
    texts: Mapping[str, str],
    cursor: int | None = None,
) -> list[CurrentLabel]:
    """Return every row of ``originals`` (example -> the dataset's label) with its label up to a cursor."""
    last: dict[str, LabelEvent] = {}
    for past in store.history(data_fingerprint):
        if cursor is not None and (past.seq or 0) > cursor:
            break
        if past.verdict in ("change", "confirm", "undo"):
            last[past.example] = past
    rows = []
    for example, original in originals.items():
        event = last.get(example)
        text = texts.get(example, "")
        if event is None:
            rows.append(CurrentLabel(example, text, original, original))
        else:
            rows.append(CurrentLabel(example, text, original, event.new, event.annotator, event.at, event.note))
    return rows


def export(rows: Sequence[LabelEvent] | Sequence[CurrentLabel], format: str) -> bytes:
    """Write events or current labels as ``csv``, ``jsonl`` or ``parquet``, one row each, in UTF-8.

    In CSV every cell that a spreadsheet would run as a formula (beginning with = + - @, tab,
    carriage return or newline, after any apostrophes) gets one apostrophe in front;
    `read_import` takes it off again. JSON lines and Parquet carry the values unchanged.

    Raises:
        UserError: an unknown format.
    """
    if format not in FORMATS:
        raise UserError(f"export format {format!r} is not one of {', '.join(FORMATS)}: choose one of them")
    records = [row.model_dump() if isinstance(row, LabelEvent) else asdict(row) for row in rows]
    # An empty list has no type to ask: it is taken for current labels.
    columns = (
        list(LabelEvent.model_fields)
        if rows and isinstance(rows[0], LabelEvent)
        else [field.name for field in fields(CurrentLabel)]
    )
    if format == "csv":
        return _csv(records, columns)
    if format == "jsonl":
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode("utf-8")
    # Text stays text where a column holds only missing values; seq is the one number.
    types = {column: "Int64" if column == "seq" else "string" for column in columns}
    return bytes(pd.DataFrame(records, columns=columns).astype(types).to_parquet(index=False))


def defuse(cell: str) -> str:
    """Put an apostrophe before a cell that a spreadsheet would run; `undefuse` takes it off."""
    return f"'{cell}" if _to_defuse.match(cell) else cell


def undefuse(cell: str) -> str:
    """Take off the apostrophe that `defuse` put on; the inverse of it for every text."""
    return cell[1:] if _defused.match(cell) else cell


def _csv(records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    out = io.StringIO(newline="")
    # Every cell is quoted, so that no separator of another locale opens a new cell.
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerow(columns)
    for record in records:
        cells = (record[column] for column in columns)
        writer.writerow(["" if cell is None else defuse(str(cell)) for cell in cells])
    return out.getvalue().encode("utf-8")
