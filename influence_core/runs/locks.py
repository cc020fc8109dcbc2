"""Advisory file locks that the kernel releases when their holder dies, even by ``kill -9``."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold ``path`` exclusively; waits for the present holder, which may be a thread of this process."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def hold(path: Path, patience: float = 0.0) -> int | None:
    """Take ``path`` exclusively within ``patience`` seconds; None if another holds it.

    Returns the descriptor: the lock lasts until it is closed or the process ends.
    """
    descriptor = _open(path)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
        time.sleep(0.02)


def is_held(path: Path) -> bool:
    """Say whether somebody holds ``path`` exclusively.

    The probe is a shared lock of a few microseconds, so probes do not see each other; who takes
    the lock with `hold` gives ``patience`` to outlast one.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
