"""Commands about workspaces: demo, open, mispredictions."""

import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from influence_core.cli.output import Checkpoint, Json, Name, emit, finish, given, last, named, pairs, table
from influence_core.cli.survey import words
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
    checkpoint: Annotated[
        str, typer.Argument(help="A folder, a Trainer's output folder, a weights file, or a name on the hub.")
    ],
    data: Annotated[
        str,
        typer.Argument(
            help="CSV, TSV, JSONL or Parquet, a folder of images, IDX files or a saved data set, or a name."
        ),
    ],
    validation: Annotated[str | None, typer.Option(help="a path, or a split's name")] = None,
    test: Annotated[str | None, typer.Option(help="a path, or a split's name (default: every fifth row)")] = None,
    train: Annotated[str | None, typer.Option(help="the name of the split that is trained on")] = None,
    text_column: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    class_: Annotated[list[str] | None, typer.Option("--class", help="LABEL=CLASS, for labels of other names")] = None,
    label_word: Annotated[list[str] | None, typer.Option(help="CLASS=WORD that a T5 checkpoint says")] = None,
    prefix: Annotated[str | None, typer.Option(help="put before every text")] = None,
    max_length: Annotated[int | None, typer.Option(help="tokens after which texts are cut")] = None,
    drop_broken: Annotated[bool, typer.Option(help="leave out rows that cannot be used")] = False,
    also: Annotated[list[str] | None, typer.Option(help="one more checkpoint of the same training")] = None,
    architecture: Annotated[str | None, typer.Option(help="of a torchvision state dict: resnet18-cifar, …")] = None,
    revision: Annotated[str | None, typer.Option(help="of a checkpoint on the hub")] = None,
    configuration: Annotated[str | None, typer.Option(help="of a data set on the hub")] = None,
    data_revision: Annotated[str | None, typer.Option(help="of a data set on the hub")] = None,
    scope: Annotated[str | None, typer.Option(help="head, last:n or all (default: last:2)")] = None,
    check: Annotated[bool, typer.Option(help="look and report only")] = False,
    json: Json = False,
) -> None:
    """Find or make a workspace for a checkpoint and data; print its name."""
    from influence_core.data.opening import Look, look, make

    options = given(
        validation=validation,
        test=test,
        train=train,
        text_column=text_column,
        image_column=image_column,
        label_column=label_column,
        id_column=id_column,
        classes=named(class_, "--class"),
        label_words=named(label_word, "--label-word"),
        prefix=prefix,
        max_length=max_length,
        also=also,
        architecture=architecture,
        revision=revision,
        configuration=configuration,
        data_revision=data_revision,
        scope=scope,
    )
    try:
        spec = OpenSpec(checkpoint=checkpoint, data=data, drop_broken=drop_broken, **options)
    except ValidationError as error:
        raise UserError(one_line(error)) from None
    found = last(look(spec), Look)
    if check and json:
        emit(found.survey.model_dump(mode="json"))
        return
    for line in words(found.survey):  # the classes, before anything runs
        print(line, file=sys.stdout if check else sys.stderr)
    if not check:
        with tempfile.TemporaryDirectory() as temporary:
            value = finish(make(spec, found, Path(temporary)))
        emit(value) if json else _opened(value)


def _opened(value: dict[str, Any]) -> None:
    """Say what was opened, and how to name the checkpoint where it is not the workspace's first."""
    rows = ", ".join(f"{count:,} {split}" for split, count in value["rows"].items() if count)
    listed = {name: ", ".join(value[name]) for name in ("checkpoints", "classes")}
    pairs({**{name: own for name, own in value.items() if name != "notes"}, "rows": rows, **listed})
    for note in value["notes"]:
        print(f"note: {note}")
    if Workspace.open(value["workspace"]).checkpoint().name != value["checkpoint"]:
        print(f"the workspace had a checkpoint already: give --checkpoint {value['checkpoint']} to the other commands")


def checkpoints(workspace: Name, json: Json = False) -> None:
    """List a workspace's checkpoints, the first (the default) first."""
    rows: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "kind": entry.kind,
            "parent": entry.parent,
            "path": entry.path,
            "step": entry.notes.get("step"),
            "optimizer": (entry.optimizer or {}).get("kind"),
            "prepared": entry.preparation.key,
        }
        for entry in Workspace.open(workspace).checkpoints()
    ]
    if json:
        emit(rows)
        return
    shown = [
        {**row, "prepared": ", ".join(f"{name} {value}" for name, value in row["prepared"].items())} for row in rows
    ]
    table([{name: "" if own is None else own for name, own in row.items()} for row in shown], list(rows[0]))


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
            "text": row.get("text", row.get("file", "")),
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
        name = found.checkpoint(checkpoint).name
        print(f"{len(rows)} of {len(found.dataset.splits[split])} wrong in {split}, predicted by {name}")


def _show(value: dict[str, Any], json: bool) -> None:
    emit(value) if json else pairs(value)


def register(app: typer.Typer) -> None:
    """Add this room's commands."""
    app.add_typer(demo_app, name="demo")
    app.command("open")(open_)
    app.command("mispredictions")(mispredictions)
    app.command("checkpoints")(checkpoints)
