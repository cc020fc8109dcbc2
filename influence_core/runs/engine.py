"""The engine: a process of its own that holds the scheduler and the workers, and looks after the runs.

``python -m influence_core engine``. It outlives the process that started it and ends by itself
after an idle time.
"""

import argparse
import asyncio
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

from influence_core.errors import UserError
from influence_core.runs import address, client, cluster, locks
from influence_core.runs.address import EngineAddress
from influence_core.runs.directory import RunDirectory
from influence_core.runs.state import RunRecord, queue_order

if TYPE_CHECKING:
    from distributed import Client, Security

IDLE_SECONDS = 1800.0
LOST_SECONDS = 120.0  # without any worker, after which the engine gives up
SCHEDULER_SECONDS = 60.0  # without its scheduler, after which a worker of another machine gives up
LOOK_SECONDS = 0.5  # between two looks at the run directories

_logger = logging.getLogger(__name__)


def serve(idle_seconds: float = IDLE_SECONDS) -> None:
    """Run the engine of this home until a signal or ``idle_seconds`` without a run.

    Raises `UserError` at once if this home has an engine already.
    """
    lock = locks.hold(address.lock_file(), patience=1.0)
    if lock is None:
        running = address.published()
        where = f"process {running.pid}, {running.address}" if running else "it is starting or ending"
        raise UserError(f"this home has an engine already ({where}): use it, or end it first")
    address.withdraw()  # what an engine that was killed left behind
    over = threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: over.set())
    try:
        _serve(over, idle_seconds)
    finally:
        address.withdraw()
        os.close(lock)


def _serve(over: threading.Event, idle_seconds: float) -> None:
    from distributed import Client, Security

    make: Any = Client  # Dask's constructors have no type hints
    make_security: Any = Security.temporary
    security = make_security()
    with (
        cluster.start(security) as dask_cluster,
        make(dask_cluster, security=security, set_as_default=False, name="engine") as dask_client,
    ):
        engine = _describe(dask_cluster.scheduler_address, security)
        address.publish(engine)
        print(f"engine ready at {engine.address}, process {engine.pid}", flush=True)
        keeper = Keeper(dask_client, dask_cluster.scheduler)
        busy = able = time.monotonic()
        while not over.wait(LOOK_SECONDS):
            if dask_cluster.scheduler.workers:
                able = time.monotonic()
            elif time.monotonic() - able > LOST_SECONDS:
                raise RuntimeError(f"no worker process came up for {LOST_SECONDS:g} s")  # a new engine may do better
            if keeper.look():
                busy = time.monotonic()
            elif time.monotonic() - busy > idle_seconds:
                # A client writes its run down before it looks for an engine, and we withdraw before
                # we look for runs: one of the two sees the other.
                address.withdraw()
                if not keeper.look():
                    print(f"engine ends after {idle_seconds:g} s without a run", flush=True)
                    return
                address.publish(engine)
    for run in RunDirectory.all():
        with suppress(FileNotFoundError):
            run.reconcile(at_once=True)
    print("engine ends", flush=True)


def _describe(scheduler_address: str, security: "Security") -> EngineAddress:
    roles: Any = security
    return EngineAddress(
        address=scheduler_address,
        authority=roles.tls_ca_file,
        certificate=roles.tls_client_cert,
        key=roles.tls_client_key,
        pid=os.getpid(),
    )


class Keeper:
    """Looks after runs whose own process or submitter may be gone."""

    def __init__(self, dask_client: "Client", scheduler: Any) -> None:
        self._client = dask_client
        self._scheduler = scheduler
        self._over: set[str] = set()  # a run that is over stays so: read it once

    def look(self) -> bool:
        """Write down crashes, end what ignores a cancel, hand in what waits; True if a run goes on."""
        active: list[tuple[RunRecord, RunDirectory]] = []
        for run in RunDirectory.all():
            if run.id not in self._over:
                with suppress(FileNotFoundError):  # deleted while we looked
                    active.append((run.reconcile(), run))
        self._over |= {run.id for record, run in active if record.is_over}
        active = sorted((pair for pair in active if not pair[0].is_over), key=lambda pair: queue_order(pair[0]))
        for record, run in active:
            try:
                self._look_at(record, run)
            except (OSError, RuntimeError, AssertionError):  # Dask's failed restart asserts; the next look tries again
                _logger.exception("run %s", run.id)
        return bool(active)

    def _look_at(self, record: RunRecord, run: RunDirectory) -> None:
        if record.state == "running" and run.cancel_overdue():
            client.end_worker(self._client, run)
        elif record.state == "pending":
            task = self._scheduler.tasks.get(run.id)
            if task is None:  # its submitter died before handing it in, or a worker died and took its queue along
                client.send(self._client, run)
            elif task.state == "erred":  # the same, and Dask heard too late that nobody waits for it
                self._scheduler.loop.add_callback(self._retry, run.id)

    def _retry(self, run_id: str) -> None:
        task = self._scheduler.tasks.get(run_id)
        if task is not None and task.state == "erred":
            self._scheduler.stimulus_retry([run_id])


def worker(scheduler_address: str | None = None) -> None:
    """Add this machine's devices to a cluster as workers, until a signal or the cluster's end.

    The default is this home's engine; another cluster's credentials come from the environment
    (`address.from_environment`). Raises `UserError` if there is no engine or no credentials.
    """
    engine = address.published()
    if scheduler_address is not None and (engine is None or engine.address != scheduler_address):
        engine = address.from_environment(scheduler_address)
    if engine is None:
        raise UserError("this home has no engine: start one, or give the address of a scheduler")
    asyncio.run(_work(engine))


async def _work(engine: EngineAddress) -> None:
    from distributed import Nanny

    make: Any = Nanny  # Dask's constructor has no type hints
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    async with AsyncExitStack() as stack:
        ends = [asyncio.ensure_future(over.wait())]
        for device in cluster.devices():
            options = cluster.worker_options(engine.security(), device)
            nanny = make(engine.address, death_timeout=SCHEDULER_SECONDS, **options)
            await stack.enter_async_context(nanny)
            ends.append(asyncio.ensure_future(nanny.finished()))
        print(f"working for {engine.address}", flush=True)
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()


def main() -> int:
    """Serve as a program: 0 when the engine ended, 2 when there is one already."""
    faulthandler.register(signal.SIGUSR1)  # kill -USR1 writes every thread's stack to the log
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle-seconds", type=float, default=IDLE_SECONDS)
    try:
        serve(parser.parse_args().idle_seconds)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
