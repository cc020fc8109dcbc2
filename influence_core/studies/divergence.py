"""How far training on L + ε l_B leads away from training on L (paper, Sec. 5.1, Fig. 1)."""

import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from influence_core.attribution.base import Arrays
from influence_core.errors import RunFailedError
from influence_core.events import Events, Progress, Result, through
from influence_core.runs.stopping import stop_requested
from influence_core.specs import DivergenceSpec
from influence_core.studies.phases import FEWEST, two_phases
from influence_core.studies.readings import distances, numbers
from influence_core.studies.resumable import Budget, Repeat
from influence_core.studies.setting import (
    Drawn,
    Setting,
    draw,
    open_setting,
    optimizer_for,
    setting_key,
    setting_words,
)
from influence_core.trajectory.bounds import divergence_bounds, unavailable
from influence_core.trajectory.perturbation import Perturbation
from influence_core.trajectory.trajectories import rollout
from influence_core.workspace import Workspace

KIND = "divergence"
NOISE = 0.0  # ε of the trajectory that repeats the base: what its distance is not exactly 0 is noise
BOUNDS = ("bound", "bound_tight")  # Eq. 8, and the product form; estimates from below


def run(spec: DivergenceSpec, result: Path) -> Events:
    """Measure repeat by repeat, each with rows B of its own; yields progress, then the table (`row`).

    What is kept of a repeat is one series per ε, so more repeats, other ε or the bounds cost only themselves.
    """
    workspace, started, budget = Workspace.open(spec.workspace), time.monotonic(), Budget(spec.budget_minutes)
    setting: Setting | None = None
    rows: list[dict[str, Any]] = []
    used: list[list[str]] = []
    why_not = unavailable(optimizer_for(workspace, spec)) if spec.bounds else None
    for number in range(spec.repeats):
        if not budget.begin() or (number and stop_requested(result)):
            break
        drawn = draw(workspace, spec.seed, number, spec.rows, 0)
        kept = {weight: Repeat(workspace, KIND, repeat_key(workspace, spec, drawn, weight)) for weight in spec.epsilons}
        floor = Repeat(workspace, KIND, repeat_key(workspace, spec, drawn, NOISE))
        missing = [weight for weight, own in kept.items() if own.read("series") is None]
        stopped = False  # what is measured of this repeat counts, but for its noise and bounds
        unmeasured = [NOISE] if floor.read("series") is None else []  # also of repeats kept before there was one
        if missing or unmeasured:
            setting = setting or (yield from through(open_setting(workspace, spec), Setting))
            what = f"{len(missing)} ε and the base" if missing else "the noise floor"
            phase = f"repeat {number + 1} of {spec.repeats}: {what}"
            series = yield from measure(setting, spec, drawn, [*missing, *unmeasured], phase, result)
            if series is None and missing:
                break
            stopped = series is None
            parts = [kept[weight] for weight in missing] + [floor] * len(unmeasured)
            for own, distances in zip(parts, () if series is None else series.T, strict=not stopped):
                own.describe({"state": setting.source, "dtype": str(setting.opened.classifier.dtype)})
                own.write("series", {"divergence": distances})
            budget.made()
        noise = floor.read("series")
        for weight, own in kept.items():
            if spec.bounds and why_not is None and own.read("bounds") is None and not stopped:
                setting = setting or (yield from through(open_setting(workspace, spec), Setting))
                phase = f"repeat {number + 1} of {spec.repeats}: bounds at ε = {weight:g}"
                found = yield from bound(setting, spec, drawn, weight, phase, result)
                stopped = found is None
                if found is not None:
                    own.write("bounds", found)
                    budget.made()
            arrays = own.read("series")
            if arrays is None:
                raise RunFailedError(f"what was kept in {own.folder} is gone: start again")
            measured = row(workspace, spec, number, weight, arrays["divergence"], str(own.about["state"]))
            bounds = own.read("bounds") if spec.bounds and why_not is None else None
            told = None if noise is None else noise["divergence"].tolist()
            rows.append({**measured, **bounds_of(bounds), "bounds_unavailable": why_not, "noise": told})
        used.append(drawn.ids(workspace)["train"])
        if stopped:
            break
    about = {"repeats": len(used), "repeats_asked": spec.repeats, **setting_words(workspace, spec), "rows": used}
    yield Result(value={"series": rows, **about, "seconds": time.monotonic() - started})


def repeat_key(workspace: Workspace, spec: DivergenceSpec, drawn: Drawn, epsilon: float) -> dict[str, Any]:
    """Return all that one perturbed trajectory depends on."""
    rows = {"train": drawn.ids(workspace)["train"], "labels": drawn.labels.tolist()}
    return {**setting_key(workspace, spec), "epsilon": epsilon, **rows}


def measure(
    setting: Setting, spec: DivergenceSpec, drawn: Drawn, epsilons: list[float], phase: str, result: Path
) -> Generator[Progress, None, np.ndarray | None]:
    """Return ‖θ_ε,t − θ_0,t‖, [steps + 1, len(epsilons)]; None where a stop was asked for on the way."""
    perturbation = Perturbation.mean(setting.batch("train", drawn.train, drawn.labels))
    weights = torch.tensor([[weight] for weight in epsilons], dtype=setting.dtype, device=setting.device)
    found = np.zeros((spec.steps + 1, len(epsilons)))
    together = [perturbation] * len(epsilons)
    for moment in rollout(setting.step, setting.parameters, setting.state, together, weights, spec.steps):
        found[moment.t] = distances(setting.opened.classifier, moment)
        if not np.isfinite(found[moment.t]).all():
            raise RunFailedError(
                f"training diverged at step {moment.t} (a parameter is not finite): "
                f"lower the learning rate, {setting.step.optimizer.learning_rate:g}, or ε"
            )
        yield Progress(phase=phase, done=moment.t, total=spec.steps, unit="steps")
        if moment.t < spec.steps and stop_requested(result):
            return None
    return found


def bound(
    setting: Setting, spec: DivergenceSpec, drawn: Drawn, epsilon: float, phase: str, result: Path
) -> Generator[Progress, None, Arrays | None]:
    """Return Theorem 3's bounds with constants from both trajectories, ``bound`` and ``bound_tight`` [steps + 1].

    None where a stop was asked for on the way.
    """
    perturbation = Perturbation.mean(setting.batch("train", drawn.train, drawn.labels))
    weight = torch.tensor([epsilon], dtype=setting.dtype, device=setting.device)
    found = {name: np.zeros(spec.steps + 1) for name in BOUNDS}
    start = setting.step, setting.parameters, setting.state
    for moment in divergence_bounds(*start, perturbation, weight, spec.steps):
        found["bound"][moment.t], found["bound_tight"][moment.t] = moment.bound, moment.product
        yield Progress(phase=phase, done=moment.t, total=spec.steps, unit="steps")
        if moment.t < spec.steps and stop_requested(result):
            return None
    return found


def bounds_of(arrays: Arrays | None) -> dict[str, list[float | None] | None]:
    """Return the bounds as JSON has them, null where there are none, a number that overflows null."""
    return {name: None if arrays is None else numbers(arrays[name]) for name in BOUNDS}


def row(
    workspace: Workspace, spec: DivergenceSpec, repeat: int, epsilon: float, distances: np.ndarray, state: str
) -> dict[str, Any]:
    """Return one series with its two-phase fit from t = 1; ``fit`` is null where there are too few steps."""
    optimizer = optimizer_for(workspace, spec)
    integrated = np.arange(len(distances)) * optimizer.learning_rate
    fit: dict[str, Any] | None = None
    if (distances[1:] > 0).sum() >= FEWEST:
        found = two_phases(integrated[1:], distances[1:])
        fit = {
            "slopes": list(found.slopes),
            "intercepts": list(found.intercepts),
            "breakpoint": found.breakpoint,
            "r2": list(found.r2),
            "bic": found.bic,
            "aic": found.aic,
            "best": found.best,
        }
    return {
        "repeat": repeat,
        "epsilon": epsilon,
        "optimizer": optimizer.kind,
        "state": state,
        "steps": list(range(len(distances))),
        "integrated_lr": integrated.tolist(),
        "divergence": distances.tolist(),
        "fit": fit,
    }
