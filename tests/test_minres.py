import pytest
import torch
from matrices import indefinite, relative, rises, run, sides
from torch import Tensor

from influence_core.curvature.conjugate_gradient import conjugate_gradient
from influence_core.curvature.conjugate_residual import conjugate_residual
from influence_core.curvature.minres import minres

SOLVERS = [conjugate_residual, conjugate_gradient, minres]


@pytest.mark.parametrize("iterations", [1, 5, 17, 30])
def test_minres_and_conjugate_residual_have_the_same_iterates(iterations):
    matrix, b = indefinite(), sides(3)
    one, two = (run(s, matrix, b, tolerance=1e-10, iterations=iterations) for s in (minres, conjugate_residual))
    torch.testing.assert_close(one.x, two.x, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("iterations", [1, 4, 9])
def test_minres_is_the_least_squares_solution_over_the_krylov_space(iterations):
    matrix, b = indefinite(), sides(1)
    powers = [b[0]]
    for _ in range(iterations - 1):
        powers.append(matrix @ powers[-1] / 10)
    basis, _ = torch.linalg.qr(torch.stack(powers, 1))
    combination = torch.linalg.lstsq(matrix @ basis, b.T).solution
    ours = run(minres, matrix, b, tolerance=1e-10, iterations=iterations)
    torch.testing.assert_close(ours.x, (basis @ combination).T, rtol=1e-7, atol=1e-9)


def test_minres_begins_where_it_is_told():
    matrix, b = indefinite(), sides(2)
    near = run(minres, matrix, b, tolerance=1e-4, iterations=300)
    rest = run(minres, matrix, b, start=near.x, tolerance=1e-10, iterations=300)
    torch.testing.assert_close(rest.residuals[0], near.true_residuals, rtol=1e-10, atol=0)
    assert rises(rest.residuals).max() <= 0
    assert rest.converged.all()
    assert run(minres, matrix, b, start=rest.x, tolerance=1e-6).iterations == 0


def singular() -> Tensor:
    """An indefinite matrix with a null space of 20 dimensions."""
    values, vectors = torch.linalg.eigh(indefinite())
    values[::3] = 0
    assert values.min() < 0 < values.max()
    return vectors @ torch.diag(values) @ vectors.T


@pytest.mark.parametrize("solver", [minres, conjugate_residual])
def test_singular_consistent_systems_are_solved_by_the_shortest_solution(solver):
    matrix = singular()
    b = sides(2) @ matrix
    solution = run(solver, matrix, b, tolerance=1e-9, iterations=200)
    assert solution.converged.all()
    shortest = torch.linalg.lstsq(matrix, b.T, driver="gelsd", rcond=1e-10).solution.T
    torch.testing.assert_close(solution.x, shortest, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("solver", [minres, conjugate_residual])
def test_singular_inconsistent_systems_end_at_a_least_squares_solution(solver, dtype, tolerance):
    matrix, b = singular(), sides(6)
    solution = run(solver, matrix.to(dtype), b.to(dtype), tolerance=tolerance, iterations=400)
    shortest = torch.linalg.lstsq(matrix, b.T, driver="gelsd", rcond=1e-10).solution.T
    assert not solution.converged.any()
    assert solution.iterations < 60  # it saw that nothing was left to gain
    x = solution.x.double()
    least = relative(matrix, shortest, b)
    torch.testing.assert_close(relative(matrix, x, b), least, rtol=1000 * torch.finfo(dtype).eps, atol=0)
    assert (torch.linalg.vector_norm(x, dim=1) < 10 * torch.linalg.vector_norm(shortest, dim=1)).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_singular_matrix_without_solution_gives_no_garbage(solver):
    matrix = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    solution = run(solver, matrix, torch.tensor([[0.0, 1.0]], dtype=torch.float64))
    assert (solution.x.tolist(), solution.true_residuals.tolist()) == ([[0, 0]], [1])
    assert not solution.converged.any()
