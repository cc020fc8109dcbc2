"""Scores in float64 on small networks against dense inverses, closed forms and real steps."""

import numpy as np
import pytest
import torch
from models import loop_gradients, mlp, split, vector_batch
from step_models import bert_rows, build
from torch import nn
from torch.autograd.functional import hessian

from influence_core.attribution.abif import Abif
from influence_core.attribution.base import Ready
from influence_core.curvature.conjugate_gradient import conjugate_gradient
from influence_core.curvature.conjugate_residual import conjugate_residual
from influence_core.curvature.flat import directions_from_flat
from influence_core.curvature.hvp import HessianOperator
from influence_core.curvature.lanczos import Eigenpairs, lanczos
from influence_core.curvature.solution import Solution
from influence_core.gradients.project import project
from influence_core.models.classifier import Batch, Classifier
from influence_core.trajectory.optimizers import OptimizerSpec, OptimizerState
from influence_core.trajectory.perturbation import Perturbation
from influence_core.trajectory.preconditioner import adam_metric
from influence_core.trajectory.warm import warm_state


def last_of(events, kind):
    return [event for event in events if isinstance(event, kind)][-1]


def flat(classifier, scope, batch) -> np.ndarray:
    """Per-row gradients by one backward a row, [B, P]."""
    loop = loop_gradients(classifier, scope, batch)
    return torch.cat([loop[name].flatten(1) for name in scope.parameters], 1).numpy()


def dense(classifier, scope, batch, l2) -> np.ndarray:
    """∇²L by autograd's own dense function, [P, P]."""
    own = classifier.parameters(scope)
    sizes = [own[name].numel() for name in scope.parameters]

    def loss(theta):
        parts = theta.split(sizes)
        given = {name: part.view_as(own[name]) for name, part in zip(scope.parameters, parts, strict=True)}
        return classifier.losses(batch, given).mean() + l2 / 2 * theta.square().sum()

    return hessian(loss, torch.cat([own[name].flatten() for name in scope.parameters])).numpy()


class Small:
    """A network with an indefinite Hessian, its rows and two queries."""

    def __init__(self, l2: float):
        self.l2 = l2
        self.classifier = mlp()
        self.scope = self.classifier.scope("all")
        self.train, self.queries = vector_batch(24), vector_batch(2, seed=9)
        self.h = dense(self.classifier, self.scope, self.train, l2)
        self.gx = flat(self.classifier, self.scope, self.train)
        self.gz = flat(self.classifier, self.scope, self.queries)
        self.operator = HessianOperator(self.classifier, self.scope, split(self.train, 7), l2=l2)

    def abif(self, k: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Scores and cosines by our eigenpairs and projection, [2, N] each, and how many λ are negative."""
        size = self.operator.size
        pairs = last_of(
            lanczos(
                self.operator.matvec,
                size,
                k=k,
                iterations=size,
                seed=0,
                dtype=torch.float64,
                device=torch.device("cpu"),
            ),
            Eigenpairs,
        )
        basis = directions_from_flat(pairs.vectors, self.classifier.parameters(self.scope))
        values = pairs.values.numpy()
        kept = np.abs(values) > 1e-9 * np.abs(values).max()
        rows = project(self.classifier, self.scope, split(self.train, 7), basis).dots.numpy()[:, kept]
        queries = project(self.classifier, self.scope, [self.queries], basis).dots.numpy()[:, kept]
        table = {"products": rows, "labels": self.train.labels.numpy(), "values": values[kept]}
        found = [Abif().scores(Ready(table, {"products": query}, {}, "", {}, "")) for query in queries]
        return np.stack([each.scores for each in found]), np.stack([each.cosines for each in found]), pairs.negative


@pytest.fixture(scope="module")
def damped() -> Small:
    return Small(l2=0.02)


def test_the_small_network_is_indefinite(damped):
    assert np.linalg.eigvalsh(damped.h).min() < -1e-3
    np.testing.assert_allclose(damped.operator.matvec(torch.eye(len(damped.h))[3].double()), damped.h[3], atol=1e-12)


def test_abif_with_all_eigenpairs_is_the_dense_inverse(damped):
    scores, cosines, negative = damped.abif(len(damped.h))
    np.testing.assert_allclose(scores, damped.gz @ np.linalg.solve(damped.h, damped.gx.T), rtol=1e-6, atol=1e-8)
    assert negative == (np.linalg.eigvalsh(damped.h) < 0).sum() > 0
    values, vectors = np.linalg.eigh(damped.h)
    half = vectors / np.sqrt(np.abs(values))  # |H|^-½
    norms = np.linalg.norm(damped.gz @ half, axis=1)[:, None] * np.linalg.norm(damped.gx @ half, axis=1)
    np.testing.assert_allclose(cosines, scores / norms, atol=1e-8)


@pytest.mark.parametrize("k", [5, 20])
def test_abif_with_fewer_is_the_truncated_eigen_sum(damped, k):
    values, vectors = np.linalg.eigh(damped.h)
    chosen = np.argsort(-np.abs(values))[:k]
    expected = (damped.gz @ vectors[:, chosen] / values[chosen]) @ (damped.gx @ vectors[:, chosen]).T
    scores, _, negative = damped.abif(k)
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-8)
    assert negative == (values[chosen] < 0).sum()


def test_without_l2_abif_is_the_pseudo_inverse_on_what_is_kept():
    """The same vector added to every class's weights changes nothing, so H is singular (DEFINITIONS)."""
    small = Small(l2=0.0)
    values = np.linalg.eigvalsh(small.h)
    assert (np.abs(values) < 1e-12).sum() >= 6  # 5 inputs of the last layer and its bias
    scores, _, _ = small.abif(len(small.h))
    expected = small.gz @ np.linalg.pinv(small.h, rcond=1e-9, hermitian=True) @ small.gx.T
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("solver", [conjugate_residual, conjugate_gradient])
def test_hessian_based_scores_are_the_dense_inverse(damped, solver):
    """Exact at P iterations, indefinite or not; what lies before them is another matter (test_solvers)."""
    size = len(damped.h)
    found = last_of(
        solver(damped.operator.matmat, torch.from_numpy(damped.gz), iterations=3 * size, tolerance=1e-10), Solution
    )
    directions = directions_from_flat(found.x, damped.classifier.parameters(damped.scope))
    scores = project(damped.classifier, damped.scope, split(damped.train, 7), directions).dots.numpy().T
    expected = damped.gz @ np.linalg.solve(damped.h, damped.gx.T)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


class Line(nn.Module):
    """A linear regression of the label's number; its one output is called a logit."""

    def __init__(self, inputs: int):
        super().__init__()
        self.line = nn.Linear(inputs, 1, bias=False)

    def forward(self, x):
        return self.line(x)


class Ridge(Classifier):
    """Squared loss ½ (f(x) − y)², so that everything has a closed form."""

    def losses(self, batch, parameters=None, buffers=None):
        return 0.5 * (self.logits(batch, parameters, buffers)[:, 0] - batch.labels).square()


def test_ridge_regressions_leave_one_out_in_closed_form():
    """Removing row i moves θ by H⁻¹ g_i / N ÷ (1 − h_i), h_i = x_iᵀ H⁻¹ x_i / N (Sherman-Morrison), exactly."""
    n, l2 = 30, 0.1
    batch, query = vector_batch(n, classes=5), vector_batch(1, classes=5, seed=3)
    x, y = batch.inputs["x"].numpy(), batch.labels.numpy().astype(float)
    ridge = Ridge(Line(4).double(), ["number"])
    h = x.T @ x / n + l2 * np.eye(4)
    theta = np.linalg.solve(h, x.T @ y / n)
    ridge.module.line.weight.data = torch.from_numpy(theta)[None]
    scope = ridge.scope("all")
    operator = HessianOperator(ridge, scope, split(batch, 7), l2=l2)
    gz = torch.from_numpy(query.inputs["x"].numpy() * (query.inputs["x"].numpy() @ theta - query.labels.numpy()))
    found = last_of(conjugate_residual(operator.matmat, gz, iterations=50, tolerance=1e-12), Solution)
    directions = directions_from_flat(found.x, ridge.parameters(scope))
    scores = project(ridge, scope, split(batch, 7), directions).dots[:, 0].numpy()
    for row in range(n):
        others = np.arange(n) != row
        refitted = np.linalg.solve(x[others].T @ x[others] / n + l2 * np.eye(4), x[others].T @ y[others] / n)
        leverage = x[row] @ np.linalg.solve(h, x[row]) / n
        change = float(gz.numpy()[0] @ (refitted - theta))  # of the query's loss, to first order in θ
        assert change == pytest.approx(scores[row] / n / (1 - leverage), rel=1e-8)


def adam_correlation(batches: int) -> float:
    """Pearson R of −ε·score by the Adam metric with what one real Adam step on ε·l_x does, over all (z, x)."""
    rows = bert_rows(n=24)
    optimizer = OptimizerSpec("adam", 1e-6)
    step, parameters, state = build(rows, optimizer, scope="last:1", batch_size=8)
    if batches:
        state = last_of(warm_state(step, parameters, batches), OptimizerState)
    metric = adam_metric(step, parameters, state)
    every = np.arange(len(rows))
    gradients = loop_gradients(rows.classifier, step.scope, rows.batch(every))
    queries = {name: value[:3] for name, value in gradients.items()}
    scores = project(rows.classifier, step.scope, [rows.batch(every)], queries, metric).dots.numpy()  # [N, 3]
    epsilon = 1e-4

    def losses(weight: float, row: int) -> np.ndarray:
        moved, _ = step(
            parameters, state, torch.tensor([weight], dtype=torch.float64), Perturbation.mean(rows.batch([row])), 0
        )
        return rows.classifier.losses(rows.batch(every[:3]), moved).numpy()

    real = np.stack([losses(epsilon, row) - losses(0.0, row) for row in every])
    return float(np.corrcoef(real.ravel(), -epsilon * scores.ravel())[0, 1])


def test_tracin_adam_predicts_one_adam_step_from_a_warmed_state():
    warmed = adam_correlation(100)
    assert warmed >= 0.999
    assert adam_correlation(0) < 0.9  # from zeros Adam's step hardly depends on the gradient's size


def test_the_products_do_not_depend_on_batches_or_order(damped):
    directions = {
        name: torch.randn(3, *value.shape, dtype=torch.float64)
        for name, value in damped.classifier.parameters(damped.scope).items()
    }
    whole = project(damped.classifier, damped.scope, [damped.train], directions)
    for size in (7, 64):
        found = project(damped.classifier, damped.scope, split(damped.train, size), directions)
        torch.testing.assert_close(found.dots, whole.dots)
        torch.testing.assert_close(found.sqnorms, whole.sqnorms)
    order = torch.randperm(24)
    mixed = Batch({"x": damped.train.inputs["x"][order]}, damped.train.labels[order])
    torch.testing.assert_close(
        project(damped.classifier, damped.scope, split(mixed, 7), directions).dots, whole.dots[order]
    )
    for size in (7, 64):
        operator = HessianOperator(damped.classifier, damped.scope, split(mixed, size), l2=damped.l2)
        v = torch.randn(operator.size, dtype=torch.float64)
        torch.testing.assert_close(operator.matvec(v), damped.operator.matvec(v))
