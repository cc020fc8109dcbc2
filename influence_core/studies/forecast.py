"""What training on a row as well is predicted to do to one test row's loss, step by step (Eq. 6, Eq. 2 beside it)."""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from influence_core.attribution.base import Arrays, Query
from influence_core.attribution.ranking import resolve
from influence_core.errors import RunFailedError, UserError
from influence_core.events import Events, Progress, Result, through
from influence_core.horizons import Forecast
from influence_core.specs import ForecastSpec, PredictSpec
from influence_core.studies.keys import readings_key, shared
from influence_core.studies.resumable import Repeat
from influence_core.workspace import Workspace, now

KIND = "forecast"
SLOPES = "slopes"  # d l_z / d ε at t = 0 … T, by Eq. 6 and Eq. 2; what is predicted of a weight is ε times these


@dataclass(frozen=True)
class Row:
    """One training row of a forecast, and where its slopes are kept."""

    id: str
    number: int
    label: int  # as it stands
    place: Repeat


def rows_of(workspace: Workspace, spec: ForecastSpec, query: Query) -> list[Row]:
    """Return the rows asked for, each once; raises `UserError` for an id that is no training row's."""
    labels = workspace.labels().values
    found = []
    for example in dict.fromkeys(spec.rows):
        split, number = workspace.locate(example)
        if split != "train":
            raise UserError(f"row {example!r} is in {split}: a forecast takes ids of training rows")
        label = int(labels[number])
        place = Repeat(workspace, KIND, row_key(workspace, spec, query, example, label))
        found.append(Row(example, number, label, place))
    return found


def row_key(workspace: Workspace, spec: ForecastSpec, query: Query, row: str, label: int) -> dict[str, Any]:
    """Return all that one row's slopes depend on; they are per unit of ε, so ε is not among it."""
    return {**readings_key(workspace, spec, query.example, query.target), "row": row, "label": label}


def ready(workspace: Workspace, spec: ForecastSpec) -> Forecast | None:
    """Return the forecast if the slopes of all its rows are kept, without torch; None: a run is needed."""
    query = resolve(workspace, spec.ranking)
    return None if query is None else assemble(workspace, spec, query, rows_of(workspace, spec, query))


def assemble(workspace: Workspace, spec: ForecastSpec, query: Query, rows: Sequence[Row]) -> Forecast | None:
    """Multiply the kept slopes by ε; None where some are not kept."""
    kept = [row.place.read(SLOPES) for row in rows]
    arrays = [each for each in kept if each is not None]
    if len(arrays) < len(rows):
        return None
    return Forecast(  # + 0.0: no minus before a zero
        **shared(workspace, spec, [row.place.about for row in rows]),
        example=query.example,
        target=workspace.label_names[query.target],
        epsilon=spec.epsilon,
        rows=[row.id for row in rows],
        labels=[workspace.label_names[row.label] for row in rows],
        exact=[(spec.epsilon * each["exact"] + 0.0).tolist() for each in arrays],
        additive=[(spec.epsilon * each["additive"] + 0.0).tolist() for each in arrays],
    )


def run(spec: ForecastSpec, result: Path) -> Events:
    """Carry the tangents of those rows that are not kept along the base trajectory; yields progress, the `Forecast`.

    All rows go together, so nothing is kept of a run that is cancelled on the way.
    """
    workspace = Workspace.open(spec.workspace)
    split, _ = workspace.locate(spec.example)
    if split == "train":
        raise UserError(f"example {spec.example!r} is a training row: forecasts speak of validation and test rows")
    if spec.target == "predicted" and workspace.predictions(split, spec.checkpoint) is None:
        from influence_core.models.predict import run as predict

        asked = PredictSpec(workspace=spec.workspace, checkpoint=spec.checkpoint, split=split)
        yield from (event for event in predict(asked, result) if isinstance(event, Progress))
    query = resolve(workspace, spec.ranking)
    assert query is not None
    rows = rows_of(workspace, spec, query)
    missing = [row for row in rows if row.place.read(SLOPES) is None]
    if missing:
        yield from _compute(workspace, spec, query, missing)
    found = assemble(workspace, spec, query, rows)
    if found is None:  # between computing and reading
        raise RunFailedError("the forecast was removed meanwhile: start it again")
    yield Result(value=found.model_dump())


def _compute(
    workspace: Workspace, spec: ForecastSpec, query: Query, rows: Sequence[Row]
) -> Generator[Progress, None, None]:
    """Compute and keep the slopes of some rows, a group of ε each."""
    import torch

    from influence_core.studies.following import circumstances, slopes
    from influence_core.studies.setting import Setting, open_setting
    from influence_core.trajectory.perturbation import Perturbation

    started = time.monotonic()
    setting = yield from through(open_setting(workspace, spec), Setting)
    split, number = workspace.locate(query.example)
    test = setting.batch(split, [number], np.array([query.target]))
    batch = setting.step.rows.batch([row.number for row in rows], [row.label for row in rows])
    perturbation = Perturbation(batch, torch.ones(len(rows), 1, device=setting.device))
    found: list[Arrays] = [{name: np.zeros(spec.steps + 1) for name in ("exact", "additive")} for _ in rows]
    for item in slopes(setting, perturbation, test, spec.steps):
        for place, q in enumerate(item.directions):
            found[q]["exact"][item.t], found[q]["additive"][item.t] = item.exact[place], item.additive[place]
        done = item.directions.start * spec.steps + item.t * len(item.directions)
        yield Progress(phase="carrying the tangents", done=done, total=len(rows) * spec.steps, unit="steps")
    about = {**circumstances(setting), "made": now(), "seconds": (time.monotonic() - started) / len(rows)}
    for row, arrays in zip(rows, found, strict=True):
        row.place.describe(about)
        row.place.write(SLOPES, arrays)
