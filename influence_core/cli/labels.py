"""Commands about labels: relabel, labels export, labels import."""

import getpass
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from influence_core.cli.output import Json, Name, emit, pairs
from influence_core.errors import UserError
from influence_core.labels import LabelStore, apply_import, current_labels, export, read_import
from influence_core.workspace import Workspace

labels_app = typer.Typer(no_args_is_help=True, help="Labels as people changed them.")
Who = Annotated[str | None, typer.Option(help="who decides (default: the login name)")]


def who(given: str | None) -> str:
    """Return the annotator's name."""
    if given is not None:
        return given
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise UserError("this login has no name: give --annotator NAME") from None


def relabel(
    workspace: Name,
    example: Annotated[str, typer.Option(help="id of a training row")],
    label: Annotated[str, typer.Option(help="the new label")],
    expect: Annotated[str | None, typer.Option(help="the label you saw (default: the current one)")] = None,
    note: str = "",
    annotator: Who = None,
    json: Json = False,
) -> None:
    """Record a label event; it is refused if the label is not the expected one."""
    found = Workspace.open(workspace)
    split, row = found.locate(example)
    if split != "train":
        raise UserError(f"example {example!r} is in {split}: only training rows are relabelled")
    seen = expect if expect is not None else found.label_names[int(found.labels().values[row])]
    event = found.relabel(example, label, expect=seen, annotator=who(annotator), note=note, source="cli")
    value = event.model_dump()
    emit(value) if json else pairs({name: value[name] for name in ("example", "old", "new", "verdict", "annotator")})


@labels_app.command("export")
def labels_export(
    workspace: Name,
    format: Annotated[str, typer.Option(help="csv, jsonl or parquet")] = "csv",
    events: Annotated[bool, typer.Option(help="every event instead of the current labels")] = False,
    out: Annotated[Path | None, typer.Option(help="a file (default: standard output)")] = None,
    json: Json = False,
) -> None:
    """Write current labels, or all events; CSV cells are safe to open in a spreadsheet."""
    found, store = Workspace.open(workspace), LabelStore()
    data = found.data_fingerprint
    rows: Any = store.history(data) if events else current_labels(store, data, found.training_rows())
    with tempfile.TemporaryFile() as made:  # whole before anything is written over
        count = export(rows, format, made)
        made.seek(0)
        if out is not None:
            try:
                with out.open("wb") as stream:
                    shutil.copyfileobj(made, stream)
            except OSError as error:
                raise UserError(f"{out} cannot be written ({error.strerror}): give another file") from None
        elif not json:
            shutil.copyfileobj(made, sys.stdout.buffer)
    if json:
        emit({"rows": count, "format": format, "file": str(out) if out else None})
    elif out is not None:
        print(f"{count} rows written to {out}")


@labels_app.command("import")
def labels_import(
    workspace: Name, file: Path, dry_run: bool = False, annotator: Who = None, json: Json = False
) -> None:
    """Record the labels of a file (columns example, label): all of them or none."""
    found = Workspace.open(workspace)
    if not file.is_file():
        raise UserError(f"{file} is missing: give an existing .csv, .jsonl or .parquet file")
    changes, problems = read_import(file, found.label_names)
    counts = apply_import(
        LabelStore(),
        changes,
        problems,
        workspace=found.name,
        data_fingerprint=found.data_fingerprint,
        originals=found.original_labels(change.example for change in changes),
        annotator=who(annotator),
        source=file.name,
        dry_run=dry_run,
    )
    emit(counts) if json else pairs(counts)


def register(app: typer.Typer) -> None:
    """Add this room's commands."""
    app.command()(relabel)
    app.add_typer(labels_app, name="labels")
