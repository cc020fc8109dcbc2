"""Checkpoints on their way into a workspace: readable, under a free name, or as the entry that is there already."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from influence_core.fingerprints import companions_fingerprint, tensors_fingerprint
from influence_core.models.importing import Imported, import_checkpoint
from influence_core.specs import Sources
from influence_core.survey import CheckpointFound, Survey
from influence_core.workspace import WEIGHTS, Checkpoint, Workspace


@dataclass(frozen=True)
class Entry:
    """A checkpoint in the folder where a workspace is put together."""

    staging: Path  # its own folder there, named as it wants to be called
    imported: Imported
    fingerprint: str
    companions: str


def entries(spec: Sources, survey: Survey, place: Path, workspace: Workspace | None) -> list[Entry]:
    """Make all checkpoints readable; of two that are the same the one that carries an optimizer stays."""
    made: list[Entry] = []
    for found in survey.checkpoints:
        entry = _entry(spec, found, place, survey.label_names, workspace)
        own = (entry.fingerprint, entry.companions)
        same = [number for number, other in enumerate(made) if (other.fingerprint, other.companions) == own]
        if not same:
            made.append(entry)
        elif made[same[0]].imported.optimizer is None:
            made[same[0]] = entry
    return made


def enter(workspace: Workspace, entry: Entry) -> str:
    """Make a checkpoint part of the workspace, unless it is; returns its name there."""
    kept = _known(workspace, entry)
    if kept is not None:
        _renew(workspace, kept, entry)
        return kept.name
    staging, imported = entry.staging, entry.imported
    staged = staging.exists()  # otherwise it moved with the whole workspace
    name = _claimed(workspace, staging.name) if staged else staging.name
    own = workspace.path / "checkpoints" / name
    optimizer = imported.optimizer
    if optimizer is not None and (state := optimizer.get("state")) and Path(state).is_relative_to(staging):
        optimizer = {**optimizer, "state": str(own / Path(state).relative_to(staging))}
    workspace.add_checkpoint(
        name,
        model=None if imported.path == staging else imported.path,
        draft=staging if staged else None,
        kind=imported.kind,
        preparation=imported.preparation,
        optimizer=optimizer,
        notes=imported.notes,
    )
    if staged:
        staging.rename(own)
    return name


def _entry(
    spec: Sources, found: CheckpointFound, place: Path, label_names: tuple[str, ...], workspace: Workspace | None
) -> Entry:
    """Make a checkpoint readable, in ``place`` where its own folder is not."""
    own = place / _free_name(Path(found.path).stem, workspace, place)
    own.mkdir(parents=True)
    imported = import_checkpoint(found, spec, own, label_names)
    return Entry(own, imported, tensors_fingerprint(imported.path / WEIGHTS), companions_fingerprint(imported.path))


def _known(workspace: Workspace, entry: Entry) -> Checkpoint | None:
    """Return the workspace's own entry of the same tensors and companions, prepared alike."""
    own = (entry.fingerprint, entry.imported.preparation)
    same = [each for each in workspace.checkpoints() if (each.fingerprint, each.preparation) == own]
    return next((each for each in same if each.companions in (entry.companions, "")), None)


def _renew(workspace: Workspace, kept: Checkpoint, entry: Entry) -> None:
    """Let the workspace's entry learn where its model lies now, and of an optimizer that it did not know."""
    imported, changed = entry.imported, dict[str, Any]()
    source = imported.path.resolve()
    if imported.path != entry.staging and Path(kept.path) != source and not Path(kept.path).is_dir():
        changed["path"] = str(source)
    if kept.optimizer is None and imported.optimizer is not None:
        changed["optimizer"] = dict(imported.optimizer)
        if "state" in imported.optimizer:
            state = imported.path / imported.optimizer["state"]
            if state.is_relative_to(entry.staging):
                state = state.replace(workspace.path / "checkpoints" / kept.name / state.name)
            changed["optimizer"]["state"] = str(state.resolve())
        older = {name: value for name, value in kept.notes.items() if name != "optimizer"}  # why there was none
        changed["notes"] = {**older, **imported.notes}
    if changed:
        workspace.change_checkpoint(kept.name, **changed)


def _claimed(workspace: Workspace, wanted: str) -> str:
    """Return a name whose folder was made here and by nobody else: two can open into one workspace at once."""
    while True:
        name = _free_name(wanted, workspace)
        try:
            (workspace.path / "checkpoints" / name).mkdir(parents=True)
        except FileExistsError:
            continue
        return name


def _free_name(wanted: str, workspace: Workspace | None, place: Path | None = None) -> str:
    """Return a checkpoint name that neither the workspace nor the staging folder uses."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip("-._")[:48] or "checkpoint"
    used = set() if workspace is None else {path.name for path in workspace.path.glob("checkpoints/*")}
    names = [stem, *(f"{stem}-{n}" for n in range(2, 1000))]
    return next(name for name in names if name not in used and not (place is not None and (place / name).exists()))
