import io
import json
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from checkpoints import sentences
from datasets import ClassLabel, DatasetDict, Features, Image, Value
from datasets import Dataset as Saved
from opening_data import look, png, read, rows, write_idx
from PIL import Image as Picture

from influence_core.data import hub
from influence_core.errors import UserError

TEN = tuple(f"c{number}" for number in range(10))


@pytest.fixture
def frame() -> pd.DataFrame:
    return sentences(23, seed=4)


def write_formats(folder, frame) -> dict[str, object]:
    frame.to_csv(folder / "a.csv", index=False)
    frame.to_csv(folder / "a.tsv", index=False, sep="\t")
    frame.to_json(folder / "a.jsonl", orient="records", lines=True)
    frame.to_parquet(folder / "a.parquet", index=False)
    Saved.from_pandas(frame).save_to_disk(folder / "a")
    return {kind: folder / f"a{kind}" for kind in (".csv", ".tsv", ".jsonl", ".parquet", "")}


@pytest.mark.parametrize("own_ids", [True, False])
def test_every_format_gives_the_same_rows(tmp_path, frame, own_ids):
    given = frame if own_ids else frame.drop(columns="id")
    files = write_formats(tmp_path, given)
    found = {kind: read(tmp_path / f"of{kind}", file) for kind, file in files.items()}
    expected = rows(found[".csv"])
    assert [row[2] for row in expected if row[0] == "train"] == [t for n, t in enumerate(frame["text"]) if n % 5 != 4]
    assert [row[2] for row in expected if row[0] == "test"] == list(frame["text"][4::5])
    if own_ids:
        assert {row[1] for row in expected} == set(frame["id"])
    assert len(expected) == 23
    for dataset in found.values():
        assert rows(dataset) == expected
        assert dataset.fingerprint == found[".csv"].fingerprint


def test_cells_are_kept_as_they_are_written(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(
        'id,text,label\n001,NA,yes\n1,None,no\n1e3,"null,\nand ""void""",no\n\n2.0, padded ,yes\n5," ü",no\n'
    )
    found = read(tmp_path, path, ("no", "yes"))
    assert [row[1] for row in rows(found)] == ["001", "1", "1e3", "2.0", "5"]
    assert [row[2] for row in rows(found)] == ["NA", "None", 'null,\nand "void"', " padded ", " ü"]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbftext,label\r\n" + b"a fine film,positive\r\n" * 5)
    assert look(path).found.columns == ("text", "label")
    path.write_text("text,label\na fine film,positive\n", encoding="utf-16")
    with pytest.raises(UserError, match="UTF-16"):
        look(path)


def test_rows_read_in_tables_are_all_read(tmp_path):
    texts = [f"text number {number}" for number in range(2500)]  # more than a table holds
    pd.DataFrame({"text": texts, "label": [0, 1] * 1250}).to_parquet(tmp_path / "a.parquet", row_group_size=700)
    found = read(tmp_path, tmp_path / "a.parquet", test=tmp_path / "a.parquet")
    assert list(found.splits["train"]["text"]) == texts
    assert list(found.splits["train"]["label"]) == [0, 1] * 1250


def test_parquet_keeps_the_class_names_that_the_library_wrote(tmp_path):
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    Saved.from_dict({"sentence": ["a film"] * 5, "label": [1, 0, 1, 1, 0]}, features).to_parquet(tmp_path / "a.parquet")
    found = look(tmp_path / "a.parquet", ("good", "bad"))  # by name, though the numbers differ
    assert found.found.matched == "name"
    assert found.found.labels == {"bad": 2, "good": 3}
    assert read(tmp_path, tmp_path / "a.parquet", ("good", "bad")).splits["train"]["label"].tolist() == [0, 1, 0, 0]


def saved_splits() -> DatasetDict:
    features = Features(
        {"idx": Value("int32"), "sentence": Value("string"), "label": ClassLabel(names=["bad", "good"])}
    )

    def part(count, first, label):
        texts = [f"sentence {first + number}" for number in range(count)]
        return Saved.from_dict({"idx": list(range(count)), "sentence": texts, "label": [label] * count}, features)

    return DatasetDict({"train": part(8, 0, 1), "validation": part(4, 100, 0), "test": part(3, 200, -1)})


def test_hub_splits_are_chosen_by_their_own_names(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr("datasets.load_dataset", lambda path, **fields: asked.update(fields) or saved_splits())
    as_is = look("nyu-mll/glue", ("bad", "good"), configuration="sst2", data_revision="abc", drop_broken=True)
    assert asked == {"name": "sst2", "revision": "abc"}
    assert as_is.found.splits["test"].rows == 0  # all labels are -1
    assert "no row of test can be used (first: test, row 1: label '-1' is none of the classes)" in as_is.problems[0]
    found = read(tmp_path, "nyu-mll/glue", ("bad", "good"), configuration="sst2", test="validation")
    assert {split: len(part) for split, part in found.splits.items()} == {"train": 8, "test": 4}  # and used once
    assert found.name == "nyu-mll-glue"
    assert list(found.splits["test"]["text"]) == [f"sentence {number}" for number in range(100, 104)]
    assert list(found.splits["test"]["id"]) == [f"test-{number}" for number in range(4)]  # idx stands in both
    swapped = look("nyu-mll/glue", ("bad", "good"), train="validation", validation="train", test="train")
    assert {split: part.rows for split, part in swapped.found.splits.items()} == {
        "train": 4,
        "validation": 8,
        "test": 8,
    }
    with pytest.raises(UserError, match=r"no split 'dev' \(it has train, validation, test\), and no file"):
        look("nyu-mll/glue", ("bad", "good"), test="dev")
    with pytest.raises(UserError, match=r"no split 'dev' \(it has train, validation, test\)"):
        look("nyu-mll/glue", ("bad", "good"), train="dev")


def test_saved_folders_are_read_like_the_hub(tmp_path):
    saved_splits().save_to_disk(tmp_path / "saved")
    found = read(tmp_path, tmp_path / "saved", ("bad", "good"), test="validation")
    assert {split: len(part) for split, part in found.splits.items()} == {"train": 8, "test": 4}
    assert found.splits["train"]["label"].tolist() == [1] * 8
    (tmp_path / "saved" / "train" / "state.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as a saved data set") as caught:
        look(tmp_path / "saved", ("bad", "good"))
    assert "\n" not in str(caught.value)


def test_saved_rows_that_were_shuffled_and_selected_keep_that_order(tmp_path):
    saved = saved_splits()["train"].select([5, 1, 3, 0, 2])
    saved.save_to_disk(tmp_path / "saved")
    found = read(tmp_path, tmp_path / "saved", ("bad", "good"), test=tmp_path / "saved")
    assert list(found.splits["train"]["text"]) == [f"sentence {number}" for number in (5, 1, 3, 0, 2)]


def test_offline_is_one_line(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(UserError, match="could not fetch the dataset 'stanfordnlp/sst2'") as caught:
        look("stanfordnlp/sst2")
    assert "\n" not in str(caught.value)
    assert "local path" in str(caught.value)


def test_what_could_be_a_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "data").mkdir(parents=True)
    assert hub.looks_like_hub_name("someone/tiny")
    for other in (
        "mine/data",
        "a\0/b",
        "a" * 5000 + "/b",
        "reviews/rows.csv",
        "/abs/path",
        "./a",
        "one",
        "a/b/c",
        "a/",
    ):
        assert not hub.looks_like_hub_name(other)


def image_rows() -> tuple[list[bytes], list[int]]:
    return [png(seed) for seed in range(12)], [0, 1] * 6


def test_images_from_tables_and_folders_are_the_same_bytes(tmp_path):
    images, labels = image_rows()
    features = Features({"img": Image(), "label": ClassLabel(names=["cat", "dog"])})
    cells = [{"bytes": image, "path": None} for image in images]
    saved = Saved.from_dict({"img": cells, "label": labels}, features)
    saved.save_to_disk(tmp_path / "saved")
    saved.to_parquet(tmp_path / "a.parquet")
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = tmp_path / "pictures" / ("cat", "dog")[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:02d}.png").write_bytes(image)
    found = [
        read(tmp_path / f"of-{name}", tmp_path / name, ("dog", "cat"), "image", test=tmp_path / name)
        for name in ("saved", "a.parquet", "pictures")
    ]
    for dataset in found:
        assert dataset.modality == "image"
        assert {(content, label) for _, _, content, label in rows(dataset)} == {
            (image, 1 - label) for image, label in zip(images, labels, strict=True)
        }
    assert list(found[0].splits["train"]["image"]) == images
    assert {row[1] for row in rows(found[0])} == {row[1] for row in rows(found[2])}  # ids follow from the bytes


def test_an_image_that_a_table_only_points_at_is_read_from_its_own_folder_alone(tmp_path):
    outside = tmp_path / "outside.png"
    outside.write_bytes(png(99))
    features = Features({"image": {"bytes": Value("binary"), "path": Value("string")}, "label": Value("int64")})
    paths = ["inside.png", str(outside), "../outside.png", "inside.png", "inside.png"]
    cells = [{"bytes": None, "path": path} for path in paths]
    Saved.from_dict({"image": cells, "label": [0, 1, 1, 1, 1]}, features).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "inside.png").write_bytes(png(1))
    found = look(tmp_path / "saved", ("a", "b"), "image").found
    assert [(row.position, row.reason) for row in found.broken] == [
        ("saved, row 2", "the image is given as a path, not as the image itself"),
        ("saved, row 3", "the image is given as a path, not as the image itself"),
    ]


def test_image_folders_with_splits(tmp_path):
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for number, label in enumerate(("cat", "dog")):
            for index in range(count):
                file = tmp_path / "data" / split / label / "deeper" / f"{index}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(png(100 * number + 10 * len(split) + index))
    (tmp_path / "data" / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    found = look(tmp_path / "data", ("LABEL_0", "LABEL_1"), "image")
    assert {split: part.rows for split, part in found.found.splits.items()} == {"train": 6, "validation": 4, "test": 2}
    assert found.label_names == ("cat", "dog")
    assert found.found.matched == "number"
    assert found.found.columns == ()
    assert found.found.sample[0] == ("train/cat/deeper/0.png", "cat")
    assert not found.problems


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files(tmp_path, packed):
    draw = np.random.default_rng(0)
    pixels, labels = draw.integers(0, 256, (7, 5, 4)), np.array([3, 1, 4, 1, 5, 9, 2])
    more = draw.integers(0, 256, (3, 5, 4))
    file = write_idx(tmp_path / "idx", "train", pixels, labels, packed)
    write_idx(tmp_path / "idx", "t10k", more, labels[:3], packed)
    found = read(tmp_path / "folder", tmp_path / "idx", TEN, "image")
    for split, expected, own in (("train", pixels, labels), ("test", more, labels[:3])):
        part = found.splits[split]
        assert part["label"].tolist() == own.tolist()
        for content, each in zip(part["image"], expected, strict=True):
            np.testing.assert_array_equal(np.asarray(Picture.open(io.BytesIO(content))), each)
    other = read(tmp_path / "file", file, TEN, "image", test=tmp_path / "idx")
    assert other.fingerprint == found.fingerprint


def test_idx_files_that_do_not_fit(tmp_path):
    file = write_idx(tmp_path, "train", np.zeros((4, 2, 2)), np.zeros(4))
    labels = tmp_path / "train-labels-idx1-ubyte"
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    with pytest.raises(UserError, match="train-images-idx3-ubyte ends too early"):
        look(tmp_path, TEN, "image")
    file.write_bytes(struct.pack(">4I", 0x803, 4, 2**31, 2**31))
    with pytest.raises(UserError, match=r"images of \d+ × \d+ pixels"):
        look(tmp_path, TEN, "image")
    file.write_bytes(b"\0" * 20)
    with pytest.raises(UserError, match="begins with 0x0, not 0x803"):
        look(tmp_path, TEN, "image")
    file.write_bytes(whole)
    labels.write_bytes(struct.pack(">2I", 0x801, 3) + b"\0\0\0")
    with pytest.raises(UserError, match=r"4 images, .* 3 labels"):
        look(tmp_path, TEN, "image")
    labels.unlink()
    with pytest.raises(UserError, match="no train-labels-idx1-ubyte"):
        look(file, TEN, "image")


def test_a_folder_of_split_files(tmp_path, frame):
    (tmp_path / "of").mkdir()
    frame.to_csv(tmp_path / "of" / "train.csv", index=False)
    frame[:5].to_parquet(tmp_path / "of" / "test-00000-of-00001.parquet")
    found = read(tmp_path, tmp_path / "of")
    assert {split: len(part) for split, part in found.splits.items()} == {"train": 23, "test": 5}
    frame.to_json(tmp_path / "of" / "train.jsonl", orient="records", lines=True)
    with pytest.raises(UserError, match=r"has train\.csv, train\.jsonl for train"):
        look(tmp_path / "of")


def test_a_split_in_several_files_as_the_hub_keeps_it(tmp_path):
    place = tmp_path / "repository" / "data"
    place.mkdir(parents=True)
    whole = saved_splits()
    for number in range(2):
        whole["train"].shard(2, number, contiguous=True).to_parquet(place / f"train-{number:05}-of-00002.parquet")
    whole["validation"].to_parquet(place / "validation-00000-of-00001.parquet")
    found = read(tmp_path, tmp_path / "repository", ("LABEL_0", "LABEL_1"), test="validation")
    assert found.label_names == ("bad", "good")
    assert list(found.splits["train"]["text"]) == [f"sentence {number}" for number in range(8)]
    whole["test"].to_parquet(place / "train-00001-of-00002.parquet")
    broken = look(tmp_path / "repository", ("bad", "good")).found.broken
    assert [row.position for row in broken] == [f"train-00001-of-00002.parquet, row {row}" for row in (1, 2, 3)]
    (place / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(UserError, match="for train: leave one, or all parts"):
        look(tmp_path / "repository", ("bad", "good"))
    (place / "train-00002-of-00003.parquet").write_bytes((place / "train-00001-of-00002.parquet").read_bytes())
    with pytest.raises(UserError, match="for train: leave one, or all parts"):
        look(tmp_path / "repository", ("bad", "good"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xls", b"x", r"ends in '\.xls'"),
        ("a.csv", b"", "cannot be read .*it is empty"),
        ("a.csv", b"text,label\n", "has no rows"),
        ("a.csv", b"t\xe9xt,label\na b c,positive\n", "a column whose name is not UTF-8"),
        ("a.jsonl", b"", "has no rows"),
        ("a.parquet", b"PAR1 not really", r"a\.parquet cannot be read"),
    ],
)
def test_files_that_cannot_be_looked_at(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        look(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_places_that_hold_no_data(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.csv is missing"):
        look(tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match="holds no data"):
        look(tmp_path)
    for text in ("a\0b", "a" * 5000, "~nobody-of-this-name/a.csv"):
        with pytest.raises(UserError, match=r"is no path|is missing"):
            look(text)


def test_data_of_the_other_modality(tmp_path, frame):
    frame.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(UserError, match=r"a\.csv has no images, but the checkpoint reads images"):
        look(tmp_path / "a.csv", modality="image")
    (tmp_path / "pictures" / "cat").mkdir(parents=True)
    (tmp_path / "pictures" / "cat" / "1.png").write_bytes(png(1))
    with pytest.raises(UserError, match="pictures has images, but the checkpoint reads text"):
        look(tmp_path / "pictures")
    with pytest.raises(UserError, match="has no columns, but label_column is 'x'"):
        look(tmp_path / "pictures", modality="image", label_column="x")
    features = Features({"image": Image(), "label": Value("int64")})
    Saved.from_dict({"image": [{"bytes": png(1), "path": None}], "label": [0]}, features).to_parquet(
        tmp_path / "a.parquet"
    )
    with pytest.raises(UserError, match="has images, but the checkpoint reads text"):
        look(tmp_path / "a.parquet")


def test_columns_are_guessed_by_name_then_by_values_and_the_choice_wins(tmp_path):
    kinds = ["plot", "cast"] * 6
    table = pd.DataFrame(
        {
            "number": range(12),
            "title": [f"film {n}" for n in range(12)],
            "words": [f"what somebody wrote about film {n}" for n in range(12)],
            "kind": kinds,
            "Verdict": ["negative", "positive", "positive"] * 4,
        }
    )
    table.to_csv(tmp_path / "a.csv", index=False)
    found = look(tmp_path / "a.csv").found
    assert (found.input_column, found.label_column, found.id_column) == ("words", "Verdict", None)
    assert found.columns == ("number", "title", "words", "kind", "Verdict")
    chosen = look(tmp_path / "a.csv", ("cast", "plot"), text_column="title", label_column="kind", id_column="number")
    assert (chosen.found.input_column, chosen.found.label_column) == ("title", "kind")
    assert (chosen.found.id_column, chosen.found.labels) == ("number", {"cast": 6, "plot": 6})
    table.rename(columns={"words": "Text", "kind": "label"}).to_csv(tmp_path / "b.csv", index=False)
    found = look(tmp_path / "b.csv").found
    assert (found.input_column, found.label_column) == ("Text", "label")
    with pytest.raises(UserError, match="has no column 'nothing': its columns are number, title"):
        look(tmp_path / "a.csv", text_column="nothing")
    (tmp_path / "c.csv").write_text("words,label\ngood,positive\n")
    with pytest.raises(UserError, match="no text column among words, label"):
        look(tmp_path / "c.csv")
    (tmp_path / "d.csv").write_text("text,number\n" + "".join(f"a film,{n}\n" for n in range(9)))
    with pytest.raises(UserError, match="no label column among text, number"):
        look(tmp_path / "d.csv")


def test_the_other_splits_have_the_training_splits_columns(tmp_path):
    (tmp_path / "a.csv").write_text("words,label\n" + "one long sentence,positive\n" * 5)
    (tmp_path / "b.csv").write_text("remarks,words,label\n" + "a remark longer than the sentence,words,positive\n")
    assert read(tmp_path, tmp_path / "a.csv", test=tmp_path / "b.csv").splits["test"]["text"].tolist() == ["words"]


def renamed(file: Path, *path: str | int, name: str) -> None:
    """Put another name into a JSON file."""
    about = place = json.loads(file.read_text())
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = name
    file.write_text(json.dumps(about))


@pytest.mark.parametrize("where", ["dataset_dict.json", "train/state.json", "state.json", "link"])
def test_a_saved_folder_that_leads_out_of_itself_is_refused(tmp_path, where):
    secret, saved = tmp_path / "secret", tmp_path / "saved"
    saved_splits()["train"].save_to_disk(secret)
    (saved_splits()["train"] if where == "state.json" else saved_splits()).save_to_disk(saved)
    arrow = "data-00000-of-00001.arrow"
    if where == "link":
        (saved / "train" / arrow).unlink()
        (saved / "train" / arrow).symlink_to(secret / arrow)
    elif where == "dataset_dict.json":
        renamed(saved / where, "splits", 0, name="../secret")
    else:
        outside = f"{'../' * (where.count('/') + 1)}secret/{arrow}"
        renamed(saved / where, "_data_files", 0, "filename", name=outside)
    with pytest.raises(UserError, match=r"leads out of|no plain file name") as caught:
        look(saved, ("bad", "good"))
    assert "\n" not in str(caught.value)


def test_a_saved_folder_with_two_kinds_of_state_hides_no_path(tmp_path):
    secret, saved = tmp_path / "secret", tmp_path / "saved"
    saved_splits()["train"].save_to_disk(secret)
    saved_splits().save_to_disk(saved)  # the library reads a folder with both as one split
    for name in ("state.json", "dataset_info.json"):
        (saved / name).write_text((secret / name).read_text())
    renamed(saved / "state.json", "_data_files", 0, "filename", name="../secret/data-00000-of-00001.arrow")
    with pytest.raises(UserError, match="no plain file name"):
        look(saved, ("bad", "good"))
