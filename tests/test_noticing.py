"""What a look tells of data that can be used nonetheless, and of columns that cannot."""

import pandas as pd
import pytest
from opening_data import look, png, read

from influence_core.cli.survey import words
from influence_core.errors import UserError
from influence_core.survey import CheckpointFound, Survey


def csv(path, text):
    path.write_text(text)
    return path


def test_files_that_are_no_images_are_counted_once_and_are_no_rows(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(4):
            (tmp_path / label / f"{number}.png").write_bytes(png(number + 10 * len(label)))
    assert look(tmp_path, ("cat", "dog"), "image").found.notes == ()
    (tmp_path / "dog" / "notes.txt").write_text("good boy")
    found = look(tmp_path, ("cat", "dog"), "image").found
    assert found.notes == (f"1 file is no image and passed over in {tmp_path} (first: dog/notes.txt).",)
    assert (found.broken, found.labels) == ((), {"cat": 4, "dog": 4})
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (tmp_path / "cat" / "bad.jpg").write_text("an image by its name alone")
    (tmp_path / "cat" / "7f3a").write_bytes(png(99))  # an image by its beginning alone
    found = look(tmp_path, ("cat", "dog"), "image").found
    assert found.notes == (f"2 files are no images and passed over in {tmp_path} (first: cat/Thumbs.db).",)
    assert [row.position for row in found.broken] == ["cat/bad.jpg"]
    assert found.labels == {"cat": 6, "dog": 4}


def test_ids_that_repeat_are_said_to_be_made(tmp_path):
    rows = "id,text,label\n" + "".join(f"{n},a text number {n},positive\n" for n in range(6))
    assert look(csv(tmp_path / "a.csv", rows)).found.notes == ()
    found = look(csv(tmp_path / "b.csv", rows + "1,one more,negative\n")).found
    assert found.id_column is None
    assert found.notes == ("Ids are made from the contents: the column 'id' of b.csv repeats or is mostly empty.",)


@pytest.mark.parametrize("classes", [("negative", "positive"), ()])
def test_a_header_that_looks_like_a_row_is_noticed(tmp_path, classes):
    rows = "what a fine film,positive\na dull film,negative\nanother fine film,positive\na fine one,positive\n"
    found = look(csv(tmp_path / "a.csv", rows), classes, text_column="what a fine film", label_column="positive").found
    (note,) = found.notes
    assert note.startswith(
        "The header of a.csv looks like a row: its label column is called 'positive', as a class is."
    )
    assert look(csv(tmp_path / "b.csv", f"text,label\n{rows}"), classes).found.notes == ()


def test_notes_are_printed(tmp_path):
    data = look(csv(tmp_path / "a.csv", "id,text,label\n" + "1,fine,positive\n" * 6)).found
    model = CheckpointFound(path="m", kind="text", family="bert", classes=("negative", "positive"), parameters=1)
    survey = Survey(checkpoints=(model,), data=data, label_names=model.classes, problems=())
    assert f"  {data.notes[0]}" in list(words(survey))


def test_one_column_cannot_be_input_and_label(tmp_path):
    rows = "".join(f"film {number},{('negative', 'positive')[number % 2]}\n" for number in range(9))
    path = csv(tmp_path / "a.csv", f"text,label\n{rows}")
    with pytest.raises(UserError, match="the column 'text' is asked for as text and as label: choose two columns"):
        look(path, text_column="text", label_column="text")
    with pytest.raises(UserError, match="has no label column but 'label', which is read as the input: choose other"):
        look(path, text_column="label")
    pd.DataFrame({"image": [png(0)], "label": ["positive"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="the column 'image' is asked for as image and as label"):
        look(tmp_path / "a.parquet", modality="image", image_column="image", label_column="image")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "text;label\nfine;positive\n", "'text;label', with semicolons in its name: save it with commas"),
        ("a.csv", "text\tlabel\nfine\tpositive\n", "with tabs in its name: save it with commas"),
        ("a.tsv", "text,label\nfine,positive\n", "with commas in its name: save it with tabs"),
    ],
)
def test_cells_between_other_signs_are_recognised(tmp_path, name, text, said):
    with pytest.raises(UserError, match=f"{name} has one column, .*{said}"):
        look(csv(tmp_path / name, text))


def test_a_semicolon_in_one_of_two_names_is_a_name(tmp_path):
    path = csv(tmp_path / "a.csv", "text;own,label\nfine film,positive\ndull film,negative\n" * 1)
    found = read(tmp_path, path, text_column="text;own", test=path)
    assert list(found.splits["train"]["text"]) == ["fine film", "dull film"]
