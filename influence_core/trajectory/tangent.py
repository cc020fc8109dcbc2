"""The exact Jacobian of a trajectory with respect to ε (Theorem 2), and TracIn's additive formula beside it."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from influence_core.errors import UserError
from influence_core.models.classifier import Batch, Classifier, Parameters
from influence_core.models.modes import in_eval
from influence_core.trajectory.memory import memory_limit, step_bytes
from influence_core.trajectory.optimizers import OptimizerState, root
from influence_core.trajectory.perturbation import Perturbation, check_epsilon
from influence_core.trajectory.step import TrainingStep
from influence_core.trajectory.unfelt import unfelt

Point = tuple[Parameters, OptimizerState]  # of a trajectory, or tangents of one


@dataclass(frozen=True)
class Tangents:
    """∇_ε θ_{ε,t} for some of the Q directions of ε, and the trajectory that they belong to."""

    t: int  # steps done, from 0
    directions: range  # which q the tangents are of
    tangents: Parameters  # {name: [directions, *shape]}, Eq. 6
    additive: Parameters  # the same by Eq. 2; empty unless asked for
    parameters: Parameters  # θ_{ε,t}
    optimizer_state: OptimizerState
    integrated_lr: float  # Σ_{s<t} η_s

    def direction(self, q: int) -> Parameters:
        """Return ∇_{ε_q} θ_{ε,t}, {name: shape}, of one of the `directions`; views."""
        return {name: value[self.directions.index(q)] for name, value in self.tangents.items()}


def inner(gradients: Parameters, tangents: Parameters) -> Tensor:
    """Return ⟨∇l_z(θ_t), J_q⟩, [..., directions]: how l_z changes per unit of ε_q (paper, Eq. 1).

    Args:
        gradients: {name: [..., *shape]} of any number of rows (`gradients.rows.row_gradients`).
        tangents: {name: [directions, *shape]}.

    Returns:
        Sums over all parameters, in float64.
    """
    total: Tensor | None = None
    for name, tangent in tangents.items():
        gradient = gradients[name]
        leading = gradient.shape[: gradient.dim() - tangent.dim() + 1]
        products = gradient.reshape(-1, tangent[0].numel()) @ tangent.flatten(1).to(gradient).T
        part = products.double().reshape(*leading, len(tangent))
        total = part if total is None else total + part
    if total is None:
        raise ValueError("no tangents")
    return total


def loss_tangents(
    classifier: Classifier,
    batch: Batch,
    parameters: Parameters,
    tangents: Parameters,
    buffers: Parameters | None = None,
) -> Tensor:
    """Return ⟨∇l_z(θ), J_q⟩ of every row of a batch, [B, directions] float64, without forming a gradient.

    What `inner` gives, by one forward-mode pass over the batch a direction, in eval mode. Running
    statistics that moved are taken as given in ``buffers``, without a derivative of their own.
    """

    def losses(parameters: Parameters) -> Tensor:
        return classifier.losses(batch, parameters, buffers)

    def one(direction: Parameters) -> Tensor:
        along: Tensor = torch.func.jvp(losses, (parameters,), (direction,))[1]
        return along

    with in_eval(classifier.module):
        found: Tensor = torch.func.vmap(one)(tangents)
    return found.T.double()


def tangent(
    step: TrainingStep,
    parameters: Parameters,
    optimizer_state: OptimizerState,
    perturbation: Perturbation,
    epsilon: Tensor,
    steps: int,
    *,
    additive: bool = False,
    left_out: Collection[str] | None = None,
    limit: int | None = None,
) -> Iterator[Tangents]:
    """Yield ∇_ε θ_{ε,t} at ``epsilon`` (zeros, as a rule) for t = 0 … ``steps`` (paper, Eq. 6 and App. E.1).

    ``torch.func.jvp`` goes through each step, from the tangents of parameters *and* optimizer state
    to the next ones, so momentum and Adam are covered by the joint system (31)-(32), and so are
    running statistics that move. Per direction of ε a trajectory's worth of numbers is carried
    (`memory.carried_bytes`). Where the Q directions do not fit ``limit`` bytes together (None:
    `memory.memory_limit`), all t of a first group come before all t of the next, which starts over:
    write what you read to ``[item.t, item.directions]``. The directions of a group are batched by
    ``vmap``, so that the trajectory's own part is computed once for all of them. At ε = 0 a
    direction costs no pass over any B but its own, which is without a tangent.

    ``additive`` accumulates TracIn's Eq. 2 on the same trajectory: −Σ_s η_s ∇l_{B_q}(θ_s), under
    Adam −Σ_s η_s P_s ∇l_{B_q}(θ_s) with the preconditioner P_s = 1 / (√v̂ + eps) after step s (the paper,
    Sec. 5.2, gives its square root to either gradient of the score). It knows of no momentum.

    Tangents of the parameters in ``left_out`` and of their moments stay 0; None leaves out
    `unfelt`, the biases of attention keys, of which Adam makes noise that the loss does not feel.

    Raises:
        UserError: a negative number of steps, ε not [Q] or not finite, or a name in ``left_out``
            outside the scope.
    """
    if steps < 0:
        raise UserError(f"{steps} steps: give 0 or more")
    check_epsilon(epsilon, perturbation.groups)
    if left_out is not None and (odd := set(left_out) - parameters.keys()):
        raise UserError(f"left_out names {min(odd)!r}, which scope {step.scope.name} does not train: correct the name")
    apart = unfelt(step.classifier) if left_out is None else frozenset(left_out)
    size = group_size(step, parameters, perturbation.groups, limit)
    for first in range(0, perturbation.groups, size):
        directions = range(first, min(first + size, perturbation.groups))
        yield from _group(
            step, (parameters, optimizer_state), perturbation, epsilon, steps, directions, apart, additive
        )


def group_size(step: TrainingStep, parameters: Parameters, directions: int, limit: int | None = None) -> int:
    """Return how many of Q directions go together within ``limit`` bytes (None: `memory.memory_limit`); at least 1."""
    limit = memory_limit(step.classifier.device) if limit is None else limit
    # a tangent doubles what a forward and backward pass keeps: the reverse pass is differentiated too
    return max(1, min(directions, limit // max(1, 2 * step_bytes(step, parameters))))


def _group(
    step: TrainingStep,
    start: Point,
    perturbation: Perturbation,
    epsilon: Tensor,
    steps: int,
    directions: range,
    apart: frozenset[str],
    additive: bool,
) -> Iterator[Tangents]:
    """Yield all t of one group of directions."""
    count = len(directions)
    parameters, state = start
    if not state.buffers:  # running statistics that the step will move need tangents from the first step on
        state = state._replace(buffers=step.initial_state(parameters).buffers)
    along: Point = tree_map(lambda value: value.new_zeros(count, *value.shape), (parameters, state))
    at_zero = not bool(epsilon.any())
    summed = {name: torch.zeros_like(value) for name, value in along[0].items()} if additive else {}
    for t in range(steps + 1):
        if t > 0:
            gradients = {}
            if additive or at_zero:
                gradients = step.group_gradients(parameters, state, perturbation, t - 1, directions)
            moved = partial(_moved, step, perturbation, gradients if at_zero else None, t - 1)
            units = torch.eye(count if at_zero else perturbation.groups).to(epsilon)
            weights, units = (epsilon[list(directions)], units) if at_zero else (epsilon, units[list(directions)])
            (parameters, state), along = _advance(moved, (parameters, state), along, weights, units)
            along = _without(along, apart)
        if t > 0 and additive:
            summed = {
                name: value - step.optimizer.learning_rate * _preconditioner(step, state, name) * gradients[name]
                for name, value in summed.items()
            }
            summed = _cleared(summed, apart)
        integrated = t * step.optimizer.learning_rate
        yield Tangents(t, directions, along[0], summed, parameters, state, integrated)


def _moved(
    step: TrainingStep,
    perturbation: Perturbation,
    gradients: Parameters | None,
    t: int,
    parameters: Parameters,
    state: OptimizerState,
    epsilon: Tensor,
) -> Point:
    """Make step t; at ε = 0 the ∇l_{B_q} are given, since d(ε_q ∇l_{B_q}) = dε_q ∇l_{B_q} there."""
    if gradients is None:
        return step(parameters, state, epsilon, perturbation, t)
    return step.with_gradients(parameters, state, epsilon, gradients, t)


def _advance(
    moved: Callable[..., Point], point: Point, along: Point, epsilon: Tensor, units: Tensor
) -> tuple[Point, Point]:
    """Make a step; return the point after it, and the tangents after it, [directions, ...]."""

    def one(parameters: Parameters, state: OptimizerState, unit: Tensor) -> tuple[Point, Point]:
        found = torch.func.jvp(moved, (*point, epsilon), (parameters, state, unit))
        return found[0], found[1]

    if len(units) == 1:
        after, tangents = one(*_first(along), units[0])
        return after, tree_map(lambda value: value[None], tangents)
    # the point is the same for all directions: vmap computes it once and expands it
    after, tangents = torch.func.vmap(one, randomness="same")(*along, units)
    return _first(after), tangents


def _first(stacked: Point) -> Point:
    found: Point = tree_map(lambda value: value[0], stacked)
    return found


def _without(along: Point, apart: frozenset[str]) -> Point:
    """Return the tangents with those of the parameters named, and of their moments, at 0."""
    parameters, state = along
    return _cleared(parameters, apart), state._replace(
        momentum_buffer=_cleared(state.momentum_buffer, apart),
        exp_avg=_cleared(state.exp_avg, apart),
        exp_avg_sq=_cleared(state.exp_avg_sq, apart),
    )


def _cleared(values: Parameters, apart: frozenset[str]) -> Parameters:
    return {name: torch.zeros_like(value) if name in apart else value for name, value in values.items()}


def _preconditioner(step: TrainingStep, after: OptimizerState, name: str) -> Tensor | float:
    """Return P of one parameter after a step, [*shape]; 1 for SGD."""
    optimizer = step.optimizer
    if optimizer.kind == "sgd":
        return 1.0
    square = after.exp_avg_sq[name]
    correction = (1 - optimizer.beta2**after.step).sqrt().to(square)
    return 1 / (root(square) / correction + optimizer.eps)
