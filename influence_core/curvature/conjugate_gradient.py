"""Conjugate Gradient, kept to show why it fails where the Hessian is indefinite (paper, App. F)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from influence_core.curvature.solution import Solution, dots, times
from influence_core.curvature.solving import Product, Recurrence, solve
from influence_core.events import Progress


def conjugate_gradient(
    matmat: Product, b: Tensor, *, damping: float = 0.0, tolerance: float = 1e-3, iterations: int = 100
) -> Iterator[Progress | Solution]:
    """Yield `Progress` after each iteration and the `Solution` of (H + δI) x = b last, for b [Q, P].

    Hestenes and Stiefel (1952), one product an iteration. It assumes H + δI positive definite: a
    direction of negative curvature is recorded and followed all the same, so the residual may
    exceed ‖b‖; x is the best iterate, which may be 0. A step that is not finite ends it. Memory:
    `memory.solve_bytes`.

    Raises:
        UserError: a tolerance out of reach, negative damping, no iterations, or b not finite.
    """
    return solve(ConjugateGradient, matmat, b, damping=damping, tolerance=tolerance, iterations=iterations)


class ConjugateGradient(Recurrence):
    """p ← r + βp with β = rᵀr / (rᵀr before); step α = rᵀr/pᵀHp along p."""

    name = "Conjugate Gradient"
    monotone = False

    def __init__(self, x: Tensor, r: Tensor, scale: Tensor) -> None:
        super().__init__(x, r, scale)
        self.rr = dots(r, r)  # [a]
        self.beta, self.php = torch.zeros_like(scale), torch.zeros_like(scale)  # [a]
        self.p, self.hp = torch.zeros_like(r), r  # [a, P]

    def prepare(self, product: Product) -> tuple[Tensor, Tensor]:
        """Make the next p and Hp; see `Recurrence`."""
        self.p.mul_(times(self.beta, self.p)).add_(self.r)
        self.hp = product(self.p)
        self.php = dots(self.p, self.hp)
        able = (self.rr / self.php).isfinite()
        return able, torch.zeros_like(able)

    def step(self) -> tuple[Tensor, Tensor]:
        """Step along p, whichever way it curves; see `Recurrence`."""
        alpha = times(self.rr / self.php, self.p)
        self.x.addcmul_(alpha, self.p)
        self.r.addcmul_(-alpha, self.hp)
        rr = dots(self.r, self.r)
        self.rr, self.beta = rr, rr / self.rr
        return rr.sqrt(), self.php / dots(self.p, self.p)
