"""The label store against a plain in-memory model, and under concurrency."""

import multiprocessing
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_core.errors import UserError
from influence_core.labels import LabelChange, LabelConflict, LabelEvent, LabelStore

DATA = "data-a"
ORIGINAL = {"r0": "neg", "r1": "pos", "r2": "neg"}
LABELS = ("neg", "pos", "mixed")


@pytest.fixture
def store(tmp_path):
    return LabelStore(f"sqlite:///{tmp_path / 'labels.sqlite'}")


def relabel(store, example, new, expect, annotator="ann", **more):
    return store.relabel("w", DATA, example, new, expect, ORIGINAL[example], annotator, **more)


def test_relabel_is_stored_with_who_when_and_both_values(store):
    event = relabel(store, "r0", "pos", "neg", note="sarcasm", source="run 7")
    assert (event.old, event.new, event.verdict, event.annotator) == ("neg", "pos", "change", "ann")
    assert (event.note, event.source, event.workspace, event.undoes) == ("sarcasm", "run 7", "w", None)
    assert event.at.endswith("+00:00")
    assert store.history(DATA) == [event]
    assert store.current(DATA) == {"r0": "pos"}
    assert store.cursor(DATA) == event.seq > 0


def test_a_label_that_was_not_seen_is_a_conflict_with_both_values(store):
    relabel(store, "r0", "pos", "neg", annotator="bob")
    with pytest.raises(LabelConflict, match=r"'r0' is 'pos' now, not 'neg'") as caught:
        relabel(store, "r0", "mixed", "neg")
    assert (caught.value.expected, caught.value.current) == ("neg", "pos")
    assert isinstance(caught.value, UserError)
    assert len(store.history(DATA)) == 1


def test_the_dataset_label_is_compared_when_there_is_no_event(store):
    with pytest.raises(LabelConflict, match="'r0' is 'neg' now, not 'pos'"):
        relabel(store, "r0", "mixed", "pos")
    assert store.history(DATA) == []


def test_double_submit_is_one_event_even_after_the_form_read_the_label_again(store):
    event_id = str(uuid.uuid4())
    first = relabel(store, "r0", "pos", "neg", event_id=event_id)
    assert relabel(store, "r0", "pos", "neg", event_id=event_id) == first
    assert relabel(store, "r0", "pos", "pos", event_id=event_id) == first
    assert store.history(DATA) == [first]


def test_an_event_id_cannot_carry_two_decisions(store):
    event_id = uuid.uuid4().hex
    relabel(store, "r0", "pos", "neg", event_id=event_id)
    with pytest.raises(UserError, match="already records example 'r0', not 'r1'"):
        relabel(store, "r1", "pos", "pos", event_id=event_id)


def test_undo_restores_the_label_and_leaves_two_rows(store):
    event = relabel(store, "r0", "pos", "neg")
    undo = store.undo(event.event_id, "bob")
    assert (undo.old, undo.new, undo.verdict) == ("pos", "neg", "undo")
    assert (undo.undoes, undo.annotator) == (event.event_id, "bob")
    assert store.history(DATA) == [event, undo]
    assert store.current(DATA) == {}
    assert store.undo(event.event_id, "bob") == undo  # a double click


def test_undo_after_another_change_is_a_conflict(store):
    mine = relabel(store, "r0", "pos", "neg")
    relabel(store, "r0", "mixed", "pos", annotator="bob")
    with pytest.raises(LabelConflict, match=r"'mixed' now .*'bob'.*'pos'"):
        store.undo(mine.event_id, "ann")
    assert store.current(DATA) == {"r0": "mixed"}


def test_undo_does_not_overwrite_a_later_decision_for_the_same_value(store):
    mine = relabel(store, "r0", "pos", "neg")
    relabel(store, "r0", "neg", "pos", annotator="bob")
    relabel(store, "r0", "pos", "neg", annotator="carol")
    with pytest.raises(LabelConflict, match="carol"):
        store.undo(mine.event_id, "ann")


def test_undo_twice_in_a_row_walks_back_two_changes(store):
    first = relabel(store, "r0", "pos", "neg")
    second = relabel(store, "r0", "mixed", "pos")
    store.undo(second.event_id, "ann")
    assert store.undo(first.event_id, "ann").new == "neg"
    assert store.current(DATA) == {}


def test_undo_again_after_a_newer_change_is_a_conflict_not_silently_the_old_undo(store):
    mine = relabel(store, "r0", "pos", "neg")
    store.undo(mine.event_id, "ann")
    relabel(store, "r0", "mixed", "neg", annotator="bob")
    with pytest.raises(LabelConflict, match=r"'mixed' now .*'bob'"):
        store.undo(mine.event_id, "ann")


def test_a_confirmation_cannot_be_undone_once_its_label_is_gone(store):
    change = relabel(store, "r0", "pos", "neg")
    confirmation = relabel(store, "r0", "pos", "pos", annotator="bob")
    store.undo(change.event_id, "ann")
    with pytest.raises(LabelConflict, match=r"'neg' now .*'ann'.*'pos'"):
        store.undo(confirmation.event_id, "bob")
    assert store.current(DATA) == {}


def test_undo_refuses_what_it_cannot_undo(store):
    with pytest.raises(UserError, match="not in the label store"):
        store.undo(uuid.uuid4().hex, "ann")
    with pytest.raises(UserError, match="not a UUID"):
        store.undo("7", "ann")
    undo = store.undo(relabel(store, "r0", "pos", "neg").event_id, "ann")
    with pytest.raises(UserError, match="itself an undo"):
        store.undo(undo.event_id, "ann")


@pytest.mark.parametrize(
    ("new", "verdict", "message"),
    [
        ("neg", "change", "already 'neg'"),
        ("pos", "confirm", "'confirm' keeps the label"),
        ("pos", "skip", "'skip' keeps the label"),
        ("neg", "undo", r"undo\(event_id\)"),
    ],
)
def test_a_verdict_must_fit(store, new, verdict, message):
    with pytest.raises(UserError, match=message):
        relabel(store, "r0", new, "neg", verdict=verdict)
    assert store.history(DATA) == []


@pytest.mark.parametrize("bad", ["", "a\0b", "\ud800"])
def test_texts_that_a_database_cannot_hold_are_refused(store, bad):
    with pytest.raises(UserError, match="annotator"):
        relabel(store, "r0", "pos", "neg", annotator=bad)


def test_reviewed_gives_the_last_verdict_that_stands(store):
    relabel(store, "r0", "neg", "neg", verdict="unsure")
    relabel(store, "r0", "neg", "neg", annotator="bob")
    relabel(store, "r1", "pos", "pos", verdict="skip")
    change = relabel(store, "r2", "pos", "neg")
    assert store.reviewed(DATA) == {"r0": "confirm", "r1": "skip", "r2": "change"}
    assert store.reviewed(DATA, "ann") == {"r0": "unsure", "r1": "skip", "r2": "change"}
    assert store.reviewed(DATA, "nobody") == {}
    store.undo(change.event_id, "bob")
    assert store.reviewed(DATA, "ann") == {"r0": "unsure", "r1": "skip"}


def test_another_dataset_sees_nothing(store):
    event = relabel(store, "r0", "pos", "neg")
    assert store.cursor("data-b") == 0
    assert store.current("data-b") == {}
    assert store.history("data-b") == []
    assert store.reviewed("data-b") == {}
    other = store.relabel("w", "data-b", "r0", "mixed", "neg", "neg", "ann")
    assert store.history(DATA) == [event]
    assert store.history("data-b") == [other]


def test_changed_since_names_stale_rows_only(store):
    change = relabel(store, "r0", "pos", "neg")
    cursor = store.cursor(DATA)
    assert store.changed_since(DATA, cursor) == []
    relabel(store, "r1", "neg", "pos")
    relabel(store, "r1", "pos", "neg")
    relabel(store, "r2", "neg", "neg")
    assert store.changed_since(DATA, cursor) == []
    store.undo(change.event_id, "ann")
    assert store.changed_since(DATA, cursor) == ["r0"]
    assert store.changed_since(DATA, 0) == []


# --- against a model -------------------------------------------------------------------------


@dataclass
class Model:
    """What the store should say, kept as lists."""

    rows: list[LabelEvent] = field(default_factory=list)

    def label(self, example, cursor=None):
        label = ORIGINAL[example]
        for row in self.rows:
            if row.example == example and (cursor is None or row.seq <= cursor):
                label = row.new
        return label

    def changed(self, cursor=None):
        labels = {example: self.label(example, cursor) for example in ORIGINAL}
        return {example: label for example, label in labels.items() if label != ORIGINAL[example]}

    def undo_outcome(self, position):
        """Return "ok", "same" (undone already) or "conflict", by replaying a stack of standing changes."""
        target = self.rows[position]
        stack = []
        for row in self.rows:
            if row.example != target.example:
                continue
            if row.verdict == "undo":
                stack = [event_id for event_id in stack if event_id != row.undoes]
            elif row.old != row.new:
                stack.append(row.event_id)
        undone = any(row.undoes == target.event_id for row in self.rows)
        ids = [row.event_id for row in self.rows]
        later = [event_id for event_id in stack if ids.index(event_id) > position]
        if undone:
            return "conflict" if later else "same"
        return "conflict" if later or self.label(target.example) != target.new else "ok"


operations = st.one_of(
    st.tuples(st.just("relabel"), st.sampled_from(sorted(ORIGINAL)), st.sampled_from(LABELS), st.booleans()),
    st.tuples(st.just("stale"), st.sampled_from(sorted(ORIGINAL)), st.sampled_from(LABELS), st.sampled_from(LABELS)),
    st.tuples(st.just("again"), st.integers(0, 30), st.none(), st.none()),
    st.tuples(st.just("undo"), st.integers(0, 30), st.none(), st.none()),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(operations, max_size=25))
def test_any_sequence_agrees_with_the_model_at_every_cursor(sequence):
    with tempfile.TemporaryDirectory() as folder:
        store = LabelStore(f"sqlite:///{folder}/labels.sqlite")
        model = Model()
        for kind, what, new, extra in sequence:
            if kind == "relabel":
                current = model.label(what)
                verdict = "unsure" if extra and new == current else None
                model.rows.append(relabel(store, what, new, current, verdict=verdict))
            elif kind == "stale":
                if extra == model.label(what):
                    model.rows.append(relabel(store, what, new, extra))
                else:
                    with pytest.raises(LabelConflict) as caught:
                        relabel(store, what, new, extra)
                    assert (caught.value.expected, caught.value.current) == (extra, model.label(what))
            elif not model.rows:
                continue
            else:
                position = what % len(model.rows)
                row = model.rows[position]
                if kind == "again":
                    if row.verdict != "undo":
                        assert relabel(store, row.example, row.new, row.old, event_id=row.event_id) == row
                elif row.verdict == "undo":
                    with pytest.raises(UserError, match="itself an undo"):
                        store.undo(row.event_id, "ann")
                else:
                    outcome = model.undo_outcome(position)
                    if outcome == "conflict":
                        with pytest.raises(LabelConflict):
                            store.undo(row.event_id, "ann")
                    elif outcome == "same":
                        assert store.undo(row.event_id, "ann").undoes == row.event_id
                    else:
                        undo = store.undo(row.event_id, "ann")
                        assert undo.new == row.old
                        model.rows.append(undo)
            assert store.current(DATA) == model.changed()
        assert store.history(DATA) == model.rows
        assert store.cursor(DATA) == (model.rows[-1].seq if model.rows else 0)
        for row in model.rows:
            assert store.current(DATA, row.seq) == model.changed(row.seq)
        assert store.current(DATA, 0) == {}
        for example in ORIGINAL:
            assert store.history(DATA, example) == [row for row in model.rows if row.example == example]


# --- many changes at once --------------------------------------------------------------------


def test_many_changes_are_all_or_nothing(store):
    good = [LabelChange("r0", "pos", "neg"), LabelChange("r1", "pos", "pos"), LabelChange("r2", "pos", "neg", "neg")]
    events, conflicts = store.relabel_many("w", DATA, good, "ann", dry_run=True)
    assert [event.example for event in events] == ["r0", "r2"]
    assert conflicts == []
    assert store.history(DATA) == []
    bad = [LabelChange("r0", "mixed", "neg"), LabelChange("r1", "neg", "pos", "mixed")]
    events, conflicts = store.relabel_many("w", DATA, bad, "ann")
    assert events == []
    assert [(c.example, c.expected, c.current) for c in conflicts] == [("r1", "mixed", "pos")]
    assert store.history(DATA) == []
    events, _ = store.relabel_many("w", DATA, good, "ann", source="file")
    assert store.history(DATA) == events
    assert store.current(DATA) == {"r0": "pos", "r2": "pos"}


# --- processes, threads, files ---------------------------------------------------------------


def _race(url, new, barrier, results):
    barrier.wait()
    store = LabelStore(url)  # no table yet: both want to make it
    barrier.wait()
    try:
        store.relabel("w", DATA, "r0", new, "neg", "neg", new)
        results.put(("won", new, None, None))
    except LabelConflict as conflict:
        results.put(("lost", new, conflict.expected, conflict.current))


def test_two_processes_racing_give_one_winner_and_one_visible_conflict(tmp_path):
    url = f"sqlite:///{tmp_path / 'labels.sqlite'}"
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    racers = [context.Process(target=_race, args=(url, new, barrier, results)) for new in ("pos", "mixed")]
    for racer in racers:
        racer.start()
    outcomes = sorted(results.get(timeout=60) for _ in racers)
    for racer in racers:
        racer.join(timeout=60)
    (lost, loser, expected, current), (won, winner, _, _) = outcomes
    assert (lost, won) == ("lost", "won")
    assert {loser, winner} == {"pos", "mixed"}
    assert (expected, current) == ("neg", winner)
    assert [event.new for event in LabelStore(url).history(DATA)] == [winner]


def test_threads_lose_no_event(store):
    def work(name):
        for number in range(10):
            store.relabel("w", DATA, f"{name}-{number}", "pos", "neg", "neg", name)

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = store.history(DATA)
    assert len(events) == len(store.current(DATA)) == 40
    assert [event.seq for event in events] == sorted({event.seq for event in events})


def test_reads_go_on_while_another_holds_the_write_lock(tmp_path, store):
    relabel(store, "r0", "pos", "neg")
    writer = sqlite3.connect(tmp_path / "labels.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        fresh = LabelStore(f"sqlite:///{tmp_path / 'labels.sqlite'}")
        assert fresh.current(DATA) == {"r0": "pos"}
        assert fresh.cursor(DATA) == store.cursor(DATA)
    finally:
        writer.execute("ROLLBACK")
        writer.close()


def test_a_busy_database_is_said_in_words(tmp_path, store, monkeypatch):
    monkeypatch.setattr("influence_core.labels.database.BUSY_MILLISECONDS", 50)
    writer = sqlite3.connect(tmp_path / "labels.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(UserError, match="locked; nothing was saved"):
            relabel(store, "r0", "pos", "neg")
    finally:
        writer.execute("ROLLBACK")
        writer.close()
    assert relabel(store, "r0", "pos", "neg").new == "pos"


def test_the_database_refuses_to_rewrite_the_log(tmp_path, store):
    relabel(store, "r0", "pos", "neg")
    raw = sqlite3.connect(tmp_path / "labels.sqlite")
    for statement in ("UPDATE label_events SET new = 'x'", "DELETE FROM label_events"):
        with pytest.raises(sqlite3.IntegrityError, match="insert-only"):
            raw.execute(statement)
    raw.close()


def test_a_new_file_in_the_home_is_private_and_in_wal_mode(tmp_path, monkeypatch):
    monkeypatch.setenv("INFLUENCE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("INFLUENCE_DATABASE_URL", raising=False)
    mask = os.umask(0o022)
    try:
        store = LabelStore()
        relabel(store, "r0", "pos", "neg")
        raw = sqlite3.connect(tmp_path / "home" / "labels.sqlite")
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        raw.execute("SELECT count(*) FROM label_events").fetchone()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "home").iterdir()}
        raw.close()
    finally:
        os.umask(mask)
    assert modes["labels.sqlite"] == 0o600
    assert {"labels.sqlite-wal", "labels.sqlite-shm"} <= modes.keys()
    assert set(modes.values()) == {0o600}


def test_the_environment_names_another_database(tmp_path, monkeypatch):
    monkeypatch.setenv("INFLUENCE_DATABASE_URL", f"sqlite:///{tmp_path / 'elsewhere' / 'l.sqlite'}")
    relabel(LabelStore(), "r0", "pos", "neg")
    assert (tmp_path / "elsewhere" / "l.sqlite").exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "in memory"),
        ("mysql://host/name", "use sqlite or postgresql"),
        ("no url, but s3cret", "not a database URL"),
    ],
)
def test_a_url_that_cannot_serve_is_one_line(url, message):
    with pytest.raises(UserError, match=message) as caught:
        LabelStore(url)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_file_that_is_no_database_is_one_line(tmp_path):
    path = tmp_path / "labels.sqlite"
    path.write_bytes(b"this is not a database file" * 100)
    with pytest.raises(UserError, match="not a database") as caught:
        LabelStore(f"sqlite:///{path}")
    assert "\n" not in str(caught.value)
    assert Path(path).read_bytes().startswith(b"this is not")


def test_labels_and_charts_load_no_heavy_room():
    code = (
        "import sys, influence_core.labels, influence_core.charts;"
        "heavy = {'torch', 'streamlit', 'transformers', *(f'influence_core.{room}' for room in 'models gradients "
        "curvature attribution trajectory correction studies'.split())};"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
