"""Symmetric matrices and right-hand sides to solve for."""

import torch
from torch import Tensor

from influence_core.curvature.solution import Solution
from influence_core.events import Progress

SIZE = 60


def indefinite(size: int = SIZE, seed: int = 0) -> Tensor:
    """A symmetric matrix with eigenvalues of both signs, all at least 1 in magnitude."""
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    values = 1 + 9 * torch.rand(size, generator=generator, dtype=torch.float64)
    values[: size // 3] *= -1
    return rotation @ torch.diag(values) @ rotation.T


def sides(count: int, size: int = SIZE, seed: int = 1) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(solver, matrix: Tensor, b: Tensor, **options) -> Solution:
    *progress, solution = solver(lambda vectors: vectors @ matrix, b, **options)
    assert isinstance(solution, Solution)
    assert all(isinstance(event, Progress) for event in progress)
    return solution


def relative(matrix: Tensor, x: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vector_norm(b - x @ matrix, dim=1) / torch.linalg.vector_norm(b, dim=1)


def rises(residuals: Tensor) -> Tensor:
    """By how much each residual exceeds the one before, at most."""
    return (residuals[1:] - residuals[:-1]).amax(0)
