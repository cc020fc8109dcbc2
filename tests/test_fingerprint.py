"""The data's fingerprint: the same for the same data only, and for ordinary data what it has always been."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_core.data.dataset import Dataset

MARKS = st.text(st.sampled_from("a\x1c\x1d\x1e\x1f0"), max_size=6)
ROWS = st.lists(st.tuples(MARKS, MARKS, st.integers(0, 1)), max_size=3, unique_by=lambda row: row[0])


def dataset(rows, names=("no", "yes"), **more) -> Dataset:
    def frame(part):
        columns = {column: [row[number] for row in part] for number, column in enumerate(("id", "text", "label"))}
        return pd.DataFrame({**columns, "label": np.array(columns["label"], dtype=np.int64)})

    return Dataset("d", names, {split: frame(part) for split, part in {"train": rows, **more}.items()})


def test_ordinary_rows_are_spelled_as_ever():
    rows = [("a", "one\ntwo", 0), ("b", "ž", 1)]
    spelled = "no\x1fyes\x1dtrain\x1da\x1fone\ntwo\x1f0\x1eb\x1fž\x1f1\x1e\x1dtest\x1dc\x1f\x1f1\x1e"
    assert dataset(rows, test=[("c", "", 1)]).fingerprint == hashlib.sha256(spelled.encode()).hexdigest()


def test_one_row_that_spells_two_is_not_two():
    two = dataset([("x", "first", 1), ("y", "second", 1)])
    one = dataset([("x", "first\x1f1\x1ey\x1fsecond", 1)])
    assert one.fingerprint != two.fingerprint


@pytest.mark.parametrize("names", [("no\x1fyes",), ("no", "yes\x1dtrain\x1da\x1fb\x1f0\x1e")])
def test_class_names_with_separators_spell_nothing_else(names):
    assert dataset([], names).fingerprint != dataset([]).fingerprint
    assert dataset([], names).fingerprint != dataset([("a", "b", 0)]).fingerprint


@given(ROWS, ROWS, ROWS, ROWS)
def test_different_rows_have_different_fingerprints(train, test, other_train, other_test):
    same = (train, test) == (other_train, other_test)
    assert (_fingerprint(train, test) == _fingerprint(other_train, other_test)) is same


def _fingerprint(train, test) -> str:
    # ids may stand in both splits here, which a dataset refuses: the spelling is what is looked at
    return dataset(train, test=[(f"test-{example}", text, label) for example, text, label in test]).fingerprint
