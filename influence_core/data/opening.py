"""``check`` and ``open``: a checkpoint and data are looked at, and become a workspace."""

import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from influence_core.checkpoints.inspecting import inspect
from influence_core.data import hub
from influence_core.data.dataset import Dataset, Modality
from influence_core.data.surveying import DataSurvey, survey_data
from influence_core.data.writing import write
from influence_core.errors import UserError
from influence_core.events import Events, Progress, Result, through
from influence_core.fingerprints import tensors_fingerprint
from influence_core.home import folder
from influence_core.models.importing import Imported, import_checkpoint
from influence_core.models.loading import load_folder
from influence_core.models.predict import run as predict
from influence_core.specs import DEFAULT_SCOPE, CheckSpec, OpenSpec, PredictSpec, Sources
from influence_core.survey import CheckpointFound, Survey
from influence_core.workspace import WEIGHTS, Checkpoint, Workspace

DAY = 86_400  # seconds
PHASES = ("checking the checkpoint", "reading the data", "loading the model", "predicting")


@dataclass(frozen=True)
class Look:
    """What was found, and what writing the data needs of it."""

    survey: Survey
    data: DataSurvey


def check(spec: CheckSpec, result: Path) -> Events:
    """Look at a checkpoint and data and report; the result is a `Survey`. No tensor is allocated, nothing is made."""
    found = yield from through(look(spec), Look)
    yield Result(value=found.survey.model_dump(mode="json"))


def run(spec: OpenSpec, result: Path) -> Events:
    """Find or make the workspace for a checkpoint and data; predicts its test split.

    Yields a `Progress` as each check is done, so that a page can fill in its list.
    """
    found = yield from through(look(spec), Look)
    yield from make(spec, found, result)


def make(spec: OpenSpec, found: Look, result: Path) -> Events:
    """Make of what was looked at a workspace, or find the one that has this data; see `run`."""
    survey = found.survey
    if survey.problems:
        raise UserError(survey.problems[0])
    with _staging() as staged:
        dataset = yield from through(write(spec, found.data, staged / "data"), Dataset)
        workspace = _of_data(dataset)
        entries = _entries(spec, survey, staged / "checkpoints", workspace)
        imported = entries[0].imported
        classifier = load_folder(
            imported.path, entries[0].fingerprint, survey.label_names, imported.kind, imported.preparation
        )
        classifier.scope(spec.scope or DEFAULT_SCOPE)  # refuses one that the model does not have
        if workspace is None:
            workspace = Workspace.install(_name(dataset), staged, dataset, spec.scope or DEFAULT_SCOPE)
        elif spec.scope is not None and spec.scope != workspace.scope:
            workspace.set_scope(spec.scope)
        names = [_keep(workspace, entry, staged) for entry in entries]
    yield Progress(phase=PHASES[2], done=3, total=len(PHASES), unit="checks")
    accuracy = 0.0
    for event in predict(PredictSpec(workspace=workspace.name, checkpoint=names[0], split="test"), result):
        if isinstance(event, Result):
            accuracy = float(event.value["accuracy"])
        else:
            yield event
    yield Progress(phase=PHASES[3], done=4, total=len(PHASES), unit="checks")
    yield Result(value=summary(workspace, names, accuracy, survey))


def look(spec: Sources) -> Iterator[Progress | Look]:
    """Read headers and configurations of the checkpoints, then every row of the data."""
    for what, given in (("checkpoint", spec.checkpoint), ("data", spec.data)):
        if not given.strip():
            raise UserError(f"the {what} is empty: give a path, or a name on the hub")
    checkpoints = inspect(spec, place_of(spec, spec.checkpoint), [place_of(spec, name) for name in spec.also])
    yield Progress(phase=PHASES[0], done=1, total=len(PHASES), unit="checks")
    first = checkpoints[0]
    modality: Modality = "image" if first.kind == "image" else "text"
    data = yield from through(survey_data(spec, first.classes, modality), DataSurvey)
    yield Progress(phase=PHASES[1], done=2, total=len(PHASES), unit="checks")
    survey = Survey(
        checkpoints=tuple(checkpoints), data=data.found, label_names=data.label_names, problems=data.problems
    )
    yield Look(survey, data)


def place_of(spec: Sources, name: str) -> Path:
    """Return a checkpoint's folder or file on this machine, fetched from the hub where it is a name there."""
    return hub.fetch_checkpoint(name, spec.revision) if hub.looks_like_hub_name(name) else Path(name).expanduser()


@dataclass(frozen=True)
class _Entry:
    """A checkpoint on its way into a workspace."""

    name: str  # that it has, or will have
    imported: Imported
    fingerprint: str
    kept: Checkpoint | None  # the workspace's own entry of the same tensors, prepared alike


def _entry(
    spec: Sources, found: CheckpointFound, place: Path, label_names: tuple[str, ...], workspace: Workspace | None
) -> _Entry:
    """Make a checkpoint readable, in ``place`` where its own folder is not."""
    name = _free_name(Path(found.path).stem, workspace, place)
    own = place / name
    own.mkdir(parents=True)
    imported = import_checkpoint(found, spec, own, label_names)
    fingerprint = tensors_fingerprint(imported.path / WEIGHTS)
    known = [] if workspace is None else workspace.checkpoints()
    same = [e for e in known if (e.fingerprint, e.preparation) == (fingerprint, imported.preparation)]
    return _Entry(name, imported, fingerprint, same[0] if same else None)


def _entries(spec: Sources, survey: Survey, place: Path, workspace: Workspace | None) -> list[_Entry]:
    """Make all checkpoints readable; of two with the same tensors the one that carries an optimizer stays."""
    entries: list[_Entry] = []
    for found in survey.checkpoints:
        entry = _entry(spec, found, place, survey.label_names, workspace)
        same = [number for number, other in enumerate(entries) if other.fingerprint == entry.fingerprint]
        if not same:
            entries.append(entry)
        elif entries[same[0]].imported.optimizer is None:
            entries[same[0]] = entry
    return entries


def _keep(workspace: Workspace, entry: _Entry, staged: Path) -> str:
    """Make a checkpoint part of the workspace, unless it is; returns its name there."""
    source, own = entry.imported.path, workspace.path / "checkpoints" / entry.name
    staging = staged / "checkpoints" / entry.name
    if entry.kept is not None:
        if source != staging and Path(entry.kept.path) != source.resolve() and not Path(entry.kept.path).is_dir():
            workspace.move_checkpoint(entry.kept.name, source)
        return entry.kept.name
    if staging.exists():  # otherwise it moved with the whole folder
        own.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(own)
    imported = replace(entry.imported, path=own if source == staging else source)
    optimizer = imported.optimizer
    if optimizer is not None and (state := optimizer.get("state")) and Path(state).is_relative_to(staging):
        optimizer = {**optimizer, "state": str(own / Path(state).relative_to(staging))}
    workspace.add_checkpoint(
        entry.name,
        model=imported.path,
        kind=imported.kind,
        preparation=imported.preparation,
        optimizer=optimizer,
        notes=imported.notes,
    )
    return entry.name


@contextmanager
def _staging() -> Iterator[Path]:
    """A folder in which a workspace is put together; what is left in it at the end goes."""
    for left in folder("workspaces").glob(".staging-*"):  # by a process that was killed
        if time.time() - left.stat().st_mtime > DAY:
            shutil.rmtree(left, ignore_errors=True)
    staged = folder("workspaces", f".staging-{uuid.uuid4().hex}")
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def summary(workspace: Workspace, checkpoints: list[str], accuracy: float, survey: Survey) -> dict[str, Any]:
    """Return what the command line prints for an opened workspace."""
    splits = survey.data.splits.values()
    return {
        "workspace": workspace.name,
        "checkpoint": checkpoints[0],
        "checkpoints": checkpoints,
        "data": workspace.data_fingerprint,
        "rows": {split: len(workspace.dataset.splits.get(split, ())) for split in ("train", "validation", "test")},
        "classes": list(workspace.label_names),
        "dropped": sum(split.broken for split in splits),
        "duplicates": sum(split.duplicates for split in splits),
        "leaks": sum(split.leaks for split in splits),
        "accuracy": accuracy,
        "mispredictions": len(workspace.mispredictions("test", checkpoints[0])),
    }


def _of_data(dataset: Dataset) -> Workspace | None:
    """Return the workspace that holds this data, if there is one."""
    known = (Workspace.open(name) for name in Workspace.names())
    return next((found for found in known if found.data_fingerprint == dataset.fingerprint), None)


def _name(dataset: Dataset) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", dataset.name).strip("-.") or "data"
    return f"{stem}-{dataset.fingerprint[:6]}"


def _free_name(wanted: str, workspace: Workspace | None, place: Path) -> str:
    """Return a checkpoint name that neither the workspace nor the staging folder uses."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip("-._")[:48] or "checkpoint"
    used = set() if workspace is None else {path.name for path in workspace.path.glob("checkpoints/*")}
    names = [stem, *(f"{stem}-{n}" for n in range(2, 1000))]
    return next(name for name in names if name not in used and not (place / name).exists())
