"""Theorem 1 and Corollary 1 on small networks: Θ(ε) by Newton against Eqs. 4 and 5."""

import numpy as np
import pytest
import torch
from models import mlp, split, vector_batch

from influence_core.curvature.flat import flatten
from influence_core.curvature.stationary import Variation
from influence_core.errors import UserError


def variation(l2: float, groups: int = 2, hidden: int = 4) -> Variation:
    classifier = mlp(inputs=3, hidden=hidden, classes=3)
    train, extra = vector_batch(20, inputs=3), vector_batch(2 * groups, inputs=3, seed=4)
    return Variation.of(classifier, classifier.scope("all"), train, split(extra, 2), l2=l2)


def slope(sizes, errors) -> float:
    """The measured order: the slope of log error on log size."""
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


def errors_of_first_order(found: Variation, direction: torch.Tensor, sizes) -> list[float]:
    points = found.follow(torch.stack([size * direction for size in sizes]))
    response = found.response()
    return [float((point.theta - found.start - point.epsilon @ response).norm()) for point in points]


def test_from_a_non_stationary_point_of_indefinite_curvature_theta_of_epsilon_keeps_the_gradient_and_eq_4_holds():
    found = variation(l2=0.02)
    gradient = found.gradient(found.start, found.nothing)
    values = torch.linalg.eigvalsh(found.hessian(found.start, found.nothing))
    assert gradient.norm() > 0.1  # far from stationary
    assert values[0] < -1e-3 < 1e-3 < values[-1]
    direction, sizes = torch.tensor([1.0, -0.5], dtype=torch.float64), [1e-4, 2e-4, 4e-4, 8e-4]
    for point in found.follow(torch.stack([size * direction for size in sizes])):
        kept = torch.func.grad(found.value)(point.theta, point.epsilon)
        assert (kept - gradient).norm() <= 1e-10
        assert (point.theta - found.start).norm() > 1e-5
    assert slope(sizes, errors_of_first_order(found, direction, sizes)) == pytest.approx(2, abs=0.1)


def test_eq_4_is_the_derivative_for_each_direction_of_epsilon():
    found = variation(l2=0.02)
    h = 1e-6
    for q in range(2):
        unit = torch.eye(2, dtype=torch.float64)[q]
        (above,), (below,) = (list(found.follow(sign * h * unit[None])) for sign in (1, -1))
        central = (above.theta - below.theta) / (2 * h)
        assert (found.response()[q] - central).norm() <= 2e-6 * central.norm()


@pytest.fixture(scope="module")
def saddle() -> Variation:
    """Around a stationary point with directions up and down."""
    found = variation(l2=0.02)
    point = found.stationary(2 * found.start)
    assert point.residual <= 1e-11
    assert 0 < point.negative < len(point.values)
    return found.at(point.theta)


def test_corollary_1_at_a_saddle_theta_of_epsilon_stays_stationary(saddle):
    direction, sizes = torch.tensor([1.0, 1.0], dtype=torch.float64), [1e-5, 2e-5, 4e-5]
    for point in saddle.follow(torch.stack([size * direction for size in sizes])):
        assert torch.func.grad(saddle.value)(point.theta, point.epsilon).norm() <= 1e-10
        assert point.negative == saddle.stationary().negative
    assert slope(sizes, errors_of_first_order(saddle, direction, sizes)) == pytest.approx(2, abs=0.1)


def test_corollary_1_at_a_minimum_theta_of_epsilon_stays_a_minimum_and_eq_5_holds():
    start = variation(l2=0.05, groups=1)
    least = start.minimum()
    assert least.negative == 0
    assert start.loss(least.theta) < start.loss(start.start)
    found = start.at(least.theta)
    sizes = [1e-3, 2e-3, 4e-3]
    direction = torch.ones(1, dtype=torch.float64)
    for point in found.follow(torch.tensor([[s] for s in sizes], dtype=torch.float64)):
        assert torch.func.grad(found.value)(point.theta, point.epsilon).norm() <= 1e-10
        assert point.values[0] > 0
    assert slope(sizes, errors_of_first_order(found, direction, sizes)) == pytest.approx(2, abs=0.1)
    classical = -torch.linalg.solve(
        torch.func.hessian(start.loss)(least.theta), torch.func.grad(start.perturbations[0])(least.theta)
    )
    torch.testing.assert_close(found.response()[0], classical, rtol=1e-8, atol=1e-10)


def test_where_the_hessian_is_singular_theta_of_epsilon_is_followed_in_theta_0_plus_p_1():
    """Without l2 the same vector added to every class's weights changes nothing (DEFINITIONS)."""
    whole = variation(l2=0.0)
    with pytest.raises(UserError, match="singular"):
        whole.response()
    with pytest.raises(UserError, match="singular"):
        next(whole.follow(torch.zeros(1, 2, dtype=torch.float64)))
    found = whole.restricted()
    size = len(found.start)
    assert found.basis.shape == (size, size - 5)  # hidden 4 and the bias
    direction, sizes = torch.tensor([1.0, -0.5], dtype=torch.float64), [1e-5, 2e-5, 4e-5]
    outside = torch.eye(size, dtype=torch.float64) - found.basis @ found.basis.T
    for point in found.follow(torch.stack([s * direction for s in sizes])):
        moved = point.theta - found.start
        assert (outside @ moved).norm() <= 1e-12 < 1e-6 < moved.norm()
        kept = torch.func.grad(found.value)(point.theta, point.epsilon) - torch.func.grad(found.loss)(found.start)
        assert (found.basis.T @ kept).norm() <= 1e-10
    assert slope(sizes, errors_of_first_order(found, direction, sizes)) == pytest.approx(2, abs=0.1)
    mixed = torch.stack([torch.func.grad(loss)(found.start) for loss in found.perturbations])
    pseudo = -mixed @ torch.linalg.pinv(whole.whole_hessian(whole.start, whole.nothing), rtol=1e-9, hermitian=True)
    torch.testing.assert_close(found.response(), pseudo, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_followed_is_refused_in_words():
    classifier = mlp(dtype=torch.float32)
    batch = vector_batch(4, dtype=torch.float32)
    with pytest.raises(UserError, match="make the network float64"):
        Variation.of(classifier, classifier.scope("all"), batch, [batch])
    theta = flatten(mlp().parameters(mlp().scope("all")), mlp().scope("all"))
    with pytest.raises(UserError, match="at most 4000"):
        Variation(lambda t: t.sum(), [], theta.new_zeros(4001))
    bounded = Variation(lambda t: torch.log1p(t.exp()).sum(), [lambda t: t.sum()], theta.new_zeros(2))
    with pytest.raises(UserError, match="smaller steps of ε"):  # σ(θ) + ε = 1/2 has no solution
        list(bounded.follow(torch.tensor([[0.6]], dtype=torch.float64)))
