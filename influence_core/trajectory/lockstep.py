"""One perturbed trajectory and the base one, side by side."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from influence_core.models.classifier import Parameters
from influence_core.trajectory.optimizers import OptimizerState
from influence_core.trajectory.perturbation import Perturbation
from influence_core.trajectory.step import TrainingStep
from influence_core.trajectory.trajectories import rollout


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
    perturbation: Perturbation,
    steps: int,
) -> Iterator[Lockstep]:
    """Yield ``steps`` + 1 items, from t = 0, of the trajectories at ε ([Q]) and at 0: `rollout` of one perturbation.

    For ε = 0 the two are bit-identical and the divergence exactly 0. They advance when the next item
    is asked for, so a reader may stop at any item at no cost. Raises what `rollout` raises.
    """
    for now in rollout(step, parameters, optimizer_state, [perturbation], epsilon[None], steps, "sequential"):
        yield Lockstep(
            t=now.t,
            parameters=now.parameters(0),
            base_parameters=now.base_parameters,
            optimizer_state=now.optimizer_state(0),
            base_optimizer_state=now.base_optimizer_state,
            divergence=float(now.divergences[0]),
            integrated_lr=now.integrated_lr,
        )
