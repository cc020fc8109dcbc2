"""Results that the user does not want to see again: hidden by a marker, never deleted."""

from influence_core.runs.directory import RunDirectory

_MARKER = "discarded"


def discard(run: RunDirectory) -> None:
    """Hide a run's result from the list of runs."""
    run.result.mkdir(parents=True, exist_ok=True)
    (run.result / _MARKER).touch()


def restore(run: RunDirectory) -> None:
    """Show a discarded run again."""
    (run.result / _MARKER).unlink(missing_ok=True)


def is_discarded(run: RunDirectory) -> bool:
    """Whether the run's result was discarded."""
    return (run.result / _MARKER).exists()
