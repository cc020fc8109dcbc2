"""Ways to make one step for many trajectories: one after another, or stacked, by vmap."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from influence_core.models.classifier import Batch, Parameters
from influence_core.trajectory.optimizers import OptimizerState
from influence_core.trajectory.perturbation import Perturbation
from influence_core.trajectory.step import TrainingStep
from influence_core.trajectory.unfelt import unfelt

Way = Literal["sequential", "vmap"]
Stack = tuple[Parameters, OptimizerState]  # of m trajectories: every tensor [m, *shape]


class Sequential:
    """One trajectory after another, each a stack of one."""

    def __init__(self, step: TrainingStep, perturbations: Sequence[Perturbation], epsilons: Tensor) -> None:
        self.step, self.perturbations, self.epsilons = step, perturbations, epsilons

    def start(self, point: Stack) -> tuple[Stack, ...]:
        """Return the point as every trajectory's."""
        return (tree_map(lambda value: value[None], point),) * len(self.perturbations)

    def advance(self, stacks: tuple[Stack, ...], t: int) -> tuple[Stack, ...]:
        """Make step t."""
        moved = []
        for stack, epsilon, perturbation in zip(stacks, self.epsilons, self.perturbations, strict=True):
            parameters, state = tree_map(lambda value: value[0], stack)
            after = self.step(parameters, state, epsilon, perturbation, t)
            moved.append(tree_map(lambda value: value[None], after))
        return tuple(moved)


class Vmapped:
    """Stacks of equal length, each advanced at once; the last is padded with repeats of the base.

    Equal lengths mean equal kernels, which is why a repeat of the base in any stack gives its bits.
    """

    def __init__(self, step: TrainingStep, perturbations: Sequence[Perturbation], epsilons: Tensor, size: int) -> None:
        self.step = step
        self.count = -(-len(perturbations) // size)
        self.size = -(-len(perturbations) // self.count)  # no stack much emptier than the others
        numbers = list(range(len(perturbations))) + [0] * (self.count * self.size - len(perturbations))
        self.parts = []
        for first in range(0, len(numbers), self.size):
            chosen = numbers[first : first + self.size]
            batches = [perturbations[m].batch for m in chosen]
            inputs = {name: torch.stack([batch.inputs[name] for batch in batches]) for name in batches[0].inputs}
            labels = torch.stack([batch.labels for batch in batches])
            weights = torch.stack([perturbations[m].weights for m in chosen])
            self.parts.append((epsilons[chosen], inputs, labels, weights))

    def start(self, point: Stack) -> tuple[Stack, ...]:
        """Return the point as every trajectory's (expanded, not copied)."""
        return (tree_map(lambda value: value.expand(self.size, *value.shape), point),) * self.count

    def advance(self, stacks: tuple[Stack, ...], t: int) -> tuple[Stack, ...]:
        """Make step t."""

        def one(
            parameters: Parameters,
            state: OptimizerState,
            epsilon: Tensor,
            inputs: dict[str, Tensor],
            labels: Tensor,
            weights: Tensor,
        ) -> Stack:
            return self.step(parameters, state, epsilon, Perturbation(Batch(inputs, labels), weights), t)

        every: Callable[..., Stack] = torch.func.vmap(one, randomness="same")
        return tuple(every(*stack, *part) for stack, part in zip(stacks, self.parts, strict=True))


def faster(ways: "dict[Way, Sequential | Vmapped]", step: TrainingStep, start: Stack) -> tuple[Way, tuple[Stack, ...]]:
    """Make step 0 both ways; return the faster way with its result."""
    step.batch(0)  # collated for both
    alone, alone_seconds = _timed(lambda: ways["sequential"].advance(ways["sequential"].start(start), 0), step)
    try:
        together, seconds = _timed(lambda: ways["vmap"].advance(ways["vmap"].start(start), 0), step)
    except RuntimeError:  # an operation without a batching rule, or no memory: neither has a class of its own
        return "sequential", alone
    if seconds >= alone_seconds or not _agree(alone, together, start[0], unfelt(step.classifier)):
        return "sequential", alone
    return "vmap", together


def _timed(work: Callable[[], tuple[Stack, ...]], step: TrainingStep) -> tuple[tuple[Stack, ...], float]:
    def clock() -> float:
        if step.classifier.device.type == "cuda":
            torch.cuda.synchronize(step.classifier.device)
        return time.perf_counter()

    started = clock()
    return work(), clock() - started


def _agree(alone: tuple[Stack, ...], together: tuple[Stack, ...], start: Parameters, apart: frozenset[str]) -> bool:
    """Say whether every trajectory differs by rounding only, against the update and the parameters' size."""
    before = {name: value.double() for name, value in start.items() if name not in apart}
    eps = float(torch.finfo(next(iter(start.values())).dtype).eps)
    size = len(together[0][1].step)
    for number, (one, _) in enumerate(alone):
        other, row = together[number // size][0], number % size
        difference = _norm({name: one[name][0].double() - other[name][row].double() for name in before})
        update = _norm({name: one[name][0].double() - value for name, value in before.items()})
        if not difference <= math.sqrt(eps) * update + eps * _norm(before):  # NaN does not agree
            return False
    return True


def _norm(values: Parameters) -> float:
    return float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(v) for v in values.values()])))
