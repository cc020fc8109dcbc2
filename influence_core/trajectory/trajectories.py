"""Any number of perturbed trajectories beside one base, one after another or together by vmap."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from influence_core.errors import UserError
from influence_core.models.classifier import Parameters, Rows
from influence_core.trajectory.memory import memory_limit, step_bytes
from influence_core.trajectory.optimizers import OptimizerState
from influence_core.trajectory.perturbation import Perturbation, check_epsilon
from influence_core.trajectory.stacks import Sequential, Stack, Vmapped, Way, faster
from influence_core.trajectory.step import TrainingStep

How = Literal["auto", "sequential", "vmap"]


@dataclass(frozen=True)
class Trajectories:
    """Where the base and M perturbed trajectories are after t steps (paper, Sec. 5.1 and 5.2)."""

    t: int  # steps done, from 0
    way: Way  # how the last step was made
    divergences: np.ndarray  # [M] float64, ‖θ_{ε,t} − θ_{0,t}‖
    integrated_lr: float  # Σ_{s<t} η_s
    stacks: tuple[Stack, ...]  # of equal length: the base, the M, then repeats of the base as padding

    @property
    def count(self) -> int:
        """M, the number of perturbed trajectories."""
        return len(self.divergences)

    @property
    def base_parameters(self) -> Parameters:
        """θ_{0,t}."""
        return self._row(0)[0]

    @property
    def base_optimizer_state(self) -> OptimizerState:
        """The base's optimizer state."""
        return self._row(0)[1]

    def parameters(self, m: int) -> Parameters:
        """Return θ_{ε,t} of perturbation m, views of the stack."""
        return self._row(range(self.count)[m] + 1)[0]

    def optimizer_state(self, m: int) -> OptimizerState:
        """Return the optimizer state of perturbation m, views of the stack."""
        return self._row(range(self.count)[m] + 1)[1]

    def stacked(self) -> Iterator[tuple[range, Parameters]]:
        """Yield (numbers, {name: [m, *shape]}) of the trajectories; number 0 is the base, m + 1 perturbation m.

        As they are kept: one at a time where they were computed one after another.
        """
        size = _length(self.stacks[0])
        for index, (parameters, _) in enumerate(self.stacks):
            numbers = range(index * size, min((index + 1) * size, self.count + 1))
            yield numbers, {name: value[: len(numbers)] for name, value in parameters.items()}

    def _row(self, number: int) -> Stack:
        stack, row = divmod(number, _length(self.stacks[0]))
        found: Stack = tree_map(lambda value: value[row], self.stacks[stack])
        return found


def alike(
    rows: Rows, groups: Sequence[Sequence[int]], labels: Sequence[Sequence[int]] | None = None
) -> list[Perturbation]:
    """Return one perturbation per group of row numbers, all of the same shape, as `rollout` by vmap needs them.

    Collated together, and shorter groups padded by rows of weight 0. With the rows' own labels, or
    those given. Raises `UserError` for a group without rows.
    """
    if not all(len(group) for group in groups) or not groups:
        raise UserError(f"{len(groups)} groups of rows, one of them empty or none at all: give each at least one row")
    longest = max(len(group) for group in groups)

    def flat(parts: Sequence[Sequence[int]]) -> list[int]:
        return [int(n) for part in parts for n in [*part, *[part[0]] * (longest - len(part))]]

    batch = rows.batch(flat(groups), None if labels is None else flat(labels))
    lengths = torch.tensor([len(group) for group in groups], device=batch.labels.device)
    weights = (torch.arange(longest, device=lengths.device) < lengths[:, None]).float()
    together = Perturbation(batch, weights)
    parts = [together.group(q) for q in range(len(groups))]
    return [Perturbation(part, weight[None]) for part, weight in parts]


def rollout(
    step: TrainingStep,
    parameters: Parameters,
    optimizer_state: OptimizerState,
    perturbations: Sequence[Perturbation],
    epsilons: Tensor,
    steps: int,
    how: How = "auto",
    limit: int | None = None,
) -> Iterator[Trajectories]:
    """Yield ``steps`` + 1 items, from t = 0, of the trajectories at each (ε_m, perturbation m) and of one at 0.

    All start from the same parameters and state and share each B_t and all random streams, and the
    base is computed once for all, by the same operations. So a trajectory with ε = 0 repeats the
    base bit by bit and shows divergence exactly 0, whatever its rows: always one after another (on
    devices whose kernels are deterministic), and by vmap unless a kernel's rounding depends on the
    place in the stack (seen with BatchNorm in train mode: 1e-11 in float64), which is then the noise
    floor to draw. Trajectories advance when the next item is asked for.

    ``sequential`` makes a step one trajectory after another. ``vmap`` makes it for several at once,
    in stacks of equal length that fit ``limit`` bytes (None: `memory.memory_limit`); every
    perturbation then needs the same shape (`alike`). ``auto`` makes the first step both ways, takes
    the faster one, and keeps its result; it stays sequential where vmap cannot follow the model,
    where the two differ by more than rounding explains, or where not even two fit the limit.

    Args:
        step: the training step.
        parameters: the scope's, by name.
        optimizer_state: the checkpoint's, warmed, or zeros.
        perturbations: M of them, each of Q groups.
        epsilons: [M, Q].
        steps: how many.
        how: see above.
        limit: bytes that a stack may take while its step is made.

    Raises:
        UserError: a negative number of steps, no perturbation, epsilons that are not [M, Q] or not
            finite, or perturbations of unequal shapes by vmap.
    """
    if steps < 0:
        raise UserError(f"{steps} steps: give 0 or more")
    if not perturbations:
        raise UserError("no perturbation to follow beside the base: give at least one")
    if epsilons.dim() != 2 or len(epsilons) != len(perturbations):
        raise UserError(
            f"epsilons of shape {tuple(epsilons.shape)} for {len(perturbations)} perturbations: give [perturbations, "
            "groups]"
        )
    for epsilon, perturbation in zip(epsilons, perturbations, strict=True):
        check_epsilon(epsilon, perturbation.groups)
    even = len({_shape(perturbation) for perturbation in perturbations}) == 1
    if how == "vmap" and not even:
        raise UserError("perturbations differ in shape, so vmap cannot stack them: make them with `alike`")
    return _rollout(
        step, (parameters, optimizer_state), perturbations, epsilons, steps, how if even else "sequential", limit
    )


def _rollout(
    step: TrainingStep,
    start: Stack,
    perturbations: Sequence[Perturbation],
    epsilons: Tensor,
    steps: int,
    how: How,
    limit: int | None,
) -> Iterator[Trajectories]:
    several = [perturbations[0], *perturbations]  # the base first, its rows at ε = 0
    weights = torch.cat([torch.zeros_like(epsilons[:1]), epsilons])
    together = how != "sequential" and steps > 0
    size = _fitting(step, start[0], len(several), limit) if together else 1
    ways: dict[Way, Sequential | Vmapped] = {"sequential": Sequential(step, several, weights)}
    if together and (size > 1 or how == "vmap"):
        ways["vmap"] = Vmapped(step, several, weights, size)
    way: Way = "sequential" if how == "auto" or not together else how
    stacks = ways[way].start(start)
    yield Trajectories(0, way, np.zeros(len(perturbations)), 0.0, stacks)
    for t in range(steps):
        if t == 0 and how == "auto" and len(ways) == 2:
            way, stacks = faster(ways, step, start)
        else:
            stacks = ways[way].advance(stacks, t)
        yield Trajectories(
            t=t + 1,
            way=way,
            divergences=_divergences(stacks)[: len(perturbations)],
            integrated_lr=(t + 1) * step.optimizer.learning_rate,
            stacks=stacks,
        )


def _divergences(stacks: tuple[Stack, ...]) -> np.ndarray:
    """Return each trajectory's Euclidean distance from the base, [M and padding], summed in float64."""
    base = stacks[0][0]
    alone = int(_length(stacks[0]) == 1)  # a stack of the base alone is not compared with itself
    found = []
    for parameters, _ in stacks[alone:]:
        parts = [
            torch.linalg.vector_norm((value.double() - base[name][:1].double()).flatten(1), dim=1)
            for name, value in parameters.items()
        ]
        found.append(torch.linalg.vector_norm(torch.stack(parts), dim=0))
    return torch.cat(found).cpu().numpy()[1 - alone :]


def _fitting(step: TrainingStep, parameters: Parameters, count: int, limit: int | None) -> int:
    """Return how many trajectories fit the limit while a step is made for all of them at once, at least 1."""
    limit = memory_limit(step.classifier.device) if limit is None else limit
    return max(1, min(count, limit // max(1, step_bytes(step, parameters))))


def _shape(perturbation: Perturbation) -> tuple[object, ...]:
    inputs = sorted((name, tuple(value.shape)) for name, value in perturbation.batch.inputs.items())
    return (*inputs, tuple(perturbation.weights.shape))


def _length(stack: Stack) -> int:
    return len(stack[1].step)
