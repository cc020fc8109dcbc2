"""Rows that cannot be used: each is listed with its position and why, the others are read."""

import io
import json
import os
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opening_data import look, png, read
from PIL import Image

from influence_core.data.delimited import SPAN, Delimited
from influence_core.data.lines import LIMIT
from influence_core.data.pictures import FORMATS, decode
from influence_core.errors import UserError

GOOD = b"a fine film,positive\na poor film,negative\n" * 100


def broken(found) -> list[tuple[str, str]]:
    return [(row.position, row.reason) for row in found.found.broken]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b",positive", "the text is empty"),
        (b'"  ",positive', "the text is empty"),
        (b"nul \0 byte,positive", "the text has a NUL byte (character 5)"),
        (b"caf\xe9 noir,positive", "the text is not UTF-8 (byte 0xe9 at character 4)"),
        (b"a film,positiv\xe9", "the label is not UTF-8 (byte 0xe9 at character 8)"),
        (b"a film,", "the label is missing"),
        (b"a film,sideways", "label 'sideways' is none of the classes"),
        (b"a film,-1", "label '-1' is none of the classes"),
        (b"a film,7", "label '7' is none of the classes"),
        (b"a film,positive,more", "it has 3 cells, the header has 2"),
        (b"a film", "it has 1 cells, the header has 2"),
        (b'"never closed,positive', "a quotation mark is opened and not closed"),
        (b"x" * (LIMIT + 1) + b",positive", "the line is longer than 10 MB"),
    ],
)
def test_a_broken_line_of_a_csv_costs_itself_alone(tmp_path, line, reason):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text,label\n" + GOOD + line + b"\n" + GOOD)
    found = look(path)
    assert broken(found) == [("rows.csv, row 201", reason)]
    assert found.found.splits["train"].rows + found.found.splits["test"].rows == 400
    assert found.problems == (f"1 row cannot be used (first: rows.csv, row 201: {reason}): drop them, or fix the data",)
    kept = read(tmp_path, path, drop_broken=True)
    assert sum(map(len, kept.splits.values())) == 400
    assert kept.notes["dropped"] == 1
    assert set(kept.splits["train"]["text"]) == {"a fine film", "a poor film"}


def test_rows_are_not_dropped_unless_told(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b"text,label\n" + GOOD + b",positive\n")
    with pytest.raises(UserError, match=r"1 row cannot be used \(first: rows.csv, row 201: the text is empty\)"):
        read(tmp_path, tmp_path / "rows.csv")


def test_a_quotation_mark_open_before_a_line_that_is_too_long_or_at_the_end(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'text,label\n"open,positive\n' + b"x" * (LIMIT + 1) + b"\n" + GOOD + b'"open,positive\na "b"')
    found = broken(look(path))
    assert [position for position, _ in found] == [f"rows.csv, row {row}" for row in (1, 2, 203, 204)]
    assert [reason.split()[0] for _, reason in found] == ["a", "the", "a", "it"]


def test_a_quoted_cell_may_span_lines_but_not_the_rest_of_the_file(tmp_path):
    path = tmp_path / "rows.csv"
    long = "\n".join(f"line {number}" for number in range(SPAN - 10))
    path.write_text(f'text,label\n"{long}",positive\n' + "a film,negative\n" * 4)
    assert read(tmp_path, path).splits["train"]["text"][0] == long
    path.write_text('text,label\n"' + "a film,negative\n" * (3 * SPAN))
    found = look(path)
    assert broken(found) == [("rows.csv, row 1", "a quotation mark is opened and not closed")]
    assert found.found.labels == {"negative": 3 * SPAN - 1}


@given(st.lists(st.sampled_from(['"', ",", "\n", "\r", "a", "\0", "\udce9", ""]), max_size=60))
def test_no_file_makes_the_csv_reader_fail_or_lose_a_line(tmp_path_factory, parts):
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    body = "".join(parts)
    path.write_bytes(b"text,label\n" + body.encode("utf-8", "surrogateescape") + b"\nlast,row\n")
    records = list(Delimited(path, ",")._records())[1:]
    assert records[-1] == ["last", "row"] or '"' in body or "\r" in body
    text = "".join("".join(each) if isinstance(each, list) else each.shown for each in records)
    assert text.count("a") == body.count("a") + "last".count("a")  # every letter is in one row, good or broken


def test_broken_lines_of_json_lines(tmp_path):
    good = json.dumps({"text": "a fine film", "label": "positive"})
    bad = {
        "[1, 2]": "the line is a list, not an object",
        '"text"': "the line is a str, not an object",
        '{"text": ': "the line is not JSON (Expecting value",
        "[" * 100_000: "the line is not JSON (RecursionError)",
        '{"text": "a film"}': "the label is missing",
        '{"text": null, "label": 1}': "the text is empty",
        '{"text": ["a"], "label": 1}': "the text is a list",
        '{"text": "a", "label": {"a": 1}}': "the label is a dict",
        '{"text": "half \\ud83d pair", "label": 1}': "the text is not UTF-8 (the lone surrogate U+D83D at character 6)",
    }
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([good] * 50 + ["", *bad] + [good] * 50))
    found = look(path)
    assert [position for position, _ in broken(found)] == [f"rows.jsonl, row {51 + n}" for n in range(len(bad))]
    for (_, reason), expected in zip(broken(found), bad.values(), strict=True):
        assert reason.startswith(expected)
    found.found.model_dump_json()  # nothing in it that no file takes


def test_texts_in_parquet_that_are_not_utf8(tmp_path):
    texts = pa.array([b"good film", b"caf\xe9", None, b"bad film"] + [b"film"] * 30, pa.binary()).cast(
        pa.string(), safe=False
    )
    texts = pa.Array.from_buffers(pa.string(), len(texts), texts.buffers(), texts.null_count)
    table = pa.table({"text": texts, "label": pa.array([0, 1, 1, 1] + [0] * 30)})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False)
    assert broken(look(tmp_path / "a.parquet")) == [
        ("a.parquet, row 2", "the text is not UTF-8 (byte 0xe9 at character 4)"),
        ("a.parquet, row 3", "the text is empty"),
    ]


def test_images_that_cannot_be_read(tmp_path):
    whole = png(0, side=40)
    for number in range(8):
        (tmp_path / "cat").mkdir(exist_ok=True)
        (tmp_path / "cat" / f"{number}.png").write_bytes(png(number))
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "0-empty.png").write_bytes(b"")
    (tmp_path / "dog" / "1-cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "dog" / "2-text.png").write_text("not an image")
    os.mkfifo(tmp_path / "dog" / "3-pipe.png")
    (tmp_path / "dog" / "4-gone.png").symlink_to(tmp_path / "nowhere.png")
    with (tmp_path / "dog" / "5-vast.png").open("wb") as file:
        file.truncate(10**12)
    (tmp_path / "dog" / "6-good.png").write_bytes(png(50))
    found = look(tmp_path, ("cat", "dog"), "image")
    reasons = dict(broken(found))
    assert list(reasons) == [
        "dog/0-empty.png", "dog/1-cut.png", "dog/2-text.png", "dog/3-pipe.png", "dog/4-gone.png", "dog/5-vast.png",
    ]  # fmt: skip
    assert reasons["dog/0-empty.png"] == "the image is empty"
    assert reasons["dog/1-cut.png"].startswith("the image cannot be read (")
    assert reasons["dog/2-text.png"] == "the image cannot be read (cannot identify image file)"
    assert reasons["dog/3-pipe.png"] == reasons["dog/4-gone.png"] == "it is not a plain file"
    assert reasons["dog/5-vast.png"] == "the file has 1,000,000,000,000 bytes, at most 50,000,000 are read"
    kept = read(tmp_path / "out", tmp_path, ("cat", "dog"), "image", drop_broken=True)
    assert sum(map(len, kept.splits.values())) == 9


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_line_of_200_mb_is_passed_over_and_never_held(tmp_path, ending):
    path = tmp_path / f"rows.{ending}"
    head, row = {
        "csv": (b"text,label\n", b"a fine film,positive\n"),
        "jsonl": (b"", b'{"text": "a fine film", "label": "positive"}\n'),
    }[ending]
    with path.open("wb") as file:
        file.write(head + row * 50)
        file.seek(200_000_000, os.SEEK_CUR)  # a hole: zeros that take no room on the disk
        file.write(b"\n" + row * 50)
    tracemalloc.start()
    try:
        found = look(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert broken(found) == [(f"rows.{ending}, row 51", "the line is longer than 10 MB")]
    assert sum(each.rows for each in found.found.splits.values()) == 100
    assert peak < 50_000_000


def test_all_are_counted_the_first_200_are_kept(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,label\n" + GOOD + b",positive\n" * 300)
    found = look(tmp_path / "a.csv")
    assert found.found.splits["train"].broken == 300
    assert len(found.found.broken) == 200
    assert "300 rows cannot be used" in found.problems[0]


def test_a_split_without_a_usable_row_is_a_problem_even_when_dropping(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,label\n" + GOOD)
    (tmp_path / "b.csv").write_bytes(b"text,label\n" + b",positive\n" * 9)
    found = look(tmp_path / "a.csv", test=tmp_path / "b.csv", drop_broken=True)
    assert found.problems == (
        "no row of test can be used (first: b.csv, row 1: the text is empty): choose another split or file",
    )


def test_ids_that_are_empty_or_stand_twice(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("id,text,label\na,good,positive\n  ,bad,negative\nb,bad,negative\n")
    assert broken(look(path)) == [("rows.csv, row 2", "the id is empty")]
    path.write_text("id,own,text,label\n" + "a,1,good,positive\na,2,bad,negative\n" + "a,3,x,positive\n" * 3)
    assert look(path, id_column=None).found.id_column is None  # a usual name, but no ids
    with pytest.raises(UserError, match="the id 'a' stands more than once"):
        look(path, id_column="id")


def test_a_column_of_numbers_is_no_label_column(tmp_path):
    pd.DataFrame({"text": "a film", "price": np.arange(10_001)}).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(UserError, match=r"'price' of .* more than 10,000 different values"):
        look(tmp_path / "a.csv", label_column="price")


def test_an_eps_called_png_is_refused_and_starts_no_program(tmp_path, monkeypatch):
    mark, programs = tmp_path / "ran", tmp_path / "bin"
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\ntouch {mark}\nexit 1\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # Pillow looks for it once
    body = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(UserError, match=r"the image x cannot be read \(cannot identify image file"):
        decode(body, "x")
    assert not mark.exists()


@pytest.mark.parametrize("format", FORMATS)
def test_the_usual_formats_are_read(format):
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 100, 50)).save(file, format)
    assert decode(file.getvalue(), "x").convert("RGB").size == (8, 6)
