"""Theorem 3: how far a perturbed trajectory can get from the base one, from constants met on the way."""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from influence_core.errors import UserError
from influence_core.models.classifier import Parameters
from influence_core.trajectory.lockstep import lockstep
from influence_core.trajectory.optimizers import OptimizerSpec, OptimizerState
from influence_core.trajectory.perturbation import Perturbation
from influence_core.trajectory.step import TrainingStep

ITERATIONS = 10  # of the power method a step; its vector is handed on from step to step


@dataclass(frozen=True)
class Bound:
    """The measured divergence after t steps, and what Theorem 3 says of it.

    C and A are *estimates from below* of the theorem's suprema over a region: the largest values
    met on the two trajectories, A by a power method that ends early. So the bounds are estimates too.
    """

    t: int  # steps done, from 0
    integrated_lr: float  # Σ_{s<t} η_s
    divergence: float  # ‖θ_{ε,t} − θ_{0,t}‖
    c: float  # C, the largest ‖∇l_B‖ met so far (√Σ_q ‖∇l_{B_q}‖² for a vector ε)
    a: float  # A, the largest spectral norm of ∇²L_{B_t} met so far
    bound: float  # Eq. 8: C ‖ε‖ Σ η_s (1 + exp(2 A Σ η_s)); inf where that overflows
    product: float  # the tighter C ‖ε‖ Σ_{s<t} η_s Π_{s<k<t} (1 + η_k A_k)


def unavailable(optimizer: OptimizerSpec) -> str | None:
    """Return why Theorem 3 says nothing about an optimizer, in words for a user, or None where it does."""
    if optimizer.kind != "sgd":
        return f"Theorem 3 is proved for SGD; for {optimizer.kind} the paper gives no constants (App. E.1)"
    if optimizer.momentum:
        return f"Theorem 3 is proved for SGD without momentum, not for momentum {optimizer.momentum:g}"
    return None


def divergence_bounds(
    step: TrainingStep,
    parameters: Parameters,
    optimizer_state: OptimizerState,
    perturbation: Perturbation,
    epsilon: Tensor,
    steps: int,
    iterations: int = ITERATIONS,
    seed: int = 0,
) -> Iterator[Bound]:
    """Yield the divergence and both bounds for t = 0 … ``steps`` (paper, Theorem 3 and Eqs. 28-30).

    A_t is the larger of the spectral norms at θ_{ε,t} and θ_{0,t} of the Hessian of what step t
    minimises: L_{B_t} as the step computes it (its dropout), and the weight decay. The product
    form is the recurrence behind Lemma 1, u_{t+1} ≤ (1 + η A_t) u_t + η C ‖ε‖, before its constants
    are made uniform. Costs 2 · ``iterations`` Hessian-vector products a step.

    Raises:
        UserError: an optimizer other than plain SGD (`unavailable`), fewer than one iteration, and
            what `lockstep` raises.
    """
    if reason := unavailable(step.optimizer):
        raise UserError(f"{reason}: choose optimizer sgd")
    if iterations < 1:
        raise UserError(f"{iterations} iterations of the power method: give 1 or more")
    rate, size = step.optimizer.learning_rate, float(torch.linalg.vector_norm(epsilon.double()))
    generator = torch.Generator().manual_seed(seed)
    vectors = [_unit({name: _drawn(value, generator) for name, value in parameters.items()})[0]] * 2
    c, a, grown = 0.0, 0.0, 0.0  # grown: Σ_{s<t} η_s Π_{s<k<t} (1 + η_k A_k)
    for item in lockstep(step, parameters, optimizer_state, epsilon, perturbation, steps):
        points = [(item.parameters, item.optimizer_state), (item.base_parameters, item.base_optimizer_state)]
        integrated = item.integrated_lr
        yield Bound(
            t=item.t,
            integrated_lr=integrated,
            divergence=item.divergence,
            c=c,
            a=a,
            bound=c * size * integrated * (1 + float(torch.tensor(2 * a * integrated, dtype=torch.float64).exp())),
            product=c * size * grown,
        )
        if item.t == steps:
            return
        met = 0.0
        for index, (point, state) in enumerate(points):
            gradients = step.group_gradients(point, state, perturbation, item.t)
            c = max(c, _norm(gradients))
            norm, vectors[index] = spectral_norm(step, point, state, item.t, vectors[index], iterations)
            met = max(met, norm)
        a, grown = max(a, met), (1 + rate * met) * grown + rate


def spectral_norm(
    step: TrainingStep,
    parameters: Parameters,
    optimizer_state: OptimizerState,
    t: int,
    vector: Parameters,
    iterations: int = ITERATIONS,
) -> tuple[float, Parameters]:
    """Return ‖∇²L_{B_t}‖₂ from below, and the unit vector that shows it.

    Power method from ``vector``: for a symmetric matrix ‖Hv‖ never falls and never exceeds ‖H‖₂.
    The products are forward-mode derivatives of the step itself at learning rate 1, θ − ∇L_{B_t}(θ),
    whose derivative along v is v − Hv; ``step`` must be plain SGD.
    """
    step.batch(t)  # collated once for both
    unit_rate = copy(step)
    unit_rate.optimizer = replace(step.optimizer, learning_rate=1.0)
    nothing = torch.zeros(0, dtype=step.classifier.dtype, device=step.classifier.device)

    def moved(parameters: Parameters) -> Parameters:
        return unit_rate(parameters, optimizer_state, nothing, None, t)[0]

    vector, _ = _unit(vector)
    norm = 0.0
    for _ in range(iterations):
        along: Parameters = torch.func.jvp(moved, (parameters,), (vector,))[1]
        product = {name: vector[name] - along[name] for name in vector}
        following, norm = _unit(product)
        if norm == 0:  # v lies in the kernel: nothing to go on with
            break
        vector = following
    return norm, vector


def _drawn(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)


def _norm(values: Parameters) -> float:
    """Return the Euclidean norm over all tensors, summed in float64."""
    norms = [torch.linalg.vector_norm(value.double()) for value in values.values()]
    return float(torch.linalg.vector_norm(torch.stack(norms)))


def _unit(values: Parameters) -> tuple[Parameters, float]:
    """Return the values at norm 1 (as they are at norm 0), and their norm."""
    norm = _norm(values)
    return {name: value / (norm or 1.0) for name, value in values.items()}, norm
