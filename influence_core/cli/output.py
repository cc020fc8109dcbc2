"""What commands print: tables for people, JSON alone on standard output for programs."""

import json
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from tqdm import tqdm

from influence_core.errors import UserError
from influence_core.events import Events, Progress, Result
from influence_core.runs import registry
from influence_core.runs.stopping import request_stop
from influence_core.specs import AnySpec

Json = Annotated[bool, typer.Option("--json", help="Print JSON alone on standard output.")]
Checkpoint = Annotated[str | None, typer.Option(help="A checkpoint of the workspace (default: its first).")]
Scope = Annotated[str | None, typer.Option(help="head, last:n or all (default: the workspace's).")]
Name = Annotated[str, typer.Argument(metavar="W", help="A workspace's name, as open prints it.")]

T = TypeVar("T")
WIDTH = 72  # characters of a text in a table


def emit(value: Any) -> None:
    """Print one JSON value on a line of its own, at once."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def number(value: Any) -> str:
    """Write a number with three significant digits, anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Print rows as an aligned table; texts are cut, numbers right-aligned."""
    cells = [[number(row.get(column, "")) for column in columns] for row in rows]
    cells = [[cell.replace("\n", " ")[:WIDTH] for cell in row] for row in cells]
    widths = [max(len(column), *(len(row[i]) for row in cells), 0) for i, column in enumerate(columns)]
    right = [bool(rows) and isinstance(rows[0].get(column), int | float) for column in columns]
    for line in [list(columns), *cells]:
        shown = (cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True))
        print("  ".join(shown).rstrip())


def pairs(value: dict[str, Any]) -> None:
    """Print a small record, a field a line."""
    for name, own in value.items():
        print(f"{name}: {number(own)}")


def follow(events: Iterable[Progress | T]) -> Iterable[T]:
    """Show progress on standard error and yield everything else."""
    bar: tqdm[Any] | None = None
    phase = ""
    try:
        for event in events:
            if not isinstance(event, Progress):
                yield event
                continue
            if bar is None or event.phase != phase:
                if bar is not None:
                    bar.close()
                phase = event.phase
                bar = tqdm(total=event.total, desc=phase, unit=f" {event.unit}", file=sys.stderr, leave=False)
            bar.total = event.total
            bar.update(event.done - bar.n)
    finally:
        if bar is not None:
            bar.close()


def finish(events: Events) -> dict[str, Any]:
    """Run to the end, showing progress; return the result's value."""
    for event in follow(events):
        if isinstance(event, Result):
            return event.value
    raise RuntimeError("the run ended without a result")


def last(events: Iterable[Progress | T], kind: type[T]) -> T:
    """Run to the end, showing progress; return the one event of this kind."""
    found = [event for event in follow(events) if isinstance(event, kind)]
    return found[-1]


def run_here(spec: AnySpec, *, early: bool = False) -> dict[str, Any]:
    """Run a spec in this process to its end, showing progress; return the result's value.

    With ``early`` a first Ctrl-C asks for an end at the next stop that the run has, with what is finished.
    """
    with tempfile.TemporaryDirectory() as temporary, _stopping(Path(temporary)) if early else nullcontext():
        return finish(registry.start(spec, Path(temporary)))


@contextmanager
def _stopping(result: Path) -> Iterator[None]:
    """Make the first Ctrl-C a request to stop; the second one is what it always was."""

    def ask(_signal: int, _frame: object) -> None:
        request_stop(result)
        signal.signal(signal.SIGINT, before)
        print("stopping, with what is finished; press Ctrl-C again to end at once", file=sys.stderr)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # a shell's background process is not to be stopped by Ctrl-C
        signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def named(pairs_given: Sequence[str] | None, option: str) -> dict[str, str] | None:
    """Read NAME=VALUE texts; raises `UserError` for one without the sign."""
    found = {}
    for text in pairs_given or ():
        name, equals, value = text.rpartition("=")
        if not (equals and name):
            raise UserError(f"{option} {text!r} is not of the form NAME=VALUE: write it so")
        found[name] = value
    return found or None


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were given (not None), so that the spec's defaults hold for the rest."""
    return {name: value for name, value in options.items() if value is not None}
