"""Exports and readings of large data hold a block of rows at a time, whatever the data's size."""

import io
import tracemalloc
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from homes import living_in

from influence_core.correction.setting import retention_rows
from influence_core.data.dataset import Dataset
from influence_core.labels import LabelStore, current_labels, export
from influence_core.workspace import Workspace

ROWS = 200_000
BOUND = 6_000_000  # bytes; 20,000 rows as Python objects are more than that


class Sink(io.RawIOBase):
    """Counts bytes and forgets them."""

    size = 0

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.size += len(data)
        return len(data)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Workspace:
    """200,000 training rows and as many test rows; row 7 was relabelled."""
    with living_in(tmp_path_factory.mktemp("large")):
        frames = {}
        for split in ("train", "test"):
            numbers = np.arange(ROWS)
            text = [f"a film of some words, number {number}, {'x' * 60}" for number in numbers]
            ids = [f"{split}-{number:012x}" for number in numbers]
            frames[split] = pd.DataFrame({"id": ids, "text": text, "label": numbers % 2})
        workspace = Workspace.create("large", Dataset("large", ("no", "yes"), frames), "head")
        workspace.relabel("train-000000000007", "no", expect="yes", annotator="ann")
        yield Workspace.open("large")


def peak_of(what: Callable[[], Any]) -> tuple[Any, int]:
    tracemalloc.start()
    try:
        found = what()
        return found, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("format", "rows"), [("csv", ROWS), ("jsonl", 20_000), ("parquet", 20_000)])
def test_labels_as_they_stand_are_written_in_blocks(large, format, rows, tmp_path):
    assert len(large.train) == ROWS  # mapped before
    sink: Any = Sink() if format != "parquet" else (tmp_path / "a.parquet").open("wb")
    count, peak = peak_of(
        lambda: export(
            current_labels(LabelStore(), large.data_fingerprint, islice(large.training_rows(), rows)), format, sink
        )
    )
    assert count == rows
    assert peak < BOUND
    if format == "parquet":
        sink.close()
        row = pq.read_table(tmp_path / "a.parquet").slice(7, 1).to_pylist()[0]
        assert (row["example"], row["original"], row["current"], row["annotator"]) == (
            "train-000000000007", "yes", "no", "ann",
        )  # fmt: skip
    else:
        assert sink.size > rows * 100


def test_the_retention_rows_are_found_without_a_list_of_all_ids(large):
    ids = large.dataset.splits["test"]["id"]
    order = np.random.default_rng(0).permutation(ROWS)
    corrected = str(ids.iloc[int(order[3])])
    found, peak = peak_of(lambda: retention_rows(large, [corrected]))
    assert found == [str(ids.iloc[int(number)]) for number in order[:51] if number != order[3]]
    assert peak < 5_000_000


def test_the_labels_that_an_import_asks_for_are_found_without_all_others(large):
    wanted = ["train-000000000008", "test-000000000008", "nowhere", "train-000000000007"]
    found, peak = peak_of(lambda: large.original_labels(wanted))
    assert found == {"train-000000000008": "no", "train-000000000007": "yes"}
    assert peak < BOUND
