"""How pages and the command line reach the engine: start it if absent, submit, cancel.

One Dask client a process, behind a lock; every call may come from any thread. Dask itself is
imported when a call needs it.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from influence_core import home
from influence_core.errors import UserError
from influence_core.runs import address, locks, registry
from influence_core.runs.address import EngineAddress
from influence_core.runs.directory import RunDirectory
from influence_core.runs.state import RunState, TransitionError
from influence_core.runs.worker import run_entry

if TYPE_CHECKING:
    from distributed import Client

START_SECONDS = 120.0  # two processes import Dask, on a machine that may be busy
CONNECT_SECONDS = 10.0
GRACE_SECONDS = 10.0
LOG_BYTES = 1_000_000

_lock = threading.RLock()
_connection: "tuple[EngineAddress, Client] | None" = None


def submit(spec: registry.AnyRunSpec, what: str = "", who: str = "", priority: int = 0) -> str:
    """Queue a run and return its id; a higher priority runs earlier.

    The run is on disk before anything else happens: if the engine cannot be reached (`UserError`)
    the run stays pending and starts when an engine does.
    """
    run = RunDirectory.create(spec, what=what, who=who, priority=priority)
    try:
        send(ensure_engine(), run)
    except UserError as error:
        raise UserError(f"{error}; the run is kept as {run.id} and starts when the engine does") from None
    return run.id


def send(client: "Client", run: RunDirectory) -> None:
    """Hand a pending run's id to the scheduler; a second time does nothing."""
    import distributed

    forget: Any = distributed.fire_and_forget  # without type hints, as much of Dask
    with suppress(OSError):  # connection lost just now: the run is pending, the next engine takes it
        future = client.submit(
            run_entry,
            run.id,
            key=run.id,
            pure=False,
            retries=0,
            priority=run.record().priority,
            fifo_timeout=0,  # Dask's 0.1 s would leave the order of quick submits open
        )
        forget(future)


def cancel(run_id: str, grace: float = GRACE_SECONDS) -> RunState:
    """Stop a run: a pending one at once, a running one at its next event.

    After ``grace`` seconds the worker process of a run that did not stop is ended: by the engine,
    or, on another cluster, by a thread of this process, which then stays until that is done.
    A run that is over is left as it is. Returns the state after the request.
    """
    run = RunDirectory.open(run_id)
    if run.reconcile().is_over:
        return run.state()
    run.request_cancel(grace)
    if run.record().state == "pending":
        with suppress(TransitionError):  # claimed just now: it sees the request itself
            run.kill()
    elif address.external() is not None:
        threading.Thread(target=_cancel_later, args=(run, grace), name=f"cancel {run_id}").start()
    return run.state()


def _cancel_later(run: RunDirectory, grace: float) -> None:
    if not run.wait(grace).is_over:
        end_worker(ensure_engine(), run)


def end_worker(client: "Client", run: RunDirectory) -> None:
    """End the process that runs a run, see that it is gone, and only then write ``killed``.

    Raises `TimeoutError` if the process does not go; the run's state is then unchanged.
    """

    def stop() -> None:
        worker = run.record().worker
        if worker is not None and worker in client.scheduler_info(n_workers=-1)["workers"]:
            client.restart_workers([worker], timeout=START_SECONDS)
        deadline = time.monotonic() + CONNECT_SECONDS
        while run.is_held():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the worker {worker} of run {run.id} did not end")
            time.sleep(0.05)

    with suppress(TransitionError):  # it ended by itself
        run.kill(stop)


def ensure_engine() -> "Client":
    """Return a client of the engine, started if absent; pending runs are handed to it.

    Raises `UserError` if none comes up or the one named by ``INFLUENCE_SCHEDULER`` does not answer.
    """
    with _lock:
        named = address.external()
        if named is not None:
            try:
                return _connect(named)
            except OSError as error:
                raise UserError(
                    f"no Dask scheduler answers at {named.address} ({type(error).__name__}): "
                    "start it, or unset INFLUENCE_SCHEDULER"
                ) from None
        return _local_engine()


def _local_engine() -> "Client":
    deadline = time.monotonic() + START_SECONDS
    started: list[subprocess.Popen[bytes]] = []
    while time.monotonic() < deadline:
        engine = address.published()
        if engine is not None:
            with suppress(OSError):  # it ended between the two lines
                return _connect(engine)
        elif not locks.is_held(address.lock_file()) and all(process.poll() is not None for process in started):
            if len(started) == 3:  # one may have lost to an engine that has ended since; three are broken
                break
            started.append(_start_engine())
        time.sleep(0.05)
    log = _log_file()
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    raise UserError(f"the engine did not start ({lines[-1] if lines else 'no message'}): see {log}")


def _start_engine() -> "subprocess.Popen[bytes]":
    # the engine imports what this process imports, wherever either was started
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": paths, "INFLUENCE_HOME": str(home.home())}
    log_file = _log_file()
    mode = "wb" if log_file.exists() and log_file.stat().st_size > LOG_BYTES else "ab"
    with log_file.open(mode) as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "influence_core.runs.engine"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=address.folder(),
            start_new_session=True,  # it outlives this process and does not hear its Ctrl-C
        )
    threading.Thread(target=process.wait, name="engine", daemon=True).start()  # leaves no zombie behind
    return process


def _log_file() -> Path:
    return address.folder() / "engine.log"


def _connect(engine: EngineAddress) -> "Client":
    global _connection
    if _connection is not None:
        known, client = _connection
        if known == engine and client.status == "running":
            return client
        close()
    from distributed import Client

    make: Any = Client  # Dask's constructor has no type hints
    fresh: Client = make(
        engine.address,
        security=engine.security(),
        timeout=CONNECT_SECONDS,
        set_as_default=False,
        name="influence",
    )
    _connection = (engine, fresh)
    for run in RunDirectory.pending():
        send(fresh, run)
    return fresh


def close() -> None:
    """Drop this process's connection; the engine and its runs go on."""
    global _connection
    with _lock:
        if _connection is not None:
            client: Any = _connection[1]
            _connection = None
            with suppress(OSError):
                client.close(timeout=2)


def stop_engine(patience: float = 30.0) -> bool:
    """End this home's engine and wait until it is gone; returns False if there was none.

    Pending runs stay pending, a running one is written down as crashed.
    """
    with _lock:
        close()
        engine = address.published()
        if engine is None or engine.pid is None:
            return False
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.kill(engine.pid, number)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                if not locks.is_held(address.lock_file()):
                    return True
                time.sleep(0.05)
        raise UserError(f"the engine (process {engine.pid}) does not end: end it yourself")
