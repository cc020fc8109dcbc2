import pytest
import torch
from models import mlp, split, vector_batch

from influence_core.curvature.conjugate_residual import conjugate_residual
from influence_core.curvature.flat import flatten
from influence_core.curvature.hvp import HessianOperator
from influence_core.curvature.solution import Solution
from influence_core.gradients.rows import row_gradients


@pytest.mark.parametrize("l2", [0.5, 0.02])
def test_inverse_hessian_products_of_a_network_agree_with_the_dense_inverse(l2):
    classifier, batch = mlp(), vector_batch(30)
    scope = classifier.scope("all")
    operator = HessianOperator(classifier, scope, split(batch, 8), l2)
    dense = operator.matmat(torch.eye(operator.size, dtype=torch.float64))
    lowest = torch.linalg.eigvalsh(dense).min()
    assert lowest > 0 if l2 == 0.5 else lowest < 0
    gradients = row_gradients(classifier, scope, vector_batch(3, seed=5))
    b = torch.stack([flatten({name: value[row] for name, value in gradients.items()}, scope) for row in range(3)])
    *_, solution = conjugate_residual(operator.matmat, b, tolerance=1e-10, iterations=1000)
    assert isinstance(solution, Solution)
    assert solution.converged.all()
    torch.testing.assert_close(solution.x, b @ torch.linalg.inv(dense), rtol=1e-5, atol=1e-7)
