"""Adam's diagonal preconditioner as a metric on gradients."""

import torch

from influence_core.models.classifier import Parameters
from influence_core.trajectory.optimizers import OptimizerState, root
from influence_core.trajectory.step import TrainingStep


def adam_metric(step: TrainingStep, parameters: Parameters, state: OptimizerState) -> Parameters:
    """Return P = 1 / (√v̂ + ε) of Adam, {name: shape}: what its next step multiplies a gradient with.

    v̂ is the bias-corrected second moment *after* the unperturbed step 0 from ``state``, as that step
    itself uses it (Kingma and Ba 2015, Algorithm 1; DEFINITIONS, Scores).
    """
    nothing = torch.zeros(0, dtype=step.classifier.dtype, device=step.classifier.device)
    _, after = step(parameters, state, nothing, None, 0)
    optimizer = step.optimizer
    correction = (1 - optimizer.beta2**after.step).sqrt()
    return {name: 1 / (root(value) / correction.to(value) + optimizer.eps) for name, value in after.exp_avg_sq.items()}
