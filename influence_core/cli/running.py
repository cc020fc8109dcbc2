"""Commands about the engine and its runs."""

from typing import Annotated, Any

import typer

from influence_core.cli.output import Json, emit, pairs, table
from influence_core.errors import UserError
from influence_core.runs.directory import RunDirectory
from influence_core.runs.state import RunState

runs_app = typer.Typer(invoke_without_command=True, help="Runs of the engine.")
COLUMNS = ("id", "kind", "state", "progress", "created", "seconds")


def row(state: RunState) -> dict[str, Any]:
    """Return what a listing shows of a run; progress is a share, or null while unknown."""
    progress = state.done / state.total if state.done is not None and state.total else None
    return {
        "id": state.id,
        "kind": state.kind,
        "state": state.state,
        "progress": progress,
        "created": state.created.isoformat(),
        "seconds": state.seconds,
    }


@runs_app.callback()
def runs(context: typer.Context, json: Json = False) -> None:
    """List all runs, newest first."""
    if context.invoked_subcommand is not None:
        return
    rows = [row(state) for state in RunDirectory.list_runs()]
    emit(rows) if json else table(rows, COLUMNS)


@runs_app.command("show")
def show(run_id: str, json: Json = False) -> None:
    """Show one run: its state, what was asked, its message."""
    run = RunDirectory.open(run_id)
    spec = run.spec()
    state = run.state()
    value = {**row(state), "message": state.message, "phase": state.phase}
    value["spec"] = spec if isinstance(spec, dict) else spec.model_dump()
    emit(value) if json else pairs(value)


@runs_app.command("cancel")
def cancel(run_id: str, json: Json = False) -> None:
    """Cancel a run: at once if it waits, at its next step if it runs."""
    from influence_core.runs import client

    state = client.cancel(run_id)
    emit(row(state)) if json else print(f"{state.id}: {'cancelling' if state.cancelling else state.state}")


def engine(
    idle_seconds: Annotated[float | None, typer.Option(help="end after so long without a run (default 1800)")] = None,
) -> None:
    """Serve runs on this machine until idle."""
    from influence_core.runs.engine import IDLE_SECONDS, serve

    if idle_seconds is not None and not idle_seconds > 0:
        raise UserError(f"idle_seconds = {idle_seconds:g}: give more than 0")
    serve(IDLE_SECONDS if idle_seconds is None else idle_seconds)


def worker(
    address: Annotated[str | None, typer.Option(help="tls://… of a scheduler (default: this home's)")] = None,
) -> None:
    """Add this machine's devices to a cluster as workers."""
    from influence_core.runs.engine import worker as work

    work(address)


def register(app: typer.Typer) -> None:
    """Add this room's commands."""
    app.add_typer(runs_app, name="runs")
    app.command()(engine)
    app.command()(worker)
