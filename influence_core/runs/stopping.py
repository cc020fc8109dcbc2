"""Asking a run to end early and well: it stops at its next step and still makes its result.

Cancelling (`RunDirectory.request_cancel`) is the other thing: it ends the run as killed.
"""

from pathlib import Path

_NAME = "stop"


def request_stop(result: Path) -> None:
    """Ask the run whose result folder this is to stop at its next step."""
    result.mkdir(parents=True, exist_ok=True)
    (result / _NAME).touch()


def stop_requested(result: Path) -> bool:
    """Whether it was asked to."""
    return (result / _NAME).exists()
