"""Commands of the studies: ``study NAME W``."""

from typing import Annotated

import typer

from influence_core.cli.output import Checkpoint, Json, Name, Scope, emit, given, run_here, table
from influence_core.specs import StabilitySpec
from influence_core.workspace import Workspace

app = typer.Typer(no_args_is_help=True, help="Experiments on a workspace; what they compute is kept.")


@app.command()
def stability(
    workspace: Name,
    hessian_rows: Annotated[list[int] | None, typer.Option(help="sample sizes (default 256, 128, 512)")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="seeds of the first size (default 0, 1)")] = None,
    k: Annotated[int | None, typer.Option(help="eigenvectors kept (default 32)")] = None,
    iterations: Annotated[int | None, typer.Option(help="Lanczos iterations (default 64)")] = None,
    queries: Annotated[int | None, typer.Option(help="mispredictions compared (default 16)")] = None,
    top: Annotated[int | None, typer.Option(help="rows of each end compared (default 20)")] = None,
    scope: Scope = None,
    checkpoint: Checkpoint = None,
    json: Json = False,
) -> None:
    """Say how much ABIF's top rows depend on the Hessian's sample."""
    found = Workspace.open(workspace)
    options = given(
        hessian_rows=tuple(hessian_rows) if hessian_rows else None,
        seeds=tuple(seed) if seed else None,
        k=k,
        iterations=iterations,
        queries=queries,
        top=top,
        scope=scope,
        checkpoint=checkpoint,
    )
    value = run_here(found.spec(StabilitySpec, options))
    if json:
        emit(value)
        return
    print(f"ABIF, k = {value['k']}, {value['queries']} mispredictions, top {value['top']} of both ends by cosine")
    rows = [
        {
            "Hessian rows": " / ".join(map(str, pair["rows"])),
            "seeds": " / ".join(map(str, pair["seeds"])),
            "overlap": pair["overlap"],
            "Spearman": pair["spearman"],
        }
        for pair in value["pairs"]
    ]
    table(rows, ("Hessian rows", "seeds", "overlap", "Spearman"))


def register(root: typer.Typer) -> None:
    """Add this room's commands."""
    root.add_typer(app, name="study")
