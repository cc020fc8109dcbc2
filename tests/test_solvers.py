from itertools import pairwise

import pytest
import torch
from matrices import SIZE, indefinite, relative, rises, run, sides
from torch import Tensor

from influence_core.curvature.conjugate_gradient import conjugate_gradient
from influence_core.curvature.conjugate_residual import conjugate_residual
from influence_core.curvature.memory import solve_bytes
from influence_core.curvature.minres import minres
from influence_core.errors import UserError
from influence_core.events import Progress

SOLVERS = [conjugate_residual, conjugate_gradient, minres]


def test_conjugate_residuals_never_increase_where_conjugate_gradients_overshoot():
    matrix, b = indefinite(), sides(5)
    options = {"tolerance": 1e-10, "iterations": 40}
    cr, cg = run(conjugate_residual, matrix, b, **options), run(conjugate_gradient, matrix, b, **options)
    assert rises(cr.residuals).max() <= 1e-12
    assert (cr.breakdown == -1).all()
    assert (cg.residuals.amax(0) > 1).all()
    assert cr.residuals.shape == cg.residuals.shape == (41, 5)
    assert (cg.residuals >= cr.residuals * (1 - 1e-12)).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_exact_after_as_many_iterations_as_dimensions(solver):
    matrix, b = indefinite(12), sides(3, 12)
    solution = run(solver, matrix, b, tolerance=1e-9, iterations=12)
    assert solution.converged.all()
    assert solution.iterations <= 12
    torch.testing.assert_close(solution.x, b @ torch.linalg.inv(matrix), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_residuals_begin_at_one_and_are_those_of_the_iterates(solver):
    matrix, b = indefinite(), sides(3)
    for iterations in (1, 2, 7, 20):
        solution = run(solver, matrix, b, tolerance=1e-10, iterations=iterations)
        assert solution.residuals.shape == (iterations + 1, 3)
        assert solution.curvatures.shape == (iterations, 3)
        assert solution.residuals[0].tolist() == [1, 1, 1]
        true = relative(matrix, solution.x, b)
        torch.testing.assert_close(solution.true_residuals, true, rtol=1e-12, atol=0)
        torch.testing.assert_close(solution.residuals.amin(0), true, rtol=1e-8, atol=0)
        torch.testing.assert_close(solution.best, solution.residuals.argmin(0), rtol=0, atol=0)
        assert not solution.converged.any()


def test_progress_counts_the_iterations_and_each_costs_one_product():
    matrix, b = indefinite(), sides(2)
    for solver, phase in zip(SOLVERS, ("Conjugate Residual", "Conjugate Gradient", "MINRES"), strict=True):
        products = []

        def matmat(vectors: Tensor, products: list[int] = products) -> Tensor:
            products.append(len(vectors))
            return vectors @ matrix

        *progress, solution = solver(matmat, b, iterations=9)
        assert progress == [Progress(phase=phase, done=done, total=9, unit="iterations") for done in range(1, 10)]
        assert products == [2] * 9 + [2]  # the last for the true residuals
        assert (solution.method, solution.iterations) == (phase, 9)


def test_breakdown_goes_on_by_minres_to_the_solution():
    matrix = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    b = torch.ones(1, 2, dtype=torch.float64)
    *progress, solution = conjugate_residual(lambda vectors: vectors @ matrix, b)
    assert [(event.phase, event.done) for event in progress] == [("MINRES", 1), ("MINRES", 2)]
    torch.testing.assert_close(solution.x, torch.tensor([[1.0, -1.0]], dtype=torch.float64))
    assert (solution.breakdown.tolist(), solution.converged.tolist()) == ([0], [True])
    alone = run(conjugate_gradient, matrix, b)  # pᵀHp = 0
    assert (alone.x.tolist(), alone.converged.tolist(), alone.breakdown.tolist()) == ([[0, 0]], [False], [-1])


def test_one_that_breaks_down_leaves_the_others_alone():
    matrix = torch.diag(torch.tensor([2.0, 1.0, -1.0, 3.0], dtype=torch.float64))
    trouble = torch.tensor([[0.0, 1.0, 1.0, 0.0]], dtype=torch.float64)
    b = torch.cat([sides(1, 4), trouble, sides(1, 4, seed=9)])
    solution = run(conjugate_residual, matrix, b, tolerance=1e-9)
    torch.testing.assert_close(solution.x, b / matrix.diagonal(), rtol=1e-8, atol=1e-10)
    assert solution.breakdown.tolist() == [-1, 0, -1]
    assert rises(solution.residuals).max() <= 1e-12
    alone = run(conjugate_residual, matrix, b[:1], tolerance=1e-9)
    torch.testing.assert_close(solution.x[:1], alone.x, rtol=1e-12, atol=0)


def test_breakdown_after_a_step_keeps_what_the_step_gained():
    matrix = torch.diag(torch.tensor([3.0, 1.0, -1.0], dtype=torch.float64))

    def side(last: float) -> Tensor:
        return torch.tensor([1.0, 1.0, last], dtype=torch.float64)

    def form(b: Tensor) -> float:
        """rᵀHr of the residual r after one step."""
        hb = matrix @ b
        r = b - (b @ hb) / (hb @ hb) * hb
        return float(r @ matrix @ r)

    low, high = 0.1, 1.1
    assert form(side(low)) > 0 > form(side(high))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if form(side(middle)) > 0 else (low, middle)
    b = side(low)
    assert form(b) == pytest.approx(0, abs=1e-14)
    solution = run(conjugate_residual, matrix, b[None], tolerance=1e-10)
    assert solution.breakdown.tolist() == [1]
    assert solution.residuals[1] < 0.9
    assert rises(solution.residuals).max() <= 1e-12
    assert solution.converged.all()
    torch.testing.assert_close(solution.x[0], b / matrix.diagonal(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
def test_damping_solves_the_shifted_matrix(solver):
    matrix, b, damping = indefinite(20), sides(2, 20), 0.7
    shifted = matrix + damping * torch.eye(20, dtype=torch.float64)
    damped = run(solver, matrix, b, damping=damping, tolerance=1e-11, iterations=30)
    assert damped.damping == damping
    torch.testing.assert_close(damped.x, b @ torch.linalg.inv(shifted), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(damped.true_residuals, relative(shifted, damped.x, b), rtol=1e-3, atol=1e-14)


@pytest.mark.parametrize("solver", SOLVERS)
def test_many_right_hand_sides_equal_one_by_one(solver):
    matrix = indefinite()
    eigenvector = torch.linalg.eigh(matrix)[1][:, :3].sum(1)  # three iterations are enough for it
    b = torch.cat([sides(2), eigenvector[None], torch.zeros(1, SIZE, dtype=torch.float64), 1e3 * sides(1, seed=5)])
    together = run(solver, matrix, b, tolerance=1e-4, iterations=200)
    for number, side in enumerate(b):
        alone = run(solver, matrix, side[None], tolerance=1e-4, iterations=200)
        count = alone.iterations
        torch.testing.assert_close(together.x[number], alone.x[0], rtol=1e-8, atol=1e-10)
        assert together.best[number] == alone.best[0] == count
        assert together.negative[number] == alone.negative[0]
        last = together.residuals[count:, number]
        assert (last == last[0]).all()  # frozen
        assert together.curvatures[count:, number].isnan().all()
    assert together.converged.all()
    assert together.best[2] <= 4 < together.best[0]


def test_columns_that_have_ended_cost_no_products():
    matrix, counts = indefinite(), []
    b = torch.cat([torch.linalg.eigh(matrix)[1][:, :1].T, sides(1)])

    def matmat(vectors: Tensor) -> Tensor:
        counts.append(len(vectors))
        return vectors @ matrix

    list(conjugate_residual(matmat, b, tolerance=1e-6))
    assert counts[0] == 2
    assert set(counts[1:-1]) == {1}


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_zero_right_hand_side_is_solved_by_zero(solver):
    solution = run(solver, indefinite(), torch.zeros(1, SIZE, dtype=torch.float64))
    assert not solution.x.any()
    assert (solution.iterations, solution.converged.tolist()) == (0, [True])
    assert (solution.true_residuals.tolist(), solution.negative.tolist()) == ([0], [-1])


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_operator_that_returns_its_argument_is_left_intact(solver):
    b = sides(2)
    before = b.clone()
    *_, solution = solver(lambda vectors: vectors, b, damping=1.0)
    torch.testing.assert_close(solution.x, b / 2)
    assert torch.equal(b, before)


def test_negative_curvature_is_flagged_where_the_quadratic_form_is_negative():
    matrix, b = indefinite(), sides(4)
    for solver in SOLVERS:
        solution = run(solver, matrix, b, tolerance=1e-8, iterations=30)
        below = solution.curvatures < 0
        assert below.any(0).all()
        assert solution.negative.tolist() == [int(column.nonzero()[0]) for column in below.T]
        definite = run(solver, matrix @ matrix, b, tolerance=1e-8, iterations=30)
        assert definite.negative.tolist() == [-1] * 4
        assert (definite.curvatures > 0).all()


@pytest.mark.parametrize("solver", [conjugate_gradient, conjugate_residual])
def test_curvatures_are_those_of_the_steps_taken(solver):
    matrix, b = indefinite(), sides(1)
    solutions = [run(solver, matrix, b, tolerance=1e-10, iterations=n) for n in range(1, 9)]
    if solver is conjugate_gradient:  # it returns the best iterate only: here each is better than the last
        matrix = matrix @ matrix
        solutions = [run(solver, matrix, b, tolerance=1e-10, iterations=n) for n in range(1, 9)]
        solutions = [s for s in solutions if int(s.best) == s.iterations]
    assert len(solutions) > 3
    for one, two in pairwise(solutions):
        if two.iterations != one.iterations + 1:
            continue
        p = (two.x - one.x)[0]
        assert two.curvatures[-1, 0] == pytest.approx(float(p @ matrix @ p / (p @ p)), rel=1e-6)


def test_conjugate_gradient_returns_its_best_iterate():
    matrix, b = indefinite(), sides(6)
    solution = run(conjugate_gradient, matrix, b, tolerance=1e-10, iterations=15)
    assert (solution.best < 15).any()
    torch.testing.assert_close(solution.true_residuals, solution.residuals.amin(0), rtol=1e-9, atol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_converged_means_the_true_residual_too(solver):
    matrix, b = indefinite(), sides(1)
    count = run(solver, matrix, b, iterations=100).iterations

    def matmat(vectors: Tensor) -> Tensor:  # another matrix after the recurrence has converged
        calls.append(1)
        return vectors @ matrix * (1.01 if len(calls) > count else 1)

    calls: list[int] = []
    *_, solution = solver(matmat, b, iterations=100)
    assert solution.residuals[-1] <= 1e-3 < 5e-3 < solution.true_residuals
    assert not solution.converged.any()


@pytest.mark.parametrize("solver", SOLVERS)
def test_products_that_are_not_finite_end_it_with_the_best_so_far(solver):
    matrix, b, calls = indefinite(), sides(2), []

    def matmat(vectors: Tensor) -> Tensor:
        calls.append(1)
        product = vectors @ matrix
        if len(calls) == 6:
            product[1] = float("nan")
        return product

    *_, solution = solver(matmat, b, tolerance=1e-9, iterations=100)
    assert solution.converged.tolist() == [True, False]
    five = run(solver, matrix, b, tolerance=1e-9, iterations=5)
    torch.testing.assert_close(solution.x[1], five.x[1])
    assert solution.residuals[:, 1].isfinite().all()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
def test_float32_reaches_its_tolerance(solver, tolerance):
    matrix, b = indefinite(), sides(3)
    solution = run(solver, matrix.float(), b.float(), tolerance=tolerance, iterations=300)
    assert solution.x.dtype == torch.float32
    assert solution.residuals.dtype == torch.float64
    assert solution.converged.all()
    assert relative(matrix, solution.x.double(), b).max() <= 2 * tolerance


@pytest.mark.parametrize(
    ("options", "dtype", "message"),
    [
        ({"tolerance": 9e-6}, torch.float32, "9e-06 .* float32: give at least 1e-05"),
        ({"tolerance": 1e-14}, torch.float64, "1e-14 .* float64"),
        ({"tolerance": float("nan")}, torch.float64, "nan"),
        ({"damping": -0.1}, torch.float64, "damping = -0.1"),
        ({"damping": float("inf")}, torch.float64, "damping = inf"),
        ({"iterations": 0}, torch.float64, "iterations = 0"),
        ({}, torch.bfloat16, "float32 or float64 numbers, got bfloat16"),
    ],
)
def test_what_cannot_be_solved_is_refused(options, dtype, message):
    with pytest.raises(UserError, match=message):
        next(conjugate_residual(lambda vectors: vectors, torch.ones(1, 3, dtype=dtype), **options))


def test_a_right_hand_side_that_is_not_finite_is_refused():
    with pytest.raises(UserError, match="right-hand side is not finite"):
        next(minres(lambda vectors: vectors, torch.tensor([[1.0, float("inf")]])))


def test_sums_in_chunks_equal_sums_at_once(monkeypatch):
    matrix, b = indefinite(), sides(3)
    whole = run(conjugate_residual, matrix, b, iterations=20)
    monkeypatch.setattr("influence_core.curvature.solution.CHUNK_ELEMENTS", 40)
    torch.testing.assert_close(run(conjugate_residual, matrix, b, iterations=20).x, whole.x, rtol=1e-9, atol=1e-12)


def test_memory_is_told_before_the_run():
    assert solve_bytes(8, 1_000_000) == 10 * 8 * 1_000_000 * 4
    assert solve_bytes(8, 1_000_000, "Conjugate Gradient", itemsize=8) < 2 * solve_bytes(8, 1_000_000)
