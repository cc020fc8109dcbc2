"""``open``: a checkpoint and data become a workspace."""

import re
from pathlib import Path

import pandas as pd

from influence_core.data import files, hub
from influence_core.data.dataset import Dataset
from influence_core.errors import UserError
from influence_core.events import Events, Progress, Result
from influence_core.fingerprints import tensors_fingerprint
from influence_core.models.loading import class_names, load_folder, read_config
from influence_core.models.predict import run as predict
from influence_core.specs import DEFAULT_SCOPE, OpenSpec, PredictSpec, Split
from influence_core.workspace import WEIGHTS, Workspace

PHASES = ("checking the checkpoint", "reading the data", "loading the model", "predicting")
HELD_OUT = 5  # without a test file, every fifth row is held out as test


def run(spec: OpenSpec, result: Path) -> Events:
    """Find or make the workspace for a checkpoint and data; predicts its test split.

    Yields a `Progress` as each check is done, so that a page can fill in its list.
    """
    for what, path in (("checkpoint", spec.checkpoint), ("data", spec.data)):
        if not path.strip():
            raise UserError(f"the {what} is empty: give a path, or a name on the hub")
    folder = (
        hub.fetch_checkpoint(spec.checkpoint) if hub.looks_like_hub_name(spec.checkpoint) else Path(spec.checkpoint)
    )
    folder = folder.expanduser().resolve()
    names = class_names(read_config(folder))
    fingerprint = tensors_fingerprint(folder / WEIGHTS)
    yield Progress(phase=PHASES[0], done=1, total=len(PHASES), unit="checks")
    dataset = read(spec, names)
    yield Progress(phase=PHASES[1], done=2, total=len(PHASES), unit="checks")
    classifier = load_folder(folder, fingerprint, dataset.label_names)
    classifier.scope(spec.scope or DEFAULT_SCOPE)  # refuses one that the model does not have, before anything is made
    workspace = find_or_make(dataset, spec.scope)
    entry = next((own for own in workspace.checkpoints() if own.fingerprint == fingerprint), None)
    if entry is None:
        entry = workspace.add_checkpoint(free_name(workspace, folder.name), model=folder)
    elif Path(entry.path) != folder and not Path(entry.path).is_dir():
        entry = workspace.move_checkpoint(entry.name, folder)
    yield Progress(phase=PHASES[2], done=3, total=len(PHASES), unit="checks")
    accuracy = 0.0
    for event in predict(PredictSpec(workspace=workspace.name, checkpoint=entry.name, split="test"), result):
        if isinstance(event, Result):
            accuracy = float(event.value["accuracy"])
        else:
            yield event
    yield Progress(phase=PHASES[3], done=4, total=len(PHASES), unit="checks")
    yield Result(value=summary(workspace, entry.name, accuracy))


def summary(workspace: Workspace, checkpoint: str, accuracy: float) -> dict[str, object]:
    """Return what the command line prints for an opened workspace."""
    return {
        "workspace": workspace.name,
        "checkpoint": checkpoint,
        "data": workspace.data_fingerprint,
        "rows": {split: len(workspace.dataset.splits.get(split, ())) for split in ("train", "validation", "test")},
        "classes": list(workspace.label_names),
        "accuracy": accuracy,
        "mispredictions": len(workspace.mispredictions("test", checkpoint)),
    }


def read(spec: OpenSpec, label_names: list[str]) -> Dataset:
    """Read the data of a spec; without a test file every fifth training row is held out as test."""
    if hub.looks_like_hub_name(spec.data):
        paths, name = hub.fetch_dataset(spec.data), spec.data.replace("/", "-")
    else:
        main = Path(spec.data).expanduser().resolve()
        paths, name = {"train": main}, main.stem
    given: dict[Split, str | None] = {"validation": spec.validation, "test": spec.test}
    paths.update({split: Path(path).expanduser().resolve() for split, path in given.items() if path})
    dataset = files.load(name, paths, label_names, spec)
    if "test" in dataset.splits:
        return dataset
    rows = dataset.splits["train"]
    if len(rows) < HELD_OUT:
        raise UserError(f"{spec.data} has {len(rows)} rows and no test file was given: give a test file")
    held = pd.Series(range(len(rows))) % HELD_OUT == HELD_OUT - 1
    splits = {
        **dataset.splits,
        "train": rows[~held].reset_index(drop=True),
        "test": rows[held].reset_index(drop=True),
    }
    notes = {**dataset.notes, "test": f"every {HELD_OUT}th row of the training file"}
    return Dataset(dataset.name, dataset.label_names, splits, notes)


def find_or_make(dataset: Dataset, scope: str | None) -> Workspace:
    """Return the workspace that holds this data, else a new one named after it; a given scope becomes its default."""
    for name in Workspace.names():
        if (known := Workspace.open(name)).data_fingerprint == dataset.fingerprint:
            if scope is not None and scope != known.scope:
                known.set_scope(scope)
            return known
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", dataset.name).strip("-.") or "data"
    return Workspace.create(f"{stem}-{dataset.fingerprint[:6]}", dataset, scope or DEFAULT_SCOPE)


def free_name(workspace: Workspace, wanted: str) -> str:
    """Return a checkpoint name that the workspace does not use yet."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip("-._")[:48] or "checkpoint"
    used = {entry.name for entry in workspace.checkpoints()}
    return next(name for name in [stem, *(f"{stem}-{n}" for n in range(2, 1000))] if name not in used)
