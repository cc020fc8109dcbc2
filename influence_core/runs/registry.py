"""Which code runs each kind of spec, by dotted name, so that nothing heavy is imported here.

Every entry point has the signature ``run(spec, result: Path) -> Events`` where ``result`` is a
folder that the run may write into.
"""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from influence_core.errors import UserError
from influence_core.events import Events
from influence_core.horizons import Forecast, Horizon
from influence_core.rankings import Ranking, Suspects
from influence_core.specs import KINDS as SPEC_KINDS
from influence_core.specs import AnySpec, ForecastSpec, HorizonSpec, RankSpec, SuspectsSpec, parse_spec

if TYPE_CHECKING:
    from influence_core.workspace import Workspace

AnyRunSpec = AnySpec | dict[str, Any]  # a dictionary for kinds that `influence_core.specs` does not know
Run = Callable[[Any, Path], Events]

ENTRY_POINTS = {
    "open": "influence_core.data.opening:run",
    "check": "influence_core.data.opening:check",
    "predict": "influence_core.models.predict:run",
    "index": "influence_core.attribution.indexing:run",
    "rank": "influence_core.attribution.ranking:run",
    "explain": "influence_core.attribution.explaining:run",
    "suspects": "influence_core.attribution.suspects:run",
    "correct": "influence_core.correction.run:run",
    "correct-set": "influence_core.correction.together.run:run",
    "stability": "influence_core.studies.stability:run",
    "fading": "influence_core.studies.fading:run",
    "divergence": "influence_core.studies.divergence:run",
    "tracin-error": "influence_core.studies.tracin_error:run",
    "horizon": "influence_core.studies.horizon:run",
    "forecast": "influence_core.studies.forecast:run",
    "correction": "influence_core.studies.correction:run",
    "mislabelled": "influence_core.studies.mislabelled:run",
    "retrain": "influence_core.studies.retrain:run",
}


def entry_points() -> dict[str, str]:
    """Return the dotted name of every kind, with those that ``INFLUENCE_RUN_KINDS`` adds or replaces.

    The variable reads ``kind=package.module:function``, several separated by commas.
    """
    found = dict(ENTRY_POINTS)
    for item in filter(None, os.environ.get("INFLUENCE_RUN_KINDS", "").split(",")):
        kind, equals, name = item.strip().partition("=")
        if not (kind and equals and ":" in name):
            raise UserError(f"INFLUENCE_RUN_KINDS has {item!r}: write it as kind=package.module:function")
        found[kind] = name
    return found


def kind_of(spec: AnyRunSpec) -> str:
    """Return a spec's kind; raises `UserError` if nothing runs it."""
    kind = spec.get("kind") if isinstance(spec, dict) else spec.kind
    known = entry_points()
    if kind not in known:
        raise UserError(f"kind = {kind!r}: no run of this kind; known are {', '.join(known)}")
    return str(kind)


def as_spec(value: AnyRunSpec) -> AnyRunSpec:
    """Validate a spec once more, whatever it came from; a kind unknown to ``specs`` stays a dictionary."""
    if isinstance(value, BaseModel):
        return value
    return parse_spec(value) if kind_of(value) in SPEC_KINDS else value


def resolve(kind: str) -> Run:
    """Import and return the function that runs a kind; raises `UserError` for an unknown kind."""
    module, _, function = entry_points()[kind_of({"kind": kind})].partition(":")
    run: Run = getattr(importlib.import_module(module), function)
    return run


def ready(workspace: "Workspace", spec: RankSpec) -> Ranking | None:
    """Return what a ranking's run would, if it follows from what is kept; needs no torch. None: a run is needed."""
    found: Ranking | None = importlib.import_module("influence_core.attribution.ranking").ready(workspace, spec)
    return found


def suspects_ready(workspace: "Workspace", spec: SuspectsSpec) -> Suspects | None:
    """Return what the suspects' run would, if it follows from what is kept; needs no torch. None: a run is needed."""
    found: Suspects | None = importlib.import_module("influence_core.attribution.suspects").ready(workspace, spec)
    return found


def horizon_ready(workspace: "Workspace", spec: HorizonSpec) -> Horizon | None:
    """Return the trust horizon by the repeats that are kept, without torch; None where not one is."""
    found: Horizon | None = importlib.import_module("influence_core.studies.horizon").ready(workspace, spec)
    return found


def forecast_ready(workspace: "Workspace", spec: ForecastSpec) -> Forecast | None:
    """Return the forecast of all its rows if each is kept, without torch; None: a run is needed."""
    found: Forecast | None = importlib.import_module("influence_core.studies.forecast").ready(workspace, spec)
    return found


def start(spec: AnyRunSpec, result: Path) -> Events:
    """Run a spec in this process: its events, as they happen. ``result`` is made if absent."""
    run = resolve(kind_of(spec))
    result.mkdir(parents=True, exist_ok=True)
    return run(as_spec(spec), result)
