"""Conjugate Residual: solves with a symmetric matrix that need not be positive definite (paper, App. F)."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from influence_core.curvature.minres import Minres
from influence_core.curvature.solution import Solution, dots, norms, times
from influence_core.curvature.solving import Product, Recurrence, solve
from influence_core.events import Progress


def conjugate_residual(
    matmat: Product, b: Tensor, *, damping: float = 0.0, tolerance: float = 1e-3, iterations: int = 100
) -> Iterator[Progress | Solution]:
    """Yield `Progress` after each iteration and the `Solution` of (H + δI) x = b last, for b [Q, P].

    One product an iteration (Stiefel, 1955; Saad, Iterative Methods for Sparse Linear Systems, alg.
    6.20); the residual never increases. A right-hand side with |rᵀHr| ≤ √eps ‖r‖‖Hr‖, or nothing
    to gain, goes on with MINRES from where it stands, which tells the two apart. Memory: `memory.solve_bytes`.

    Raises:
        UserError: a tolerance out of reach, negative damping, no iterations, or b not finite.
    """
    return solve(
        ConjugateResidual,
        matmat,
        b,
        damping=damping,
        tolerance=tolerance,
        iterations=iterations,
        fallback=Minres,
    )


class ConjugateResidual(Recurrence):
    """p ← r + βp, Hp ← Hr + βHp, with β = rᵀHr / (rᵀHr before); step α = rᵀHr/‖Hp‖² along p."""

    name = "Conjugate Residual"

    def __init__(self, x: Tensor, r: Tensor, scale: Tensor) -> None:
        super().__init__(x, r, scale)
        self.p, self.hp = torch.zeros_like(r), torch.zeros_like(r)  # [a, P]
        self.rhr = torch.full_like(scale, float("inf"))  # [a]; the first β is 0

    def prepare(self, product: Product) -> tuple[Tensor, Tensor]:
        """Make Hr and the next p and Hp; see `Recurrence`."""
        hr = product(self.r)
        rhr, length = dots(self.r, hr), norms(self.r)
        image = norms(hr) / length
        beta = times(rhr / self.rhr, hr)
        self.p.mul_(beta).add_(self.r)
        self.hp.mul_(beta).add_(hr)
        self.rhr, self.scale = rhr, torch.maximum(self.scale, image)
        stuck = rhr.abs() <= math.sqrt(torch.finfo(hr.dtype).eps) * length.square() * image
        finite = rhr.isfinite() & image.isfinite()
        broken = finite & (stuck | self.settled(length, image))
        return finite & ~broken, broken

    def step(self) -> tuple[Tensor, Tensor]:
        """Step along p; see `Recurrence`."""
        alpha = times(self.rhr / dots(self.hp, self.hp), self.p)
        self.x.addcmul_(alpha, self.p)
        self.r.addcmul_(-alpha, self.hp)
        return norms(self.r), dots(self.p, self.hp) / dots(self.p, self.p)
