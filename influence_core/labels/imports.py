"""Labels from a file: read it, say what is wrong with it line by line, apply all of it or nothing."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from influence_core.errors import UserError
from influence_core.labels.events import LabelConflict
from influence_core.labels.export import FORMATS, undefuse
from influence_core.labels.store import LabelChange, LabelStore

_MAX_CELL = 16 * 1024 * 1024  # characters; Python's default of 131,072 is less than a long document
_Record = tuple[int, Mapping[str, Any] | str]  # a text says why the row cannot be read


@dataclass(frozen=True)
class ImportedLabel:
    """One usable row of the file."""

    line: int  # as an editor counts, from 1; in Parquet the row, from 1
    example: str
    label: str
    note: str = ""
    expect: str | None = None  # the label that the row's author saw; None: not checked


@dataclass(frozen=True)
class ImportProblem:
    """One row of the file that cannot be used, and why."""

    line: int
    message: str


def read_import(path: Path | str, label_names: Sequence[str]) -> tuple[list[ImportedLabel], list[ImportProblem]]:
    """Read labels from a ``.csv``, ``.jsonl`` or ``.parquet`` file.

    Columns: ``example``, ``label``, and if wanted ``note`` and ``expect``; others are ignored.
    ``current`` serves for a missing ``label``, so an export of current labels can be read back.
    Apostrophes that the CSV export put before formulas are taken off. Which examples there are, `apply_import` knows.

    Raises:
        UserError: the file as a whole cannot be read, or lacks a column.
    """
    path = Path(path)
    format = path.suffix.lower().removeprefix(".")
    if format not in FORMATS:
        raise UserError(f"labels file {path.name!r} is not .csv, .jsonl or .parquet: convert it to one of them")
    names = set(label_names)
    changes: list[ImportedLabel] = []
    problems: list[ImportProblem] = []
    lines: dict[str, int] = {}
    for line, record in _records(path, format):
        try:
            change = _imported(line, record)
            if change.label not in names:
                raise UserError(f"label {change.label!r} is not one of {', '.join(label_names)}")
            first = lines.setdefault(change.example, line)
            if first != line:
                raise UserError(f"example {change.example!r} is on line {first} already")
        except UserError as error:
            problems.append(ImportProblem(line, str(error)))
        else:
            changes.append(change)
    return changes, problems


def apply_import(
    store: LabelStore,
    changes: Sequence[ImportedLabel],
    problems: Sequence[ImportProblem] = (),
    *,
    workspace: str,
    data_fingerprint: str,
    originals: Mapping[str, str],
    annotator: str,
    source: str = "import",
    dry_run: bool = False,
) -> dict[str, int]:
    """Record what `read_import` read, in one transaction: all rows or, if any one cannot be, none.

    Returns ``{"changed", "unchanged", "conflicts", "unknown"}``: rows that (would) set a new label;
    rows whose label is so already (no event, so a second import changes nothing); rows whose
    ``expect`` is not the current label; rows that cannot be used. ``originals`` maps every example of
    the file that is in the data to the dataset's own label. With ``dry_run`` the counts only, and no write lock.

    Raises:
        UserError: not a dry run, and there are unusable rows: the first is named.
        LabelConflict: not a dry run, and there are conflicts: the first is named with both values.
    """
    absent = [change for change in changes if change.example not in originals]
    unknown = [*problems, *(ImportProblem(c.line, f"example {c.example!r} is not in the data") for c in absent)]
    wanted = [change for change in changes if change.example in originals]
    if unknown and not dry_run:
        first = min(unknown, key=lambda problem: problem.line)
        raise UserError(
            f"{len(unknown)} of {len(changes) + len(problems)} rows cannot be used, first on line {first.line}: "
            f"{first.message}; nothing was imported, correct the file"
        )
    events, conflicts = store.relabel_many(
        workspace,
        data_fingerprint,
        [LabelChange(c.example, c.label, originals[c.example], c.expect, c.note) for c in wanted],
        annotator,
        source,
        dry_run,
    )
    if conflicts and not dry_run:
        clash = conflicts[0]
        line = next(change.line for change in wanted if change.example == clash.example)
        raise LabelConflict(
            f"{len(conflicts)} of {len(changes)} rows conflict, first on line {line}: the label of {clash.example!r} "
            f"is {clash.current!r} now, the file expects {clash.expected!r}; nothing was imported, correct the file",
            example=clash.example,
            expected=clash.expected,
            current=clash.current,
        )
    unchanged = len(wanted) - len(events) - len(conflicts)
    return {"changed": len(events), "unchanged": unchanged, "conflicts": len(conflicts), "unknown": len(unknown)}


def _imported(line: int, record: Mapping[str, Any] | str) -> ImportedLabel:
    if isinstance(record, str):
        raise UserError(record)
    example = _cell(record, "example")
    label = _cell(record, "label") if record.get("label") is not None else _cell(record, "current")
    if not example:
        raise UserError("example is empty")
    if not label:
        raise UserError("label is empty")
    return ImportedLabel(line, example, label, _cell(record, "note"), _cell(record, "expect") or None)


def _cell(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UserError(f"{name} is {value!r}, not text")
    return str(value)


def _records(path: Path, format: str) -> Iterator[_Record]:
    """Yield (line, columns by name) for each row."""
    try:
        if format == "parquet":
            yield from _parquet_records(path)
            return
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"labels file {str(path)!r}: {error.strerror}; name a file that can be read") from None
    except UnicodeDecodeError as error:
        raise UserError(f"labels file {path.name!r} is not UTF-8 at byte {error.start}: save it as UTF-8") from None
    yield from (_csv_records(path, content) if format == "csv" else _json_records(content))


def _csv_records(path: Path, content: str) -> Iterator[_Record]:
    csv.field_size_limit(_MAX_CELL)
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    try:
        header = next(reader, [])
        _check_columns(path, header)
        line = reader.line_num + 1
        for cells in reader:
            if len(cells) > len(header):
                yield line, f"{len(cells)} cells for {len(header)} columns"
            elif cells:  # an empty line is no row
                yield line, {name: undefuse(cell) for name, cell in zip(header, cells, strict=False)}
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"labels file {path.name!r} line {reader.line_num} is not CSV: {error}; correct it") from None


def _json_records(content: str) -> Iterator[_Record]:
    for line, row in enumerate(content.split("\n"), start=1):
        if not row.strip():
            continue
        try:
            record = json.loads(row)
            if not isinstance(record, dict):
                record = "not a JSON object"
        except ValueError as error:
            record = f"not JSON: {error}"
        yield line, record


def _parquet_records(path: Path) -> Iterator[_Record]:
    try:
        table = pd.read_parquet(path)
    except ValueError as error:  # pyarrow's errors are ValueErrors
        raise UserError(f"labels file {path.name!r} is not Parquet: {str(error).splitlines()[0]}") from None
    _check_columns(path, [str(column) for column in table.columns])
    table = table.astype(object).where(table.notna(), None)
    for line, record in enumerate(table.to_dict("records"), start=1):
        yield line, {str(name): value for name, value in record.items()}


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if "example" not in columns or not {"label", "current"} & set(columns):
        found = ", ".join(columns) or "none"
        raise UserError(f"labels file {path.name!r} needs the columns example and label, it has: {found}")
