"""The index on disk: whoever reads it makes nothing, and never takes an index that is being cleared for zeros."""

import shutil

import numpy as np
import pytest

from influence_core.attribution import tables
from influence_core.attribution.tables import IndexArrays, Table
from influence_core.errors import UserError

ROWS, K = 30, 2


@pytest.fixture
def table(tmp_path):
    """A finished index of ones."""
    made = Table(tmp_path / "index", {})
    index = IndexArrays(made.folder, ROWS, K)
    for shard, start, stop in index.missing():
        count = stop - start
        index.write(shard, np.ones((count, K), np.float32), np.ones(count, np.float32), np.ones(count, np.int64))
    made.finish({"rows": ROWS})
    return made


def test_what_was_written_is_read(table):
    index = IndexArrays.reading(table.folder, ROWS)
    assert index.missing() == []
    np.testing.assert_array_equal(index.read("products"), np.ones((ROWS, K)))


def test_a_reader_refuses_to_write(table):
    with pytest.raises(ValueError, match="read-only"):
        IndexArrays.reading(table.folder, ROWS).array("sqnorms")[:] = 0
    np.testing.assert_array_equal(IndexArrays.reading(table.folder, ROWS).read("sqnorms"), np.ones(ROWS))


@pytest.mark.parametrize("finished", [True, False])
def test_a_reader_of_a_missing_index_makes_none(table, finished):
    if not finished:
        (table.folder / "manifest.json").unlink()
    shutil.rmtree(table.folder / "index.zarr")
    with pytest.raises(UserError, match=r"(damaged|missing).*build it again"):
        IndexArrays.reading(table.folder, ROWS)
    assert not (table.folder / "index.zarr").exists()


def test_an_index_cleared_between_opening_and_reading_is_never_zeros(table, monkeypatch):
    index = IndexArrays.reading(table.folder, ROWS)
    (table.folder / "manifest.json").unlink()  # as `indexing.clear` begins
    shutil.rmtree(table.folder / "index.zarr" / "products" / "c")
    with monkeypatch.context() as patch:
        patch.setattr(IndexArrays, "_check_there", lambda self: None)
        assert not index.read("products").any()  # what zarr makes of a file that is gone
    with pytest.raises(UserError, match=r"missing or being built: .*build it again"):
        index.read("products")


def test_a_writer_makes_what_is_missing_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "SHARD", 10)
    index = IndexArrays(tmp_path, ROWS, K)
    index.write(1, np.ones((10, K)), np.ones(10), np.ones(10))
    assert IndexArrays(tmp_path, ROWS, K).missing() == [(0, 0, 10), (2, 20, 30)]
