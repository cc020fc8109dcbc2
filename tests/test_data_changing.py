"""Data that change between the look and the writing, and what is looked at again when a workspace is loaded."""

import pandas as pd
import pytest

from influence_core.data import dataset
from influence_core.data.dataset import Dataset
from influence_core.data.surveying import DataSurvey, survey_data
from influence_core.data.writing import write
from influence_core.errors import UserError
from influence_core.specs import OpenSpec

NAMES = ("negative", "positive")


def rows(labels) -> str:
    return "text,label\n" + "".join(f"film {number},{label}\n" for number, label in enumerate(labels))


@pytest.mark.parametrize("labels", [["negative", "pos"] * 20, ["negative", "positive"] * 21, ["negative"] * 35])
def test_rows_that_changed_after_the_look_are_refused_with_both_counts(tmp_path, labels):
    file = tmp_path / "a.csv"
    file.write_text(rows(["negative", "positive"] * 20))
    spec = OpenSpec(checkpoint="c", data=str(file))
    found = next(each for each in survey_data(spec, NAMES, "text") if isinstance(each, DataSurvey))
    assert found.found.splits["train"].rows == 32
    file.write_text(rows(labels))
    with pytest.raises(UserError, match=r"the data changed while they were read: train had 32 .*: check again"):
        list(write(spec, found, tmp_path / "written"))


def test_ids_and_labels_are_checked_when_data_are_made_and_not_again_when_loaded(tmp_path, monkeypatch):
    frame = pd.DataFrame({"id": ["a", "b"], "text": ["x", "y"], "label": [0, 1]})
    Dataset("d", NAMES, {"train": frame}).save(tmp_path)

    def refuse(_):
        raise AssertionError("looked at again")

    monkeypatch.setattr(dataset, "first_twice", refuse)
    assert Dataset.load(tmp_path).splits["train"]["label"].tolist() == [0, 1]
    with pytest.raises(AssertionError, match="looked at again"):
        Dataset("d", NAMES, {"train": frame})
