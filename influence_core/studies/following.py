"""Test rows' losses read along trajectories: as they are beside the base, and as its tangents predict them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from influence_core.errors import RunFailedError
from influence_core.models.classifier import Batch
from influence_core.models.prefix import Asked
from influence_core.studies.readings import distances, losses
from influence_core.studies.setting import Setting
from influence_core.trajectory.perturbation import Perturbation
from influence_core.trajectory.stacks import Way
from influence_core.trajectory.step import TrainingStep
from influence_core.trajectory.streams import derive
from influence_core.trajectory.tangent import loss_tangents, tangent
from influence_core.trajectory.trajectories import How, rollout


@dataclass(frozen=True)
class Reading:
    """What was read of M trajectories after t steps."""

    t: int
    way: Way  # how the step was made: sequential, vmap
    shifts: np.ndarray  # [M, Z] δ(z, t) = l_z(θ_ε,t) − l_z(θ_0,t)
    distances: np.ndarray  # [M] ‖θ_ε,t − θ_0,t‖


def followed(
    setting: Setting,
    perturbations: Sequence[Perturbation],
    epsilons: Tensor,
    test: Batch,
    steps: int,
    how: How = "auto",
) -> Iterator[Reading]:
    """Train on L and on each L + ε_m l_m side by side, reading the test rows' losses (paper, Sec. 5.2).

    Yields ``steps`` + 1 readings, from t = 0; raises `RunFailedError` where a loss is not finite. ``how`` is
    `rollout`'s: later repeats of a study that found one after another faster do not try vmap again.
    """
    classifier = setting.opened.classifier
    for moment in rollout(setting.step, setting.parameters, setting.state, perturbations, epsilons, steps, how):
        base = losses(classifier, test, moment.base_parameters)
        read = np.stack([losses(classifier, test, moment.parameters(m)) for m in range(moment.count)]) - base
        _check_finite(setting, moment.t, read)
        yield Reading(moment.t, moment.way, read, distances(classifier, moment))


@dataclass(frozen=True)
class Slopes:
    """⟨∇l_z(θ_0,t), J_t⟩ of one test row after t steps, for some of Q directions of ε."""

    t: int
    directions: range
    exact: np.ndarray  # [directions] with the J of Eq. 6
    additive: np.ndarray  # [directions] with the J of Eq. 2


def slopes(setting: Setting, perturbation: Perturbation, test: Batch, steps: int) -> Iterator[Slopes]:
    """Yield how one test row's loss changes per unit of each ε_q (Eq. 1), at t = 0 … ``steps``.

    All t of a group of directions come before those of the next (`trajectory.tangent`). Raises
    `RunFailedError` where a number is not finite.
    """
    classifier = setting.opened.classifier
    zeros = torch.zeros(perturbation.groups, dtype=setting.dtype, device=setting.device)
    start = (setting.step, setting.parameters, setting.state)
    for item in tangent(*start, perturbation, zeros, steps, additive=True):
        buffers = item.optimizer_state.buffers or None
        pair = [
            loss_tangents(classifier, test, item.parameters, along, buffers) for along in (item.tangents, item.additive)
        ]
        exact, additive = torch.stack(pair)[:, 0].cpu().numpy()
        _check_finite(setting, item.t, np.stack([exact, additive]))
        yield Slopes(item.t, item.directions, exact, additive)


def with_batches(setting: Setting, repeat: int) -> Setting:
    """Return the same start with a repeat's own batches and random streams; the first keeps the setting's."""
    step = setting.step
    if repeat == 0:
        return setting
    flags = {name: getattr(step, name) for name in ("dropout", "perturbation_trains", "batchnorm_train")}
    seed = derive(step.seed, "repeat", repeat)
    again = TrainingStep(step.classifier, step.scope, step.optimizer, step.rows, step.batch_size, seed, **flags)
    return replace(setting, step=again)


def circumstances(setting: Setting) -> dict[str, Any]:
    """Return what to record of how something was measured."""
    classifier = setting.opened.classifier
    return {
        "state": setting.source,
        "dtype": str(classifier.dtype),
        "device": str(classifier.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **({"outputs": "asked"} if isinstance(setting.step.rows.items, Asked) else {}),  # else kept, in other batches
    }


def _check_finite(setting: Setting, t: int, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise RunFailedError(
            f"training diverged at step {t} (a loss is not finite): "
            f"lower the learning rate, {setting.step.optimizer.learning_rate:g}"
        )
