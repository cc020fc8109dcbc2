"""What a worker does with a run: claim it, write its events down, say how it ended."""

import logging
import traceback
from contextlib import closing
from typing import Any

from influence_core import home
from influence_core.errors import RunFailedError, UserError
from influence_core.events import Result
from influence_core.runs import preload, registry
from influence_core.runs.directory import RunDirectory
from influence_core.runs.heartbeat import Heartbeat
from influence_core.runs.state import TransitionError

_logger = logging.getLogger(__name__)


def run_entry(run_id: str) -> None:
    """Do one run from claim to end; a run that is not pending is left alone.

    Whatever happens is told by the run directory: this raises nothing that a run's own code raised.
    """
    run = RunDirectory.open(run_id)
    try:
        run.claim(_address())
    except TransitionError as refusal:
        _logger.info("%s", refusal)
        return
    with Heartbeat(run.heartbeat_file):
        try:
            _to_the_end(run)
        except TransitionError as refusal:  # another process saw its end before we did
            _logger.warning("%s", refusal)


def _to_the_end(run: RunDirectory) -> None:
    try:
        finished = _follow(run)
    except TransitionError:
        raise
    except (UserError, RunFailedError) as error:
        _end_badly(run, str(error), error)
    except (Exception, SystemExit) as error:  # a run's code may raise anything, and the worker must go on
        reason = " ".join(str(error).split())
        _end_badly(run, f"{type(error).__name__}: {reason}" if reason else type(error).__name__, error)
    else:
        run.finish() if finished else run.kill()


def _follow(run: RunDirectory) -> bool:
    """Write every event down; returns False if a request to stop came first."""
    preload.wait()
    if run.cancel_requested():
        return False
    last: dict[str, Any] | None = None
    # every run is a generator: closing it lets its own `finally` blocks release what it holds
    with closing(_as_generator(registry.start(run.spec(), run.result))) as events:
        for event in events:
            run.append(event)
            if isinstance(event, Result):
                last = event.value
            if run.cancel_requested():
                return False
    if last is not None:
        home.write_json(run.result / "result.json", last)
    return True


def _as_generator(events: Any) -> Any:
    yield from events


def _end_badly(run: RunDirectory, message: str, error: BaseException) -> None:
    (run.path / "traceback.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    run.fail(message)


def _address() -> str | None:
    from distributed import get_worker  # here: pages import this module for `run_entry` only

    try:
        return str(get_worker().address)
    except ValueError:  # not on a Dask worker
        return None
