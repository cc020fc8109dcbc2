import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import fake_runs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from influence_core.errors import UserError
from influence_core.events import Progress, Result, Step
from influence_core.runs import registry
from influence_core.runs.directory import RunDirectory
from influence_core.runs.heartbeat import Heartbeat
from influence_core.runs.state import TransitionError
from influence_core.runs.worker import run_entry
from influence_core.specs import CorrectionSpec, RankSpec

NAPS = {"kind": "naps", "steps": 2, "nap": 0.0}


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("INFLUENCE_HOME", str(tmp_path))
    monkeypatch.setenv("INFLUENCE_RUN_KINDS", fake_runs.KINDS)


def silence(run, seconds=3600.0):
    """Make the last heartbeat ``seconds`` old."""
    past = time.time() - seconds
    os.utime(run.heartbeat_file, (past, past))


# The legal changes, written down a second time: action -> (allowed in, leads to)
ACTIONS = {
    "claim": ({"pending"}, "running"),
    "finish": ({"running"}, "finished"),
    "fail": ({"running"}, "failed"),
    "kill": ({"pending", "running"}, "killed"),
}


class RunStates(RuleBasedStateMachine):
    """Any sequence of actions leaves a run in the state that the table says, and events only while running."""

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.home = tempfile.TemporaryDirectory()
        self.patch.setenv("INFLUENCE_HOME", self.home.name)
        self.patch.setenv("INFLUENCE_RUN_KINDS", fake_runs.KINDS)
        self.run = RunDirectory.create(NAPS)
        self.expected = "pending"
        self.events = 0
        self.ended = None

    def teardown(self):
        self.patch.undo()
        self.home.cleanup()

    @rule()
    def claim(self):
        self.act("claim")

    @rule(action=st.sampled_from(["finish", "fail", "kill"]))
    def end(self, action):
        self.act(action)

    def act(self, action):
        allowed, to = ACTIONS[action]
        arguments = ("no reason",) if action == "fail" else ()
        if self.expected in allowed:
            getattr(self.run, action)(*arguments)
            self.expected = to
        else:
            with pytest.raises(TransitionError, match=self.expected):
                getattr(self.run, action)(*arguments)

    @rule()
    def append(self):
        event = Progress(phase="p", done=self.events, total=9)
        if self.expected == "running":
            self.run.append(event)
            self.events += 1
        else:
            with pytest.raises(TransitionError):
                self.run.append(event)

    @rule()
    def ask_to_stop(self):
        self.run.request_cancel()  # only a wish: no state follows from it

    @rule()
    def fall_silent(self):
        if self.run.heartbeat_file.exists():
            silence(self.run)
        if self.expected == "running":
            assert self.run.state().state == "crashed"
            self.expected = "crashed"

    @invariant()
    def agrees_with_the_table(self):
        state = RunDirectory.open(self.run.id).state()
        assert state.state == self.expected
        assert len(self.run.events()[0]) == self.events
        assert (state.started is not None) == self.run.heartbeat_file.exists()  # the claim makes it
        assert state.seconds is None or state.seconds >= 0
        assert (state.ended is not None) == (self.expected not in {"pending", "running"})
        assert (state.position is not None) == (self.expected == "pending")
        if self.ended is not None:
            assert state.ended == self.ended  # nothing changes after the end
        self.ended = state.ended


RunStates.TestCase.settings = settings(
    max_examples=60, stateful_step_count=12, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestRunStates = RunStates.TestCase


def race(count, action):
    """Call ``action`` in threads that start together; returns how many calls were not refused."""
    gate, won = threading.Barrier(count), []

    def contend():
        gate.wait()
        try:
            action()
        except TransitionError:
            return
        won.append(1)

    threads = [threading.Thread(target=contend) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(won)


def test_a_run_is_claimed_exactly_once():
    for _ in range(20):
        run = RunDirectory.create(NAPS)
        assert race(8, lambda run=run: RunDirectory.open(run.id).claim()) == 1


def test_a_run_ends_exactly_once():
    for _ in range(20):
        run = RunDirectory.create(NAPS)
        run.claim()
        assert race(8, run.kill) == 1


def test_a_claim_and_a_cancel_of_a_pending_run_never_lose_one_another():
    for _ in range(20):
        run = RunDirectory.create(NAPS)
        outcomes = iter((run.claim, run.kill))
        race(2, lambda outcomes=outcomes: next(outcomes)())
        assert run.state().state == "killed"  # killed before the claim, or running and then killed


@pytest.mark.parametrize(
    "run_id",
    ["", "..", "../engine", "/etc/passwd", "a/b", "g" * 32, "0" * 32, "12345678-1234-4234-8234-123456789012"],
)
def test_malformed_ids_are_refused(run_id):
    with pytest.raises(UserError, match="32 hexadecimal"):
        RunDirectory.open(run_id)


def test_an_unknown_id_is_refused():
    with pytest.raises(UserError, match="none with this id"):
        RunDirectory.open("0123456789ab4def8123456789abcdef")


def test_an_id_with_a_line_end_is_refused():
    run = RunDirectory.create(NAPS)
    with pytest.raises(UserError):
        RunDirectory.open(run.id + "\n")


def test_specs_come_back_as_they_were():
    spec = RankSpec(workspace="demo:movie-reviews", example="7", top=3)
    run = RunDirectory.create(spec, what="why negative?", who="ann")
    assert run.spec() == spec
    state = run.state()
    assert (state.kind, state.workspace, state.what, state.who) == (
        "rank",
        "demo:movie-reviews",
        "why negative?",
        "ann",
    )
    assert RunDirectory.create(NAPS).spec() == NAPS


def test_a_kind_that_nothing_runs_is_refused_and_leaves_nothing():
    with pytest.raises(UserError, match="'teleport'"):
        RunDirectory.create({"kind": "teleport"})
    with pytest.raises(UserError, match="top"):
        RunDirectory.create({"kind": "rank", "workspace": "w", "example": "1", "top": 0})
    assert RunDirectory.list_runs() == []


def test_events_are_read_from_an_offset_without_the_half_written_line():
    run = RunDirectory.create(NAPS)
    run.claim()
    first, second = (Progress(phase="é", done=n, total=2) for n in (1, 2))
    run.append(first)
    events, offset = run.events()
    assert events == [first]
    assert run.events(offset) == ([], offset)
    run.append(second)
    whole = (run.path / "events.jsonl").read_bytes()
    for cut in range(offset, len(whole)):  # every way to be half-written
        (run.path / "events.jsonl").write_bytes(whole[:cut])
        assert run.events(offset) == ([], offset)
        assert run.state().done == 1
    (run.path / "events.jsonl").write_bytes(whole)
    assert run.events(offset) == ([second], len(whole))
    assert (run.state().phase, run.state().done, run.state().total) == ("é", 2, 2)


def test_a_loss_that_is_not_a_number_survives():
    run = RunDirectory.create(CorrectionSpec(workspace="w", example="1", steps=7))
    run.claim()
    numbers = dict.fromkeys(
        ("loss", "probability", "base_loss", "base_probability", "divergence", "integrated_lr", "retention"), math.nan
    )
    run.append(Step(step=3, prediction="a", base_prediction="b", changed=[], **numbers))
    (event,), _ = run.events()
    assert isinstance(event, Step)
    assert math.isnan(event.loss)
    state = run.state()
    assert (state.phase, state.done, state.total) == ("step", 3, 7)


def test_progress_is_found_behind_a_large_result():
    run = RunDirectory.create(NAPS)
    run.claim()
    for done in range(2000):
        run.append(Progress(phase="counting", done=done, total=2000))
    run.append(Result(value={"text": "x" * 30_000}))
    assert run.state().done == 1999


def test_the_queue_is_ordered_by_priority_and_age():
    low = RunDirectory.create(NAPS, priority=-1)
    first, second = RunDirectory.create(NAPS), RunDirectory.create(NAPS)
    assert [run.state().position for run in (first, second, low)] == [1, 2, 3]
    first.claim()
    assert [run.state().position for run in (first, second, low)] == [None, 1, 2]
    listed = RunDirectory.list_runs()
    assert [state.id for state in listed] == [second.id, first.id, low.id]
    assert [state.position for state in listed] == [1, None, 2]


def test_a_heartbeat_keeps_a_run_alive_and_its_end_is_noticed(monkeypatch):
    monkeypatch.setenv("INFLUENCE_HEARTBEAT", "0.05")
    run = RunDirectory.create(NAPS)
    run.claim()
    with Heartbeat(run.heartbeat_file):
        deadline = time.monotonic() + 0.5  # twice the announced 5 × 0.05 s
        while time.monotonic() < deadline:
            assert run.state().state == "running"
            time.sleep(0.02)
    waited = time.monotonic()
    assert run.wait(10).state == "crashed"
    assert 0.1 < time.monotonic() - waited < 5
    assert "start the run again" in run.state().message
    os.utime(run.heartbeat_file)  # a late beat does not bring it back
    assert run.state().state == "crashed"
    with pytest.raises(TransitionError):
        run.claim()


def test_a_run_whose_process_is_only_late_is_not_declared_dead():
    run = RunDirectory.create(NAPS)
    run.claim()
    beating = Heartbeat(run.heartbeat_file)
    beating._interval = 60.0  # as if the process were suspended
    with beating:
        silence(run, 40)
        state = run.state()
        assert (state.state, state.message) == ("running", "no sign of life for 40 s")


def test_the_worker_writes_the_result_and_every_event():
    run = RunDirectory.create(NAPS)
    run_entry(run.id)
    assert run.state().state == "finished"
    events, _ = run.events()
    assert [type(event) for event in events] == [Progress, Progress, Result]
    assert json.loads((run.result / "result.json").read_text()) == events[-1].value
    run_entry(run.id)  # a second start is refused and changes nothing
    assert len((run.result / "starts").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("kind", "message", "events"),
    [
        ("complains", "k = 9: there are 3 rows; give a smaller k", 0),
        ("breaks", "ZeroDivisionError: first line second line", 1),
        ("exits", "SystemExit: 3", 1),
    ],
)
def test_a_failed_run_says_why_in_one_line(kind, message, events):
    run = RunDirectory.create({"kind": kind})
    run_entry(run.id)
    state = run.state()
    assert (state.state, state.message) == ("failed", message)
    assert len(run.events()[0]) == events
    assert 'fake_runs.py", line' in (run.path / "traceback.txt").read_text()


def test_a_stop_asked_before_the_start_prevents_it():
    run = RunDirectory.create(NAPS)
    run.request_cancel()
    run_entry(run.id)
    assert run.state().state == "killed"
    assert not (run.result / "starts").exists()


def test_only_a_run_that_is_over_can_be_deleted():
    run = RunDirectory.create(NAPS)
    with pytest.raises(UserError, match="cancel it"):
        run.delete()
    run.kill()
    run.delete()
    assert not run.path.exists()
    assert RunDirectory.list_runs() == []


def test_cancel_is_overdue_after_its_grace():
    run = RunDirectory.create(NAPS)
    assert not run.cancel_requested()
    assert not run.cancel_overdue()
    run.request_cancel(grace=60)
    assert run.cancel_requested()
    assert not run.cancel_overdue()
    run.request_cancel(grace=-1)
    assert run.cancel_overdue()


def test_every_kind_of_spec_has_an_entry_point(tmp_path):
    assert set(registry.SPEC_KINDS) <= set(registry.entry_points())
    assert registry.resolve("naps") is fake_runs.naps
    events = list(registry.start(NAPS, tmp_path / "a" / "b"))
    assert isinstance(events[-1], Result)


def test_a_malformed_extension_is_named(monkeypatch):
    monkeypatch.setenv("INFLUENCE_RUN_KINDS", "naps")
    with pytest.raises(UserError, match="'naps'"):
        registry.entry_points()


def test_pages_can_import_the_client_without_torch_dask_or_streamlit():
    code = (
        "import sys; import influence_core.runs.client; "
        "print([name for name in ('torch', 'transformers', 'distributed', 'streamlit') if name in sys.modules])"
    )
    root = Path(registry.__file__).parents[2]
    answer = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
