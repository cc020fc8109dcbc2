"""The engine as processes: what survives which death. One engine serves most tests of this file."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import fake_runs
import psutil
import pytest

from influence_core.errors import UserError
from influence_core.runs import address, client, cluster, locks
from influence_core.runs.directory import RunDirectory
from influence_core.runs.worker import run_entry

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PATIENCE = 120.0  # seconds; only a failure waits so long


def naps(steps=3, nap=0.05):
    return {"kind": "naps", "steps": steps, "nap": nap}


WAITS = {"kind": "waits"}  # until `let_go`, so that no test depends on the machine's speed


def let_go(run):
    (run.result / "go").touch()


def settle(home, patch):
    patch.setenv("INFLUENCE_HOME", str(home))
    patch.setenv("INFLUENCE_RUN_KINDS", fake_runs.KINDS)
    patch.setenv("INFLUENCE_HEARTBEAT", "0.2")
    patch.setenv("INFLUENCE_PRELOAD", "")
    patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(TESTS)]))
    patch.delenv("INFLUENCE_SCHEDULER", raising=False)
    patch.delenv("OMP_NUM_THREADS", raising=False)  # Dask would only set it where it is absent


def processes(home):
    """Return the living processes that were started for this home."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("INFLUENCE_HOME") == str(home):
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def clear(home):
    """End what is left; a test that left something fails."""
    client.stop_engine()
    try:
        until(lambda: not processes(home))
    finally:
        for process in processes(home):
            process.kill()


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        settle(home, patch)
        client.ensure_engine()
        yield home
        clear(home)


@pytest.fixture
def own_home(tmp_path, monkeypatch):
    """A home of its own, for tests that end engines."""
    settle(tmp_path, monkeypatch)
    yield tmp_path
    clear(tmp_path)


def submit(spec, **kwargs):
    return RunDirectory.open(client.submit(spec, **kwargs))


def starts(run):
    """Return the process ids that started a run."""
    file = run.result / "starts"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def ended(run):
    state = run.wait(PATIENCE)
    assert state.is_over, f"still {state.state}"
    return state


def under_way(run):
    """Wait until a run has written an event."""
    until(lambda: run.events()[0])
    return run


def is_on_worker(key, dask_scheduler=None):
    """Say whether a scheduler has given a task to a worker, started or not."""
    task = dask_scheduler.tasks.get(key)
    return task is not None and task.state == "processing"


def test_a_run_goes_from_submit_to_result_in_a_warm_process(engine):
    runs = [submit(naps(), what="a nap", who="ann") for _ in range(2)]
    states = [ended(run) for run in runs]
    assert [state.state for state in states] == ["finished", "finished"]
    assert (states[0].what, states[0].who, states[0].phase, states[0].done) == ("a nap", "ann", "sleeping", 3)
    assert len(runs[0].events()[0]) == 4
    assert starts(runs[0]) == starts(runs[1])  # one process, so what the first imported stays
    assert starts(runs[0]) != [os.getpid()]


def test_the_number_of_threads_is_left_to_the_user(engine):
    run = submit(naps(1))
    ended(run)
    assert run.events()[0][-1].value["threads"] is None


def test_a_failure_says_why_and_the_worker_goes_on(engine):
    run, after = submit({"kind": "breaks"}), submit(naps())
    state = ended(run)
    assert (state.state, state.message) == ("failed", "ZeroDivisionError: first line second line")
    assert ended(after).state == "finished"


def test_submits_from_many_threads_share_one_connection(engine):
    runs = []
    threads = [threading.Thread(target=lambda: runs.append(submit(naps(1, 0.0)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [ended(run).state for run in runs] == ["finished"] * 8
    assert all(len(starts(run)) == 1 for run in runs)


def test_runs_survive_the_death_of_who_submitted_them(engine):
    code = (
        "import time; from influence_core.runs import client; "
        "spec = {'kind': 'waits'}; "
        "print(client.submit(spec), client.submit(spec), flush=True); time.sleep(600)"
    )
    submitter = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert submitter.stdout is not None
    running, queued = (RunDirectory.open(run_id) for run_id in submitter.stdout.readline().split())
    under_way(running)
    assert queued.state().state == "pending"
    assert queued.state().position == 1
    submitter.kill()
    assert submitter.wait() == -signal.SIGKILL
    submitter.stdout.close()
    let_go(running)
    let_go(queued)
    assert [ended(running).state, ended(queued).state] == ["finished", "finished"]
    assert [len(starts(running)), len(starts(queued))] == [1, 1]


def test_a_killed_worker_gives_crashed_no_second_start_and_the_next_run_goes(engine):
    run = under_way(submit(WAITS))
    # Dask fails what waited on the worker too, and remembers that as long as somebody holds its future
    queued = RunDirectory.create(naps())
    dask_client = client.ensure_engine()
    held = dask_client.submit(run_entry, queued.id, key=queued.id, pure=False)
    until(lambda: dask_client.run_on_scheduler(is_on_worker, key=queued.id))
    (worker,) = starts(run)
    os.kill(worker, signal.SIGKILL)
    state = ended(run)
    assert state.state == "crashed"
    assert "start the run again" in state.message
    assert ended(queued).state == "finished"
    assert starts(queued) != [worker]
    assert starts(run) == [worker]
    held.release()
    assert run.state().state == "crashed"


def test_cancel_ends_a_run_within_one_step_and_closes_it(engine):
    run = under_way(submit(WAITS))
    (worker,) = starts(run)
    client.cancel(run.id)
    seen = len(run.events()[0])
    assert ended(run).state == "killed"
    assert len(run.events()[0]) <= seen + 1
    assert (run.result / "closed").exists()
    after = submit(naps(1))
    assert ended(after).state == "finished"
    assert starts(after) == [worker]  # nobody had to end the process


def test_cancel_of_a_pending_run_is_immediate_and_final(engine):
    first = under_way(submit(WAITS))
    pending, last = submit(naps()), submit(naps(1))
    assert client.cancel(pending.id).state == "killed"
    assert first.state().state == "running"
    let_go(first)
    assert ended(last).state == "finished"
    assert starts(pending) == []
    assert pending.state().state == "killed"


def test_cancel_of_a_run_that_is_over_changes_nothing(engine):
    run = submit(naps(1))
    before = ended(run)
    assert client.cancel(run.id) == before
    with pytest.raises(UserError, match="none with this id"):
        client.cancel("0123456789ab4def8123456789abcdef")


def test_a_run_stuck_inside_a_step_is_ended_after_the_grace(engine):
    run = under_way(submit({"kind": "stuck"}))
    queued = submit(naps(1))
    (worker,) = starts(run)
    state = client.cancel(run.id, grace=0.5)
    assert (state.state, state.cancelling) == ("running", True)
    assert ended(run).state == "killed"
    assert not psutil.pid_exists(worker)  # killed is only written when the process is gone
    assert ended(queued).state == "finished"
    assert starts(run) == [worker]


def test_an_urgent_run_goes_before_a_patient_one(engine):
    blocker = under_way(submit(WAITS))
    patient = [submit(naps(1), priority=-1) for _ in range(5)]
    urgent = submit(naps(1))
    assert [run.state().position for run in (urgent, *patient)] == [1, 2, 3, 4, 5, 6]
    dask_client = client.ensure_engine()
    until(lambda: all(dask_client.run_on_scheduler(is_on_worker, key=run.id) for run in (urgent, *patient)))
    let_go(blocker)
    began = [ended(run).started for run in (blocker, urgent, *patient)]
    assert began == sorted(began)


def test_the_credentials_are_private_and_no_port_speaks_without_them(engine):
    assert address.folder().stat().st_mode & 0o777 == 0o700
    published = address.published()
    assert published is not None
    listening = [
        connection.laddr
        for process in processes(engine)
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 3  # scheduler, nanny, worker
    for ip, port in listening:
        assert ip == "127.0.0.1"
        with socket.create_connection((ip, port), timeout=10) as plain:
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            try:
                answer = plain.recv(1)
            except ConnectionResetError:
                answer = b""
        assert answer in {b"", b"\x15"}, f"port {port} answers in plain text"  # 0x15: a TLS alert


def test_a_second_engine_refuses_and_clients_attach_to_the_first(engine):
    before = address.published()
    second = subprocess.run(
        [sys.executable, "-m", "influence_core.runs.engine"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert second.returncode == 2
    assert f"process {before.pid}" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    assert address.published() == before
    client.close()  # as a restarted app
    assert ended(submit(naps(1))).state == "finished"
    assert address.published() == before


def test_another_cluster_is_used_by_address_and_files(engine, monkeypatch, tmp_path):
    here = address.published()
    for field, variable in (("authority", "CA"), ("certificate", "CERT"), ("key", "KEY")):
        (tmp_path / field).write_text(getattr(here, field))
        monkeypatch.setenv(f"INFLUENCE_TLS_{variable}", str(tmp_path / field))
    monkeypatch.setenv("INFLUENCE_SCHEDULER", here.address)
    run = under_way(submit({"kind": "stuck"}))
    client.cancel(run.id, grace=0.2)
    assert ended(run).state == "killed"
    for thread in threading.enumerate():
        if thread.name == f"cancel {run.id}":
            thread.join(PATIENCE)
            assert not thread.is_alive()
    client.close()


def test_a_worker_can_be_added(engine):
    code = "from influence_core.runs.engine import worker; worker()"
    added = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert added.stdout is not None
    assert added.stdout.readline().startswith("working for tls://")
    runs = [under_way(submit(WAITS)) for _ in range(2)]  # one worker has one thread
    assert starts(runs[0]) != starts(runs[1])
    for run in runs:
        client.cancel(run.id)
        assert ended(run).state == "killed"
    added.terminate()
    assert added.wait(PATIENCE) == 0
    added.stdout.close()


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [("tcp://127.0.0.1:8786", "give a tls:// address"), ("tls://127.0.0.1:8786", "set INFLUENCE_TLS_CA")],
)
def test_a_cluster_without_tls_is_refused(own_home, monkeypatch, scheduler, message):
    monkeypatch.setenv("INFLUENCE_SCHEDULER", scheduler)
    with pytest.raises(UserError, match=message):
        client.ensure_engine()
    monkeypatch.delenv("INFLUENCE_SCHEDULER")


def test_an_engine_that_dies_leaves_pending_runs_to_the_next(own_home):
    running = under_way(submit(WAITS))
    pending = [submit(naps(1)) for _ in range(2)]
    first = address.published()
    os.kill(first.pid, signal.SIGKILL)
    assert ended(running).state == "crashed"
    assert [run.state().state for run in pending] == ["pending", "pending"]
    client.ensure_engine()
    assert address.published().pid != first.pid
    assert [ended(run).state for run in pending] == ["finished", "finished"]
    assert len(starts(running)) == 1
    # an engine that is asked to end says at once what became of its run
    running = under_way(submit(WAITS))
    assert client.stop_engine()
    assert running.record().state == "crashed"
    assert not client.stop_engine()


def test_an_engine_finds_what_waits_and_ends_when_idle(own_home):
    run = RunDirectory.create(naps(1))  # whoever made it died before it could submit
    engine = subprocess.run(
        [sys.executable, "-m", "influence_core.runs.engine", "--idle-seconds", "0.5"],
        cwd=ROOT,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert engine.returncode == 0, engine.stderr
    assert run.state().state == "finished"
    assert not (own_home / "engine" / "engine.json").exists()
    assert not locks.is_held(address.lock_file())


def test_an_engine_that_cannot_start_is_an_error_that_keeps_the_run(own_home, monkeypatch, tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no such interpreter >&2\nexit 1\n")
    broken.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(UserError, match=r"did not start .no such interpreter.*the run is kept as"):
        client.submit(naps())
    (state,) = RunDirectory.list_runs()
    assert state.state == "pending"


def test_devices_follow_the_environment(monkeypatch):
    for value, expected in (("", [None]), ("-1", [None]), ("0", ["0"]), ("1, GPU-5", ["1", "GPU-5"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert cluster.devices() == expected
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", "")  # no nvidia-smi
    assert cluster.devices() == [None]
