"""The frozen prefix's outputs are computed once, outlive interruptions, and are used only where they fit."""

import shutil
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from influence_core.attribution.base import Query
from influence_core.attribution.projection import Projection
from influence_core.errors import UserError
from influence_core.events import Progress, through
from influence_core.models import prefix, stored
from influence_core.models.classifier import Rows
from influence_core.models.loading import load, rows_of
from influence_core.models.prefix import open_scope
from influence_core.models.suffix import Suffix, cut
from influence_core.sizes import outputs_kept


def run(workspace, opened, split="train", labels=None):
    """Return (progress events, rows)."""
    events = list(prefix.rows(workspace, opened, split, labels))
    return [event for event in events if isinstance(event, Progress)], events[-1]


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(stored, "SHARD", 50)  # 120 training rows: three shards


@pytest.mark.usefixtures("small_shards")
def test_rows_come_from_the_store_in_any_order_and_are_made_once(opened):
    work = open_scope(opened, None, None)
    assert work.reason is None
    assert isinstance(work.classifier, Suffix)
    progress, found = run(opened, work)
    assert [progress[0].phase, progress[-1].done, progress[-1].total] == [prefix.PHASE, 120, 120]
    plain = rows_of(opened, work.whole, "train")
    for numbers in ([119, 3, 57], [0], [51, 50, 49]):
        a, b = plain.batch(numbers), found.batch(numbers)
        torch.testing.assert_close(work.classifier.logits(b), work.whole.logits(a), rtol=1e-5, atol=1e-6)
        assert b.labels.tolist() == a.labels.tolist()
    assert not found.items[5].flags.owndata  # a view into the file
    again, _ = run(opened, work)
    assert again == []
    other = 1 - plain.labels
    assert (run(opened, work, labels=other)[1].labels == other).all()


def test_of_few_rows_only_those_asked_for_are_computed_each_once(opened, monkeypatch):
    work = open_scope(opened, None, None)
    plain, computed, own = rows_of(opened, work.whole, "train"), [], Suffix.prefix

    def counting(self, batch):
        computed.append(len(batch.labels))
        return own(self, batch)

    *progress, found = prefix.rows(opened, work, "train", few=True)
    assert progress == []
    monkeypatch.setattr(Suffix, "prefix", counting)
    for numbers in ([119, 3, 57], [3, 57]):
        a, b = plain.batch(numbers), found.batch(numbers)
        torch.testing.assert_close(work.classifier.logits(b), work.whole.logits(a), rtol=1e-5, atol=1e-6)
        assert b.labels.tolist() == a.labels.tolist()
    assert computed == [1, 1, 1]
    assert not prefix.store_folder(opened, work.classifier, "train").exists()


def test_few_rows_come_from_the_store_where_all_are_kept(opened, monkeypatch):
    work = open_scope(opened, None, None)
    run(opened, work)
    (found,) = prefix.rows(opened, work, "train", few=True)
    monkeypatch.setattr(Suffix, "prefix", None)
    assert not found.items[5].flags.owndata


def test_only_outputs_that_are_all_there_are_recorded_for_estimates(opened):
    for options, kept in (({"few": True}, False), ({"asked": True}, False), ({}, True)):
        list(Projection(opened, None, None, **options).train())
        assert outputs_kept(opened, None, None) == kept


@pytest.mark.usefixtures("small_shards")
def test_an_interrupted_build_goes_on_with_what_is_missing(opened):
    work = open_scope(opened, None, None)
    building = prefix.rows(opened, work, "train")
    for event in building:
        if event.done > 50:  # in the second shard
            break
    building.close()
    folder = next((opened.artefacts.folder / "prefix").iterdir())
    assert (folder / "done.json").read_text().split() == ["[", "0", "]"]
    offsets = np.load(folder / "offsets.npy")
    values = np.memmap(folder / "values.bin", np.float32, "r+")
    values[int(offsets[50]) * 16 : int(offsets[100]) * 16] = np.nan  # half-written rows must not survive
    values.flush()
    progress, found = run(opened, work)
    assert progress[0].done > 50
    assert progress[-1].done == 120
    assert len(found) == 120
    resumed = (folder / "values.bin").read_bytes()
    shutil.rmtree(folder)
    run(opened, work)
    assert (folder / "values.bin").read_bytes() == resumed


@pytest.mark.usefixtures("small_shards")
def test_a_damaged_store_is_made_again(opened):
    work = open_scope(opened, None, None)
    _, before = run(opened, work)
    kept = [before.items[row].copy() for row in (0, 119)]
    folder = next((opened.artefacts.folder / "prefix").iterdir())
    (folder / "values.bin").rename(folder / "moved")
    (folder / "values.bin").write_bytes(b"short")
    progress, after = run(opened, work)
    assert progress[-1].done == 120
    for row, value in zip((0, 119), kept, strict=True):
        np.testing.assert_array_equal(after.items[row], value)


def corrected(workspace, name, changed):
    """Add a checkpoint whose parameters with ``changed`` in their names differ."""
    folder = workspace.checkpoint_folder(name)
    shutil.copytree(Path(workspace.checkpoint().path), folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {key: value + 0.1 if changed in key else value for key, value in tensors.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    workspace.add_checkpoint(name)


def test_checkpoints_share_the_outputs_of_an_equal_frozen_part_only(opened):
    corrected(opened, "head-moved", "layer.1.")
    corrected(opened, "stem-moved", "layer.0.attention.self.query.weight")
    first = open_scope(opened, None, None)
    run(opened, first)
    same, different = (open_scope(opened, name, None) for name in ("head-moved", "stem-moved"))
    progress, shared = run(opened, same)
    assert progress == []
    plain = rows_of(opened, same.whole, "train")
    expected = same.whole.losses(plain.batch([4, 2]))
    torch.testing.assert_close(same.classifier.losses(shared.batch([4, 2])), expected, rtol=1e-5, atol=1e-6)
    assert run(opened, different)[0] != []
    assert run(opened, open_scope(opened, None, "head"))[0] != []  # another cut


def test_beyond_the_limit_the_whole_model_is_used_and_the_reason_given(opened, monkeypatch):
    suffix = cut(load(opened), load(opened).scope("last:1"))
    tokens = sum(len(item) for split in ("train", "test") for item in rows_of(opened, suffix.whole, split).items)
    assert prefix.estimate(opened, suffix) == tokens * 16 * 4
    monkeypatch.setenv("INFLUENCE_CACHE_GB", f"{tokens * 16 * 4 / 1e9:.9f}")
    assert open_scope(opened, None, None).reason is None
    monkeypatch.setenv("INFLUENCE_CACHE_GB", "0.00001")
    work = open_scope(opened, None, None)
    assert work.classifier is work.whole
    assert "GB, more than INFLUENCE_CACHE_GB = 1e-05" in str(work.reason)
    progress, found = run(opened, work, "test")
    assert progress == []
    assert found.classifier is work.whole
    assert not (opened.artefacts.folder / "prefix").exists()


def test_the_limit_is_the_workspaces_not_each_stores(opened, monkeypatch):
    first, other = open_scope(opened, None, None), open_scope(opened, None, "head")
    sizes = [prefix.estimate(opened, work.classifier) for work in (first, other)]
    for split in ("train", "test"):
        run(opened, first, split)
    folder = opened.artefacts.folder / "prefix"
    assert stored.held(folder) == sizes[0]
    monkeypatch.setenv("INFLUENCE_CACHE_GB", f"{(sum(sizes) - 1) / 1e9:.12f}")
    refused = str(open_scope(opened, None, "head").reason)
    assert f"with the {sizes[0] / 1e9:.2g} GB kept in {folder} for other" in refused
    assert "delete that folder, or raise the limit" in refused
    assert open_scope(opened, None, None).reason is None  # what it needs is there
    with pytest.raises(UserError, match="another run has just filled INFLUENCE_CACHE_GB"):  # opened when there was room
        list(run(opened, other, split)[0] for split in ("train", "test"))
    assert stored.held(folder) < sum(sizes)
    shutil.rmtree(folder)
    assert open_scope(opened, None, "head").reason is None


def test_zero_turns_the_store_off_and_nonsense_is_refused(opened, monkeypatch):
    monkeypatch.setenv("INFLUENCE_CACHE_GB", "0")
    assert "INFLUENCE_CACHE_GB = 0" in str(open_scope(opened, None, None).reason)
    for wrong in ("-1", "much", "nan", ""):
        monkeypatch.setenv("INFLUENCE_CACHE_GB", wrong)
        with pytest.raises(UserError, match="INFLUENCE_CACHE_GB"):
            open_scope(opened, None, None)


def test_a_scope_without_prefix_says_so_and_gives_plain_rows(opened):
    work = open_scope(opened, None, "all")
    assert "scope all" in str(work.reason)
    assert run(opened, work)[1].classifier is work.whole


def test_a_full_disk_is_one_line_and_leaves_nothing_marked(opened, monkeypatch):
    work = open_scope(opened, None, None)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(stored.Store, "put", full)
        with pytest.raises(UserError, match=r"No space left .* free .* GB there, or set INFLUENCE_CACHE_GB=0"):
            run(opened, work)
    assert run(opened, work)[0][-1].done == 120


@pytest.mark.parametrize("broken", [(stored.np, "save"), (stored, "write_json"), (Path, "touch")])
def test_a_disk_that_is_full_from_the_start_is_one_line_too(opened, monkeypatch, broken):
    work = open_scope(opened, None, None)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*broken, full)
        with pytest.raises(UserError, match=r"No space left .* free .* GB there, or set INFLUENCE_CACHE_GB=0"):
            run(opened, work)
    assert run(opened, work)[0][-1].done == 120


def test_for_queries_alone_nothing_is_encoded_hashed_or_run(opened, monkeypatch):
    expected = Projection(opened, None, None, few=True)
    query = Query(opened.dataset.splits["test"]["id"].iloc[0], 1)
    directions, norms = expected.query_directions([query])

    def never(*_):
        raise AssertionError

    for name in ("cut", "estimate", "store_key", "form_of", "rows_of"):
        monkeypatch.setattr(prefix, name, never)
    work = Projection(opened, None, None, queries_only=True)
    found, own = work.query_directions([query])
    np.testing.assert_array_equal(own, norms)
    for name, value in directions.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)
    assert work.size == expected.size
    assert work.prefix != "kept"


def test_two_builders_do_the_work_once(opened):
    work = open_scope(opened, None, None)
    first, second = prefix.rows(opened, work, "train"), prefix.rows(opened, work, "train")
    next(first)  # holds the lock
    got: list = []
    waiting = Thread(target=lambda: got.extend(second))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    list(through(first, Rows))
    waiting.join(20)
    assert [type(item) for item in got] == [Rows]


@pytest.mark.usefixtures("small_shards")
def test_outputs_of_one_shape_are_kept_as_they_are(tmp_path):
    images = np.random.default_rng(0).normal(size=(70, 2, 3, 3)).astype(np.float32)
    store = stored.Store(tmp_path, np.ones(70, np.int64), stored.Form((2, 3, 3), ragged=False, dtype="float32"))
    store.start()
    for shard, start, stop in store.missing():
        with store.writing(shard) as stream:
            for row in reversed(range(start, stop)):
                store.put(stream, row, images[row])
    assert store.missing() == []
    found = store.open()
    assert len(found) == 70
    np.testing.assert_array_equal(found[69], images[69])
    np.testing.assert_array_equal(found[-2], images[68])
    np.testing.assert_array_equal(np.stack(found[10:20:3]), images[10:20:3])
    with pytest.raises(IndexError):
        found[70]
    with pytest.raises(ValueError, match="row 3 gives an output of shape"), store.writing(0) as stream:
        store.put(stream, 3, images[0][:1])


def test_a_split_without_rows_has_an_empty_store(tmp_path):
    store = stored.Store(tmp_path, np.zeros(0, np.int64), stored.Form((4,), ragged=True, dtype="float32"))
    assert store.missing() == []
    assert list(store.open()) == []


def test_rows_of_other_lengths_are_never_read_from_an_old_file(tmp_path):
    form = stored.Form((4,), ragged=True, dtype="float32")
    for lengths in ([2, 1], [1, 2]):  # the same size in all
        store = stored.Store(tmp_path, np.array(lengths), form)
        assert store.missing() == [(0, 0, 2)]
        store.start()
        with store.writing(0) as stream:
            for row, length in enumerate(lengths):
                store.put(stream, row, np.full((length, 4), row, np.float32))
        assert store.missing() == []
