"""The command that trains by a recipe."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from influence_core.cli.output import Json, emit, finish, pairs
from influence_core.training import recipes


class Select(StrEnum):
    """Which checkpoint of a training is chosen."""

    best = "best-validation"
    last = "last"


def train(
    recipe: Annotated[str, typer.Option(help=f"One of {', '.join(recipes.RECIPES)}.")],
    out: Annotated[Path, typer.Option(help="The folder for the checkpoints.")],
    data: Annotated[str | None, typer.Option(help="A path or hub name instead of the recipe's data.")] = None,
    base: Annotated[str | None, typer.Option(help="A checkpoint folder or hub name instead of the recipe's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last whole checkpoint.")] = False,
    select: Annotated[Select, typer.Option(help="Which checkpoint is chosen.")] = Select.last,
    select_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints (default: one each epoch).", min=1)
    ] = None,
    json: Json = False,
) -> None:
    """Train by a recipe: checkpoints with their optimizer state, and which of them is chosen."""
    found = recipes.find(recipe)
    from influence_core.training.run import run

    value = finish(run(found, out, data, base, resume, select.value, select_every))
    emit(value) if json else pairs(value)


def register(app: typer.Typer) -> None:
    """Add this room's command."""
    app.command()(train)
