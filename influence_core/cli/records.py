"""Commands about a correction that is over: replay what was kept, report a run."""

from pathlib import Path
from typing import Annotated

import typer

from influence_core.cli.output import Json, Name, emit, last
from influence_core.cli.report_file import check_report, save_report
from influence_core.replays import Replayed
from influence_core.workspace import Workspace


def replay(
    workspace: Name,
    name: Annotated[str, typer.Argument(metavar="NAME", help="a checkpoint that a correction was kept as")],
    json: Json = False,
) -> None:
    """Make a kept correction again from its manifest, and compare the weights bit for bit; exit 1 if they differ."""
    from influence_core.correction.replay import replay

    found = last(replay(Workspace.open(workspace), name), Replayed)
    if json:
        emit(found.model_dump() | {"words": found.words})
    else:
        print(found.words)
        for reason in found.reasons:
            print(f"why that can be: {reason}")
    if not found.same:
        raise typer.Exit(1)


def report(
    run_id: Annotated[str, typer.Argument(help="a correction's run, as runs lists it")],
    out: Annotated[Path, typer.Option(help="an .html file to write")],
    json: Json = False,
) -> None:
    """Write the report of a correction's run: one HTML page that needs no network."""
    from influence_core.reports.correction import report

    check_report("--out", out)
    text = report(run_id)
    save_report("--out", out, text)
    emit({"report": str(out), "bytes": len(text.encode())}) if json else print(out)


def register(app: typer.Typer) -> None:
    """Add this room's commands."""
    for command in (replay, report):
        app.command()(command)
