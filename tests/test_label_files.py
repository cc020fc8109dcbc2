"""Export and import of labels: what goes out comes back, and formulas do not run."""

import csv
import io
import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_core.errors import UserError
from influence_core.labels import (
    ImportedLabel,
    ImportProblem,
    LabelConflict,
    LabelStore,
    apply_import,
    current_labels,
    read_import,
)
from influence_core.labels.export import defuse, undefuse
from influence_core.labels.export import export as write

DATA = "data-a"
ORIGINALS = {"r0": "neg", "r1": "pos", "-2": "neg", "r3": "pos"}
TEXTS = {"r0": '=HYPERLINK("http://x","y")', "r1": "plain, with comma", "-2": "two\nlines", "r3": "žluť"}
ROWS = [(example, TEXTS[example], original) for example, original in ORIGINALS.items()]
NAMES = ("neg", "pos")


@pytest.fixture
def store(tmp_path):
    store = LabelStore(f"sqlite:///{tmp_path / 'labels.sqlite'}")
    store.relabel("w", DATA, "r0", "pos", "neg", "neg", "ann", note="@mention")
    store.relabel("w", DATA, "r1", "pos", "pos", "pos", "bob", verdict="skip")
    store.relabel("w", DATA, "-2", "neg", "neg", "neg", "bob")
    return store


def export(rows, format: str) -> bytes:
    file = io.BytesIO()
    rows = list(rows)
    assert write(rows, format, file) == len(rows)
    return file.getvalue()


def read_csv(data):
    return list(csv.DictReader(io.StringIO(data.decode("utf-8"), newline="")))


def test_current_labels_carry_who_decided_and_skip_decides_nothing(store):
    rows = {row.example: row for row in current_labels(store, DATA, ROWS)}
    assert list(rows) == list(ORIGINALS)
    assert (rows["r0"].original, rows["r0"].current, rows["r0"].annotator) == ("neg", "pos", "ann")
    assert (rows["r1"].current, rows["r1"].annotator) == ("pos", None)
    assert (rows["-2"].current, rows["-2"].annotator) == ("neg", "bob")
    assert rows["r3"].current == "pos"
    before = {row.example: row.current for row in current_labels(store, DATA, ROWS, cursor=0)}
    assert before == ORIGINALS


def test_csv_cells_that_a_spreadsheet_would_run_are_defused(store):
    data = export(current_labels(store, DATA, ROWS), "csv")
    rows = read_csv(data)
    assert rows[0]["text"] == "'" + TEXTS["r0"]
    assert rows[0]["note"] == "'@mention"
    assert rows[1]["text"] == TEXTS["r1"]
    assert rows[2]["example"] == "'-2"
    cells = [cell for row in csv.reader(io.StringIO(data.decode(), newline="")) for cell in row]
    assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r\n")]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_every_dangerous_start_is_defused(start):
    assert defuse(f"{start}1+1") == f"'{start}1+1"
    assert undefuse(defuse(f"{start}1+1")) == f"{start}1+1"


@given(st.text(st.sampled_from("'=+-@\t\r\na＝"), max_size=6))
def test_defusing_can_be_taken_back_for_every_text(cell):
    assert undefuse(defuse(cell)) == cell
    assert defuse(cell)[:1] not in tuple("=+-@\t\r\n＝")


def test_jsonl_and_parquet_carry_values_unchanged(store, tmp_path):
    rows = list(current_labels(store, DATA, ROWS))
    lines = [json.loads(line) for line in export(rows, "jsonl").decode("utf-8").splitlines()]
    table = pd.read_parquet(io.BytesIO(export(rows, "parquet")))
    for records in (lines, table.astype(object).where(table.notna(), None).to_dict("records")):
        assert [record["text"] for record in records] == list(TEXTS.values())
        assert [record["current"] for record in records] == ["pos", "pos", "neg", "pos"]
        assert [record["annotator"] for record in records] == ["ann", None, "bob", None]
        assert list(records[0]) == ["example", "text", "original", "current", "annotator", "at", "note"]


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_events_come_out_with_all_fields(store, format):
    store.undo(store.history(DATA)[0].event_id, "bob")
    events = store.history(DATA)
    data = export(events, format)
    if format == "csv":
        records = read_csv(data)
    elif format == "jsonl":
        records = [json.loads(line) for line in data.decode("utf-8").splitlines()]
    else:
        table = pd.read_parquet(io.BytesIO(data))
        records = table.astype(object).where(table.notna(), None).to_dict("records")
    assert [int(record["seq"]) for record in records] == [event.seq for event in events]
    assert [record["verdict"] for record in records] == ["change", "skip", "confirm", "undo"]
    assert records[3]["undoes"] == events[0].event_id
    assert not records[0]["undoes"]


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_an_empty_export_has_columns_and_no_rows(format, tmp_path):
    path = tmp_path / f"empty.{format}"
    path.write_bytes(export([], format))
    assert read_import(path, NAMES) == ([], [])


def test_an_unknown_format_is_refused():
    with pytest.raises(UserError, match="'xlsx' is not one of csv, jsonl, parquet"):
        export([], "xlsx")


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_exported_labels_can_be_read_back_into_another_store(store, tmp_path, format):
    path = tmp_path / f"labels.{format}"
    path.write_bytes(export(current_labels(store, DATA, ROWS), format))
    changes, problems = read_import(path, NAMES)
    assert problems == []
    assert {change.example: change.label for change in changes} == {"r0": "pos", "r1": "pos", "-2": "neg", "r3": "pos"}
    assert changes[0].note == "@mention"
    other = LabelStore(f"sqlite:///{tmp_path / 'other.sqlite'}")
    options = {"workspace": "w", "data_fingerprint": DATA, "originals": ORIGINALS, "annotator": "carol"}
    assert apply_import(other, changes, **options) == {"changed": 1, "unchanged": 3, "conflicts": 0, "unknown": 0}
    assert other.current(DATA) == store.current(DATA)
    assert apply_import(other, changes, **options) == {"changed": 0, "unchanged": 4, "conflicts": 0, "unknown": 0}
    assert len(other.history(DATA)) == 1


def test_problems_carry_the_line_an_editor_shows(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(
        'example,label,note\nr0,pos,"a\nb"\nr9,pos,\nr1,maybe,\n\n"\'-2",pos,\nr0,neg,\n,pos,\nr3,pos,x,y\n'
    )
    changes, problems = read_import(path, NAMES)
    assert [(change.line, change.example, change.label, change.note) for change in changes] == [
        (2, "r0", "pos", "a\nb"),
        (4, "r9", "pos", ""),  # whether it is in the data, `apply_import` says
        (7, "-2", "pos", ""),
    ]
    assert [problem.line for problem in problems] == [5, 8, 9, 10]
    for problem, words in zip(
        problems,
        ["'maybe' is not one of neg, pos", "on line 2 already", "empty", "4 cells"],
        strict=True,
    ):
        assert words in problem.message


def test_jsonl_problems_and_numbers_as_ids(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text('{"example": 7, "label": "pos"}\n{"example": "r0"\n[1]\n{"example": true, "label": "pos"}\n')
    changes, problems = read_import(path, NAMES)
    assert changes == [ImportedLabel(1, "7", "pos")]
    assert [problem.line for problem in problems] == [2, 3, 4]
    assert "not JSON" in problems[0].message
    assert "not a JSON object" in problems[1].message
    assert "True, not text" in problems[2].message


def test_parquet_with_numbers_as_ids(tmp_path):
    path = tmp_path / "labels.parquet"
    pd.DataFrame({"example": [7, 8], "label": ["pos", None]}).to_parquet(path)
    changes, problems = read_import(path, NAMES)
    assert changes == [ImportedLabel(1, "7", "pos")]
    assert problems == [ImportProblem(2, "label is empty")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", b"", "not .csv, .jsonl or .parquet"),
        ("a.csv", b"example,text\nr0,x\n", "needs the columns example and label, it has: example, text"),
        ("a.csv", b"", "it has: none"),
        ("a.csv", b'example,label\n"r0,pos\n', "line 2 is not CSV"),
        ("a.csv", b"example,label\nr0,\xff\n", "not UTF-8 at byte 17"),
        ("a.parquet", b"PAR0", "not Parquet"),
        ("missing.csv", None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_import(path, NAMES)
    assert "\n" not in str(caught.value)


def test_a_dry_run_counts_and_writes_nothing_and_a_bad_file_changes_nothing(store, tmp_path):
    path = tmp_path / "labels.csv"
    rows = ["r0,neg,pos", "r1,pos,neg", "-2,pos,pos", "r3,neg,", "r9,neg,"]
    path.write_text("\n".join(["example,label,expect", *rows]))
    changes, problems = read_import(path, NAMES)
    options = {"workspace": "w", "data_fingerprint": DATA, "originals": ORIGINALS, "annotator": "carol"}
    before = store.history(DATA)
    counts = apply_import(store, changes, problems, dry_run=True, **options)
    # r0 and r3 change; r1 is pos already, whatever the file expects; -2 is neg, the file expects pos; r9 is unknown
    assert counts == {"changed": 2, "unchanged": 1, "conflicts": 1, "unknown": 1}
    with pytest.raises(UserError, match=r"1 of 5 rows cannot be used, first on line 6: example 'r9'"):
        apply_import(store, changes, problems, **options)
    known = [change for change in changes if change.example in ORIGINALS]
    with pytest.raises(LabelConflict, match=r"1 of 4 rows conflict, first on line 4: .*'-2' is 'neg' now.*'pos'"):
        apply_import(store, known, **options)
    assert store.history(DATA) == before
    kept = [change for change in known if change.example != "-2"]
    assert apply_import(store, kept, **options) == {"changed": 2, "unchanged": 1, "conflicts": 0, "unknown": 0}
    new = store.history(DATA)[len(before) :]
    assert [(e.example, e.old, e.new, e.annotator, e.source) for e in new] == [
        ("r0", "pos", "neg", "carol", "import"),
        ("r3", "pos", "neg", "carol", "import"),
    ]
