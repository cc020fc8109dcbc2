"""How much more Eq. 2's additive Jacobian errs than the exact one of Eq. 6 (paper, App. K, Fig. 12)."""

import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from influence_core.attribution.base import Arrays
from influence_core.errors import RunFailedError
from influence_core.events import Events, Progress, Result, through
from influence_core.models.classifier import Parameters
from influence_core.runs.stopping import stop_requested
from influence_core.specs import TracinErrorSpec
from influence_core.studies.resumable import Budget, Repeat
from influence_core.studies.setting import Drawn, Setting, draw, open_setting, optimizer_for, setting_key, setting_words
from influence_core.trajectory.perturbation import Perturbation
from influence_core.trajectory.tangent import tangent
from influence_core.trajectory.trajectories import rollout
from influence_core.workspace import Workspace

KIND = "tracin-error"


def run(spec: TracinErrorSpec, result: Path) -> Events:
    """Measure repeat by repeat in each precision; yields progress, then the table (`rows_of`)."""
    workspace, started, budget = Workspace.open(spec.workspace), time.monotonic(), Budget(spec.budget_minutes)
    settings: dict[str, Setting] = {}
    rows: list[dict[str, Any]] = []
    done = 0
    for number in range(spec.repeats):
        if not budget.begin() or (number and stop_requested(result)):
            break
        drawn = draw(workspace, spec.seed, number, spec.rows, 0)
        own: list[dict[str, Any]] = []  # counted where the repeat is finished in every precision
        for dtype in spec.dtypes:
            here = spec.model_copy(update={"dtype": dtype})
            kept = Repeat(workspace, KIND, repeat_key(workspace, here, drawn))
            arrays = kept.read("errors")
            if arrays is None:
                if dtype not in settings:
                    settings[dtype] = yield from through(open_setting(workspace, here), Setting)
                phase = f"repeat {number + 1} in {dtype}"
                arrays = yield from measure(settings[dtype], here, drawn, phase, result)
                if arrays is None:
                    break
                kept.write("errors", arrays)
                budget.made()
            own += rows_of(number, here, optimizer_for(workspace, here).learning_rate, arrays)
        else:
            rows += own
            done += 1
            continue
        break
    about = {"repeats": done, "repeats_asked": spec.repeats, **setting_words(workspace, spec)}
    yield Result(value={"series": rows, **about, "seconds": time.monotonic() - started})


def repeat_key(workspace: Workspace, spec: TracinErrorSpec, drawn: Drawn) -> dict[str, Any]:
    """Return all that one repeat in one precision depends on."""
    rows = {"train": drawn.ids(workspace)["train"], "labels": drawn.labels.tolist()}
    return {**setting_key(workspace, spec), "epsilons": list(spec.epsilons), **rows}


def measure(
    setting: Setting, spec: TracinErrorSpec, drawn: Drawn, phase: str, result: Path
) -> Generator[Progress, None, Arrays | None]:
    """Return ‖θ_ε − (θ_0 + ε J)‖ with J of Eq. 2 and of Eq. 6, each [steps + 1, epsilons]; the sums in float64.

    None where a stop was asked for on the way.
    """
    perturbation = Perturbation.mean(setting.batch("train", drawn.train, drawn.labels))
    weights = torch.tensor([[weight] for weight in spec.epsilons], dtype=setting.dtype, device=setting.device)
    errors = {name: np.zeros((spec.steps + 1, len(spec.epsilons))) for name in ("eq2", "eq6")}
    start, together = (setting.step, setting.parameters, setting.state), [perturbation] * len(spec.epsilons)
    jacobians = tangent(*start, perturbation, torch.zeros_like(weights[0]), spec.steps, additive=True)
    for moment, jacobian in zip(rollout(*start, together, weights, spec.steps), jacobians, strict=True):
        for m, weight in enumerate(spec.epsilons):
            shift = difference(moment.parameters(m), moment.base_parameters)
            errors["eq6"][moment.t, m] = error(shift, weight, jacobian.tangents)
            errors["eq2"][moment.t, m] = error(shift, weight, jacobian.additive)
        if not np.isfinite(errors["eq6"][moment.t]).all():
            raise RunFailedError(
                f"training diverged at step {moment.t} (a parameter is not finite): "
                f"lower the learning rate, {setting.step.optimizer.learning_rate:g}, or ε"
            )
        yield Progress(phase=phase, done=moment.t, total=spec.steps, unit="steps")
        if moment.t < spec.steps and stop_requested(result):
            return None
    return errors


def difference(first: Parameters, second: Parameters) -> Parameters:
    """Return first − second in float64."""
    return {name: first[name].double() - second[name].double() for name in first}


def error(shift: Parameters, epsilon: float, jacobian: Parameters) -> float:
    """Return ‖shift − ε J‖ for J {name: [1, *shape]}."""
    parts: list[Tensor] = [
        torch.linalg.vector_norm(value - epsilon * jacobian[name][0].double()) for name, value in shift.items()
    ]
    return float(torch.linalg.vector_norm(torch.stack(parts)))


def rows_of(repeat: int, spec: TracinErrorSpec, learning_rate: float, arrays: Arrays) -> list[dict[str, Any]]:
    """Return a row per ε: both errors over steps 1 … T and their ratio, null where Eq. 6 errs by nothing."""
    rows = []
    for m, epsilon in enumerate(spec.epsilons):
        eq2, eq6 = arrays["eq2"][1:, m].tolist(), arrays["eq6"][1:, m].tolist()
        rows.append(
            {
                "repeat": repeat,
                "dtype": spec.dtype,
                "epsilon": epsilon,
                "steps": list(range(1, spec.steps + 1)),
                "integrated_lr": [t * learning_rate for t in range(1, spec.steps + 1)],
                "error_eq2": eq2,
                "error_eq6": eq6,
                "ratio": [one / other if other else None for one, other in zip(eq2, eq6, strict=True)],
            }
        )
    return rows
