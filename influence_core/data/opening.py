"""``check`` and ``open``: a checkpoint and data are looked at, and become a workspace."""

import re
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from influence_core.checkpoints.inspecting import inspect
from influence_core.checkpoints.preparing import notes_of, preparation_of
from influence_core.data import hub
from influence_core.data.asking import refuse_misplaced
from influence_core.data.dataset import Dataset, Modality
from influence_core.data.entering import enter, entries
from influence_core.data.surveying import DataSurvey, survey_data
from influence_core.data.writing import write
from influence_core.errors import UserError
from influence_core.events import Events, Progress, Result, through
from influence_core.home import folder
from influence_core.models.loading import load_folder
from influence_core.models.predict import run as predict
from influence_core.specs import DEFAULT_SCOPE, CheckSpec, OpenSpec, PredictSpec, Sources
from influence_core.survey import CheckpointFound, Survey
from influence_core.workspace import Workspace

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
        made = entries(spec, survey, staged / "checkpoints", workspace)
        imported = made[0].imported
        classifier = load_folder(
            imported.path,
            made[0].fingerprint,
            survey.label_names,
            imported.kind,
            imported.preparation,
            made[0].companions,
        )
        classifier.scope(spec.scope or DEFAULT_SCOPE)  # refuses one that the model does not have
        if workspace is None:
            workspace = Workspace.install(_name(dataset), staged, dataset, spec.scope or DEFAULT_SCOPE)
        elif spec.scope is not None and spec.scope != workspace.scope:
            workspace.set_scope(spec.scope)
        names = [enter(workspace, entry) for entry in made]
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
    refuse_misplaced(spec)
    checkpoints = inspect(spec, place_of(spec, spec.checkpoint), [place_of(spec, name) for name in spec.also])
    yield Progress(phase=PHASES[0], done=1, total=len(PHASES), unit="checks")
    first = checkpoints[0]
    modality: Modality = "image" if first.kind == "image" else "text"
    data = yield from through(survey_data(spec, first.classes, modality), DataSurvey)
    yield Progress(phase=PHASES[1], done=2, total=len(PHASES), unit="checks")
    prepared = [_prepared(found, spec, data.label_names) for found in checkpoints]
    survey = Survey(
        checkpoints=tuple(found for found, _ in prepared),
        data=data.found,
        label_names=data.label_names,
        problems=tuple(dict.fromkeys((*data.problems, *(problem for _, problem in prepared if problem)))),
    )
    yield Look(survey, data)


def _prepared(found: CheckpointFound, spec: Sources, label_names: Sequence[str]) -> tuple[CheckpointFound, str]:
    """Return a checkpoint with notes on how its inputs will be prepared, and why they cannot be ("": they can)."""
    try:
        notes = notes_of(found, preparation_of(found, spec, label_names), label_names)
    except UserError as error:
        return found, str(error)
    return found.model_copy(update={"notes": (*found.notes, *notes)}), ""


def place_of(spec: Sources, name: str) -> Path:
    """Return a checkpoint's folder or file on this machine, fetched from the hub where it is a name there."""
    return hub.fetch_checkpoint(name, spec.revision) if hub.looks_like_hub_name(name) else Path(name).expanduser()


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
        "notes": [note for name in checkpoints for note in workspace.checkpoint(name).notes.get("optimizer", [])],
        "accuracy": accuracy,
        "mispredictions": len(workspace.mispredictions("test", checkpoints[0])),
    }


def _of_data(dataset: Dataset) -> Workspace | None:
    """Return the workspace that holds this data, if there is one."""
    for name in Workspace.names():
        with suppress(UserError):  # deleted meanwhile
            if (found := Workspace.open(name)).data_fingerprint == dataset.fingerprint:
                return found
    return None


def _name(dataset: Dataset) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", dataset.name).strip("-.") or "data"
    return f"{stem}-{dataset.fingerprint[:6]}"
