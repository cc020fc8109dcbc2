"""Optimizer moments for a checkpoint that carries none."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.models.classifier import Parameters
from influence_core.trajectory.optimizers import OptimizerState
from influence_core.trajectory.step import TrainingStep
from influence_core.trajectory.streams import derive


def warm_state(step: TrainingStep, parameters: Parameters, batches: int = 100) -> Iterator[Progress | OptimizerState]:
    """Yield `Progress` per batch, then the state after ``batches`` steps at zero learning rate.

    Moments accumulate as in training; parameters and running statistics stay those of the
    checkpoint, so that step 0 of what follows predicts as the checkpoint does. Batches and random
    streams are those of the seed ``derive(step.seed, "warm")``, hence not the ones of the steps
    that follow. Raises `UserError` for a negative number of batches.
    """
    if batches < 0:
        raise UserError(f"{batches} batches to warm the optimizer: give 0 or more")
    warming = warming_step(step)
    start = step.initial_state(parameters)
    state = start
    nothing = torch.zeros(0)
    for t in range(batches):
        _, state = warming(parameters, state, nothing, None, t)
        yield Progress(phase="warming the optimizer", done=t + 1, total=batches, unit="batches")
    yield state._replace(buffers=start.buffers)


def warming_step(step: TrainingStep) -> TrainingStep:
    """Return the same step at zero learning rate, on the batch and random streams of the warm-up."""
    return TrainingStep(
        step.classifier,
        step.scope,
        replace(step.optimizer, learning_rate=0.0),
        step.rows,
        step.batch_size,
        derive(step.seed, "warm"),
        dropout=step.dropout,
        perturbation_trains=step.perturbation_trains,
        batchnorm_train=step.batchnorm_train,
    )
