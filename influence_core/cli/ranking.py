"""Commands that rank training rows: rank, explain, suspects."""

from typing import Annotated

import typer

from influence_core.cli.output import (
    Checkpoint,
    Json,
    Name,
    Scope,
    emit,
    given,
    number,
    pairs,
    run_here,
    table,
)
from influence_core.cli.settings import Method, SetOptions, settings_of
from influence_core.estimates import estimate
from influence_core.rankings import Ranking, Suspects
from influence_core.specs import ExplainSpec, RankSpec, SuspectsSpec
from influence_core.workspace import Workspace


def rank(
    workspace: Name,
    example: Annotated[str, typer.Option(help="id of a validation or test row")],
    method: Method = None,
    settings: SetOptions = None,
    target: Annotated[str | None, typer.Option(help="predicted (default), gold, or a label")] = None,
    by: Annotated[str | None, typer.Option(help="cosine (default) or score")] = None,
    top: Annotated[int | None, typer.Option(help="rows a side (default 50)")] = None,
    scope: Scope = None,
    checkpoint: Checkpoint = None,
    refresh: Annotated[bool, typer.Option(help="re-project rows relabelled since the products were made")] = False,
    json: Json = False,
) -> None:
    """Rank the training rows that push one prediction."""
    found = Workspace.open(workspace)
    options = given(
        example=example,
        method=method,
        settings=settings_of(method, settings),
        target=target,
        by=by,
        top=top,
        scope=scope,
        checkpoint=checkpoint,
    )
    ranking = Ranking(**run_here(found.spec(RankSpec, {**options, "refresh": refresh})))
    columns = ("id", "rank", "score", "cosine", "label", "text")
    sides = {
        side: [{name: getattr(row, name) for name in columns} for row in rows]
        for side, rows in (("proponents", ranking.proponents), ("opponents", ranking.opponents))
    }
    if json:
        emit(
            {"example": ranking.example, "target": ranking.target, "method": ranking.method, "by": ranking.by, **sides}
        )
        return
    word = {"proponents": "support", "opponents": "oppose"}
    print(f"{ranking.method} at {ranking.checkpoint}, scope {ranking.scope}, {ranking.rows} rows, by {ranking.by}")
    if "checkpoints" in ranking.notes:
        print("η: " + ", ".join(f"{number(eta)}" for eta in ranking.notes["eta"]))
    if ranking.notes.get("eta_known") is False:
        print("the checkpoint's learning rate is unknown: η = 1 in the scores")
    if ranking.notes.get("prefix") not in (None, "kept"):
        print(f"the frozen part's outputs are not kept: {ranking.notes['prefix']}")
    if ranking.notes.get("state"):
        print(f"Adam state: {ranking.notes['state']}")
    if ranking.notes.get("converged") is False:
        at = f"its residual is {number(ranking.notes['residual'])} of the gradient's norm"
        print(f"the solve did not converge: {at} after {ranking.notes['iterations']} iterations")
    if ranking.unsolved:
        print("it found nothing better than 0, so all scores are 0: choose another method, such as hif-cr")
    if ranking.notes.get("negative_at", -1) >= 0:
        print(f"negative curvature met at iteration {ranking.notes['negative_at'] + 1}: the Hessian is indefinite")
    for side, rows in sides.items():
        print(f"\n{side}: rows that {word[side]} {ranking.target!r}")
        table(rows, columns)
    if ranking.stale:
        print(f"\n{ranking.stale} rows were relabelled since: --refresh projects them again")


def explain(
    workspace: Name,
    example: Annotated[list[str] | None, typer.Option(help="ids (default: every misprediction)")] = None,
    split: Annotated[str | None, typer.Option(help="test (default) or validation")] = None,
    method: Method = None,
    settings: SetOptions = None,
    target: Annotated[str | None, typer.Option(help="predicted (default), gold, or a label")] = None,
    scope: Scope = None,
    checkpoint: Checkpoint = None,
    json: Json = False,
) -> None:
    """Compute what the rankings of many rows need, in as few passes as memory allows."""
    found = Workspace.open(workspace)
    options = given(
        examples=tuple(example) if example else None,
        split=split,
        method=method,
        settings=settings_of(method, settings),
        target=target,
        scope=scope,
        checkpoint=checkpoint,
    )
    spec = found.spec(ExplainSpec, options)
    typer.echo(f"this takes {estimate(found, spec).words}", err=True)
    value = run_here(spec)
    if json:
        emit(value)
    else:
        pairs(value)


def suspects(
    workspace: Name,
    method: Method = None,
    settings: SetOptions = None,
    top: Annotated[int | None, typer.Option(help="rows (default 50)")] = None,
    scope: Scope = None,
    checkpoint: Checkpoint = None,
    refresh: Annotated[bool, typer.Option(help="re-project rows relabelled since the products were made")] = False,
    json: Json = False,
) -> None:
    """List the training rows most influential on themselves: suspects for relabelling."""
    found = Workspace.open(workspace)
    options = given(method=method, settings=settings_of(method, settings), top=top, scope=scope, checkpoint=checkpoint)
    value = Suspects(**run_here(found.spec(SuspectsSpec, {**options, "refresh": refresh})))
    rows = [{name: getattr(row, name) for name in ("id", "score", "label", "text")} for row in value.suspects]
    if json:
        emit(rows)
        return
    print(f"{value.method} at {value.checkpoint}, scope {value.scope}, {value.rows} rows by influence on themselves")
    table(rows, ("id", "score", "label", "text"))
    if value.stale:
        print(f"\n{value.stale} rows were relabelled since their products were made: --refresh projects them again")


def register(app: typer.Typer) -> None:
    """Add this room's commands."""
    for command in (rank, explain, suspects):
        app.command()(command)
