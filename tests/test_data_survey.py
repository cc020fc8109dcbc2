"""A look at data, and what is written of them: ids, duplicates, leaks, the held-out rows."""

import hashlib
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opening_data import look, read, rows

from benchmarks import opening
from influence_core.data.dataset import Dataset
from influence_core.data.ids import Naming, content_hash, repeated, stable_ids
from influence_core.data.surveying import DataSurvey, survey_data
from influence_core.data.writing import write
from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.specs import OpenSpec
from influence_core.survey import SplitFound

words = st.lists(st.sampled_from(["a", "b", "c", "ü", "a longer text"]), max_size=12)


def plain_ids(texts: list[str], split: str) -> list[str]:
    """The same by a loop that keeps everything."""
    seen: Counter[str] = Counter()
    found = []
    for text in texts:
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        seen[digest] += 1
        found.append(f"{split}-{digest}" + (f"-{seen[digest]}" if seen[digest] > 1 else ""))
    return found


@given(words, st.randoms())
def test_ids_are_content_and_occurrence_whatever_the_order(texts, random):
    ids = stable_ids(texts, "train")
    assert ids == plain_ids(texts, "train")
    assert len(set(ids)) == len(texts)
    shuffled = list(texts)
    random.shuffle(shuffled)
    assert sorted(stable_ids(shuffled, "train")) == sorted(ids)


def test_contents_whose_ids_would_collide_are_counted_as_one():
    naming = Naming("train", repeated(np.array([5, 5, 6], dtype=np.uint64)))
    first, second, other = (naming.name(each) for each in (5 << 16 | 1, 5 << 16 | 2, 6 << 16))
    assert (second, other) == (f"{first}-2", "train-000000000006")


def table(texts, labels=None, **more) -> pd.DataFrame:
    return pd.DataFrame({"text": texts, "label": labels or ["positive"] * len(texts), **more})


@settings(max_examples=20)
@given(
    train=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=20),
    test=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=20),
)
def test_duplicates_and_leaks_are_counted(tmp_path_factory, train, test):
    place = tmp_path_factory.mktemp("leaks")
    for name, texts in (("a", train), ("b", test), ("c", test[::-1])):
        table([f"text {text}" for text in texts]).to_csv(place / f"{name}.csv", index=False)
    found = look(place / "a.csv", test=place / "b.csv", validation=place / "c.csv").found
    leaks = sum(text in train for text in test)
    again = len(test) - len(set(test))
    assert found.splits == {
        "train": SplitFound(rows=len(train), broken=0, duplicates=len(train) - len(set(train)), leaks=0),
        "validation": SplitFound(rows=len(test), broken=0, duplicates=again, leaks=leaks),
        "test": SplitFound(rows=len(test), broken=0, duplicates=again, leaks=leaks),
    }


def test_without_a_test_split_every_fifth_usable_row_is_held_out_and_counted_as_it_will_be(tmp_path):
    texts = ["", "a", "b", "c", "d", "a", "b", "c", "x", "e", "y"]  # the held-out rows are a and y
    table(texts).to_csv(tmp_path / "a.csv", index=False)
    surveyed = look(tmp_path / "a.csv", drop_broken=True)
    assert surveyed.found.held_out
    assert surveyed.found.splits == {
        "train": SplitFound(rows=8, broken=1, duplicates=2, leaks=0),
        "test": SplitFound(rows=2, broken=0, duplicates=0, leaks=1),
    }
    found = read(tmp_path, tmp_path / "a.csv", drop_broken=True)
    assert found.splits["test"]["text"].tolist() == ["a", "y"]
    assert found.splits["train"]["text"].tolist() == ["a", "b", "c", "d", "b", "c", "x", "e"]
    assert rows(found)[0][1] == plain_ids(["a"], "train")[0]
    assert found.splits["test"]["id"][0] == plain_ids(["a", "a"], "train")[1]  # named before it was held out
    assert found.notes == {
        "source": {"train": str(tmp_path / "a.csv")},
        "dropped": 1,
        "duplicates": {"train": 2, "test": 0},
        "leaks": {"test": 1},
        "classes": {"positive": "positive"},
        "test": "every 5th row of the training data",
    }


def test_too_few_rows_to_hold_some_out(tmp_path):
    table(["a", "b", "c", "d"]).to_csv(tmp_path / "a.csv", index=False)
    assert "has 4 rows and no test data" in look(tmp_path / "a.csv").problems[0]
    with pytest.raises(UserError, match="has 4 rows and no test data"):
        read(tmp_path, tmp_path / "a.csv")
    assert not look(tmp_path / "a.csv", test=tmp_path / "a.csv").problems


def test_ids_that_splits_share_get_the_splits_name(tmp_path):
    table(["a", "b"], idx=[0, 1]).to_csv(tmp_path / "a.csv", index=False)
    table(["c", "d"], idx=[1, 2]).to_csv(tmp_path / "b.csv", index=False)
    table(["e"], idx=[7]).to_csv(tmp_path / "c.csv", index=False)
    table(["f"]).to_csv(tmp_path / "d.csv", index=False)
    shared = read(tmp_path / "1", tmp_path / "a.csv", test=tmp_path / "b.csv")
    assert [row[1] for row in rows(shared)] == ["train-0", "train-1", "test-1", "test-2"]
    apart = read(tmp_path / "2", tmp_path / "a.csv", test=tmp_path / "c.csv")
    assert [row[1] for row in rows(apart)] == ["0", "1", "7"]
    mixed = read(tmp_path / "3", tmp_path / "a.csv", test=tmp_path / "d.csv")
    assert [row[1] for row in rows(mixed)] == ["0", "1", *plain_ids(["f"], "test")]


def test_reordering_the_rows_of_a_file_keeps_each_rows_id(tmp_path):
    texts = [f"text {number % 7}" for number in range(20)]
    order = np.random.default_rng(0).permutation(20)
    table(texts).to_csv(tmp_path / "a.csv", index=False)
    table([texts[number] for number in order]).to_csv(tmp_path / "b.csv", index=False)
    first, second = (
        read(tmp_path / f"of-{name}", tmp_path / name, test=tmp_path / "a.csv") for name in ("a.csv", "b.csv")
    )
    assert dict(zip(first.splits["train"]["id"], first.splits["train"]["text"], strict=True)) == dict(
        zip(second.splits["train"]["id"], second.splits["train"]["text"], strict=True)
    )


def test_a_look_tells_what_a_person_confirms(tmp_path):
    texts = ["good", "x" * 200, "bad", "fine", "dull", "more"]
    table(texts, [1, 0, 1, 0, 1, 1]).to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    surveyed = look(tmp_path / "a.jsonl")
    found = surveyed.found
    assert (found.source, found.modality, found.matched) == ("JSON lines file", "text", "number")
    assert (found.labels, found.classes) == ({"0": 2, "1": 4}, {"0": "negative", "1": "positive"})
    assert found.sample == (("good", "1"), ("x" * 80, "0"), ("bad", "1"), ("fine", "0"), ("dull", "1"))
    assert surveyed.label_names == ("negative", "positive")
    given = look(tmp_path / "a.jsonl", classes=("LABEL_0", "LABEL_1"))
    assert given.label_names == ("LABEL_0", "LABEL_1")


def test_labels_given_by_the_user_are_written_as_their_classes(tmp_path):
    table(list("abcdef"), ["good", "bad"] * 3).to_csv(tmp_path / "a.csv", index=False)
    assert len(look(tmp_path / "a.csv").problems) == 2
    spec = OpenSpec(checkpoint="c", data=str(tmp_path / "a.csv"), classes={"good": "positive", "bad": "negative"})
    surveyed = next(e for e in survey_data(spec, ("negative", "positive"), "text") if isinstance(e, DataSurvey))
    assert (surveyed.found.matched, surveyed.problems) == ("given", ())
    found = next(e for e in write(spec, surveyed, tmp_path / "out") if isinstance(e, Dataset))
    assert found.splits["train"]["label"].tolist() == [1, 0, 1, 0, 0]


def test_what_is_written_is_what_is_loaded(tmp_path):
    table([f"text {n}" for n in range(50)]).to_csv(tmp_path / "a.csv", index=False)
    found = read(tmp_path, tmp_path / "a.csv")
    found.describe(tmp_path / "written")
    again = Dataset.load(tmp_path / "written")
    assert again.fingerprint == found.fingerprint
    assert rows(again) == rows(found)
    assert again.notes == found.notes


def test_progress_comes_in_both_passes_and_ends_at_its_total(tmp_path):
    table([f"text {n}" for n in range(10_000)]).to_parquet(tmp_path / "a.parquet")
    spec = OpenSpec(checkpoint="c", data=str(tmp_path / "a.parquet"))
    events = list(survey_data(spec, ("negative", "positive"), "text"))
    found = events.pop()
    assert isinstance(found, DataSurvey)
    events += list(write(spec, found, tmp_path / "out"))[:-1]
    phases: dict[str, list[Progress]] = {}
    for event in events:
        phases.setdefault(event.phase, []).append(event)
    assert list(phases) == ["reading the labels of train", "reading the rows of train", "writing the rows of train"]
    for each in phases.values():
        assert [(event.done, event.total) for event in each] == [(n, 10_000) for n in (4096, 8192, 10_000)]


def test_large_contents_are_written_a_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("influence_core.data.writing.BLOCK_BYTES", 1000)
    texts = [f"{n}" + "x" * 500 for n in range(10)]
    table(texts).to_parquet(tmp_path / "a.parquet")
    found = read(tmp_path, tmp_path / "a.parquet", test=tmp_path / "a.parquet")
    assert list(found.splits["train"]["text"]) == texts
    with pa.memory_map(str(tmp_path / "written" / "train.arrow")) as file:
        assert pa.ipc.open_file(file).num_record_batches == 5


def test_the_benchmark_measures_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setenv("INFLUENCE_HOME", str(tmp_path))  # which it sets, in a process of its own
    file = opening.prepare(str(tmp_path), "3000")
    assert len(pd.read_parquet(file)) == 3000
    measured = opening.measure(str(tmp_path), file)
    assert measured["anonymous"] >= measured["before"] > 0
    assert measured["bytes"] > 3000 * 80
    assert len(Dataset.load(tmp_path / "data").splits["train"]) == 2400


def test_a_hash_is_the_first_eight_bytes():
    assert content_hash("ü") == int(hashlib.sha256("ü".encode()).hexdigest()[:16], 16) == content_hash("ü".encode())


def test_labels_out_of_range_are_refused_by_the_dataset_itself():
    frame = pd.DataFrame({"id": ["a", "b"], "text": ["x", "y"], "label": [0, 2]})
    with pytest.raises(UserError, match="row 'b' of train has label 2, but there are 2 classes"):
        Dataset("d", ("no", "yes"), {"train": frame})
