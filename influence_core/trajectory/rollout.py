"""The perturbed trajectory and the base one, side by side."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from influence_core.errors import UserError
from influence_core.models.classifier import Parameters
from influence_core.trajectory.optimizers import OptimizerState
from influence_core.trajectory.perturbation import Perturbation, check_epsilon
from influence_core.trajectory.step import TrainingStep


@dataclass(frozen=True)
class Lockstep:
    """Where both trajectories are after t steps (paper, Sec. 5.1)."""

    t: int  # steps done, from 0
    parameters: Parameters  # θ_{ε,t}
    base_parameters: Parameters  # θ_{0,t}
    optimizer_state: OptimizerState
    base_optimizer_state: OptimizerState
    divergence: float  # ‖θ_{ε,t} − θ_{0,t}‖
    integrated_lr: float  # Σ_{s<t} η_s


def lockstep(
    step: TrainingStep,
    parameters: Parameters,
    optimizer_state: OptimizerState,
    epsilon: Tensor,
    perturbation: Perturbation | None,
    steps: int,
) -> Iterator[Lockstep]:
    """Yield ``steps`` + 1 items, from t = 0 (nothing done), of the trajectories at ε and at 0.

    Both start from the same parameters and state and share each B_t and all random streams. The
    base is computed by the same operations with ε = 0, so for ε = 0 ([Q] zeros) the two are
    bit-identical and the divergence exactly 0 (on devices whose kernels are deterministic). The two
    advance when the next item is asked for, so a reader may stop at any item at no cost. Raises
    `UserError` for a negative number of steps and whatever `TrainingStep` raises.
    """
    if steps < 0:
        raise UserError(f"{steps} steps: give 0 or more")
    check_epsilon(epsilon, 0 if perturbation is None else perturbation.groups)  # before step 0 is shown
    zero = torch.zeros_like(epsilon)
    perturbed, base = (parameters, optimizer_state), (parameters, optimizer_state)
    for t in range(steps + 1):
        if t > 0:
            perturbed = step(*perturbed, epsilon, perturbation, t - 1)
            base = step(*base, zero, perturbation, t - 1)
        yield Lockstep(
            t=t,
            parameters=perturbed[0],
            base_parameters=base[0],
            optimizer_state=perturbed[1],
            base_optimizer_state=base[1],
            divergence=distance(perturbed[0], base[0]),
            integrated_lr=t * step.optimizer.learning_rate,
        )


def distance(first: Parameters, second: Parameters) -> float:
    """Return the Euclidean distance of two parameter sets, summed in float64."""
    norms = [torch.linalg.vector_norm(first[name].double() - second[name].double()) for name in first]
    return float(torch.linalg.vector_norm(torch.stack(norms)))
