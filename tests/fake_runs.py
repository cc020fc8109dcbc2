"""Run kinds for tests of the engine: they sleep, fail or hang, and leave traces in their result folder."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from influence_core.errors import UserError
from influence_core.events import Events, Progress, Result

KINDS = ",".join(f"{kind}=fake_runs:{kind}" for kind in ("naps", "waits", "stuck", "breaks", "complains", "exits"))


def naps(spec: dict[str, Any], result: Path) -> Events:
    """Sleep ``steps`` times ``nap`` seconds."""
    _leave_traces(result)
    for step in range(spec["steps"]):
        time.sleep(spec["nap"])
        yield Progress(phase="sleeping", done=step + 1, total=spec["steps"], unit="naps")
    yield Result(value={"pid": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS")})


def waits(spec: dict[str, Any], result: Path) -> Events:
    """Go on, in small steps, until a file ``go`` is in the result folder."""
    _leave_traces(result)
    step = 0
    try:
        while not (result / "go").exists():
            step += 1
            yield Progress(phase="waiting", done=step, total=step)
            time.sleep(0.05)
        yield Result(value={"steps": step})
    finally:
        (result / "closed").touch()


def stuck(spec: dict[str, Any], result: Path) -> Events:
    """Hang inside one step, longer than any test waits."""
    _leave_traces(result)
    yield Progress(phase="hanging", done=0, total=1)
    time.sleep(600)


def breaks(spec: dict[str, Any], result: Path) -> Events:
    """Raise what a bug would raise, after an event."""
    yield Progress(phase="going well", done=1, total=2)
    raise ZeroDivisionError("first line\nsecond line")


def complains(spec: dict[str, Any], result: Path) -> Events:
    """Raise what bad input would raise, before any event."""
    if spec:
        raise UserError("k = 9: there are 3 rows; give a smaller k")
    yield Result(value={})


def exits(spec: dict[str, Any], result: Path) -> Events:
    """Try to end the worker."""
    yield Progress(phase="leaving", done=1, total=2)
    sys.exit(3)


def _leave_traces(result: Path) -> None:
    with (result / "starts").open("a") as file:  # a second start would add a line
        file.write(f"{os.getpid()}\n")
