"""Theorem 3's bounds over the divergence that is measured."""

import numpy as np
import pytest
import torch
from step_models import build, mlp, mlp_rows

from influence_core.curvature.flat import flatten, unflatten
from influence_core.errors import UserError
from influence_core.models.modes import in_eval
from influence_core.trajectory.bounds import divergence_bounds, spectral_norm, unavailable
from influence_core.trajectory.lockstep import lockstep
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.trajectory.perturbation import Perturbation

RATE = 0.2
SGD = OptimizerSpec("sgd", RATE, weight_decay=0.03)


def setting(optimizer=SGD, groups=1, **flags):
    rows = mlp_rows(mlp())
    step, parameters, state = build(rows, optimizer, batch_size=6, **flags)
    return step, parameters, state, Perturbation(rows.batch([0, 1, 2, 3]), torch.ones(groups, 4 // groups))


def dense(step, parameters, t):
    """Norm of the Hessian of what step t minimises, weight decay included (no dropout)."""

    def loss(theta):
        losses = step.classifier.losses(step.batch(t), unflatten(theta, parameters))
        return losses.mean() + step.optimizer.weight_decay / 2 * theta.square().sum()

    with in_eval(step.classifier.module):
        found = torch.autograd.functional.hessian(loss, flatten(parameters, step.scope))
    return float(torch.linalg.matrix_norm(found, ord=2))


def test_the_spectral_norm_is_met_from_below():
    step, parameters, state, _ = setting(dropout=False)
    start = {name: torch.full_like(value, 0.1) for name, value in parameters.items()}
    exact = dense(step, parameters, 3)
    found = [spectral_norm(step, parameters, state, 3, start, n)[0] for n in (1, 3, 10, 200)]
    assert found == sorted(found)
    assert found[0] < 0.99 * exact
    assert found[-1] == pytest.approx(exact, rel=1e-6)
    assert found[-1] <= exact * (1 + 1e-12)
    _, vector = spectral_norm(step, parameters, state, 3, start, 200)
    assert spectral_norm(step, parameters, state, 3, vector, 1)[0] == pytest.approx(exact, rel=1e-6)
    assert step.optimizer.learning_rate == RATE  # a copy was given another


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("epsilon", [[0.3], [-0.01], [0.2, -0.1]])
def test_both_bounds_lie_over_the_divergence_and_the_product_under_eq_8(epsilon, dropout):
    step, parameters, state, perturbation = setting(groups=len(epsilon), dropout=dropout)
    weights = torch.tensor(epsilon, dtype=torch.float64)
    found = list(divergence_bounds(step, parameters, state, perturbation, weights, 12, iterations=4))
    measured = lockstep(step, parameters, state, weights, perturbation, 12)
    for bound, item in zip(found, measured, strict=True):
        assert (bound.t, bound.divergence, bound.integrated_lr) == (item.t, item.divergence, item.integrated_lr)
        assert bound.divergence <= bound.product * (1 + 1e-9) <= bound.bound * (1 + 1e-9)
    assert found[0].bound == found[0].product == 0
    # One step from a common point: the divergence is η‖Σ ε_q ∇l_{B_q}‖ itself.
    if len(epsilon) == 1:
        assert found[1].product == pytest.approx(found[1].divergence, rel=1e-9)
    assert np.all(np.diff([each.a for each in found]) >= 0)
    assert np.all(np.diff([each.c for each in found]) >= 0)


def test_the_constants_are_those_of_dense_hessians_and_autograd_and_make_up_the_bounds():
    step, parameters, state, perturbation = setting(dropout=False)
    weights, steps = torch.tensor([0.3], dtype=torch.float64), 3
    found = list(divergence_bounds(step, parameters, state, perturbation, weights, steps, iterations=60))
    c, norms = [], []
    for item in lockstep(step, parameters, state, weights, perturbation, steps - 1):
        both = (item.parameters, item.base_parameters)
        norms.append(max(dense(step, point, item.t) for point in both))
        for point in both:
            with in_eval(step.classifier.module):
                gradient = torch.func.grad(lambda p: step.classifier.losses(perturbation.batch, p).mean())(point)
            c.append(float(flatten(gradient, step.scope).norm()))
    last = found[-1]
    assert last.c == pytest.approx(max(c), rel=1e-9)
    assert last.a == pytest.approx(max(norms), rel=1e-4)
    assert last.bound == pytest.approx(
        max(c) * 0.3 * steps * RATE * (1 + np.exp(2 * max(norms) * steps * RATE)), rel=1e-4
    )
    product = sum(RATE * np.prod([1 + RATE * norms[k] for k in range(s + 1, steps)]) for s in range(steps))
    assert last.product == pytest.approx(max(c) * 0.3 * product, rel=1e-4)


@pytest.mark.parametrize(
    ("optimizer", "reason"),
    [(OptimizerSpec("adam", 0.01), "for adam"), (OptimizerSpec("sgd", 0.1, momentum=0.9), "momentum 0.9")],
)
def test_other_optimizers_are_refused_with_the_reason(optimizer, reason):
    step, parameters, state, perturbation = setting(optimizer)
    assert reason in str(unavailable(optimizer))
    assert unavailable(OptimizerSpec("sgd", 0.1)) is None
    with pytest.raises(UserError, match=reason):
        next(divergence_bounds(step, parameters, state, perturbation, torch.ones(1), 3))
    plain, parameters, state, perturbation = setting()
    with pytest.raises(UserError, match="0 iterations"):
        next(divergence_bounds(plain, parameters, state, perturbation, torch.ones(1), 3, iterations=0))


def test_an_overflowing_bound_is_infinite():
    step, parameters, state, perturbation = setting(OptimizerSpec("sgd", 300.0), dropout=False)
    *_, last = divergence_bounds(
        step, parameters, state, perturbation, torch.ones(1, dtype=torch.float64), 6, iterations=2
    )
    assert last.bound == float("inf")
