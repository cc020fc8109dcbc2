"""The sign of life of a running run: a file that a thread touches, locked while its process lives."""

import os
import threading
import time
from pathlib import Path
from types import TracebackType

from influence_core.runs import locks

BEATS_MISSED = 5  # a loaded machine may be late by a few


def interval() -> float:
    """Return the seconds between two beats (``INFLUENCE_HEARTBEAT``, default 2)."""
    return float(os.environ.get("INFLUENCE_HEARTBEAT", "2"))


def announced() -> float:
    """Return the age in seconds that a heartbeat does not reach while the run lives."""
    return BEATS_MISSED * interval()


def age(path: Path) -> float:
    """Return the seconds since the last beat; infinite if there never was one."""
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return float("inf")


class Heartbeat:
    """Touches a file every few seconds until left; use it as a context.

    The file's lock tells a process that is only late (a suspended laptop) from one that is gone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._interval = interval()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat {path.parent.name}", daemon=True)
        self._descriptor = -1

    def __enter__(self) -> "Heartbeat":
        descriptor = locks.hold(self._path, patience=1.0)
        if descriptor is None:
            raise RuntimeError(f"another process already runs {self._path.parent.name}")
        self._descriptor = descriptor
        os.utime(descriptor)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        os.close(self._descriptor)

    def _beat(self) -> None:
        while not self._over.wait(self._interval):
            os.utime(self._descriptor)
