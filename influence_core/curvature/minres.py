"""MINRES: smallest residuals with any symmetric matrix, where Conjugate Residual breaks down too."""

from collections.abc import Iterator

import torch
from torch import Tensor

from influence_core.curvature.solution import Solution, dots, norms, times
from influence_core.curvature.solving import Product, Recurrence, solve
from influence_core.events import Progress


def minres(
    matmat: Product,
    b: Tensor,
    *,
    start: Tensor | None = None,
    damping: float = 0.0,
    tolerance: float = 1e-3,
    iterations: int = 100,
) -> Iterator[Progress | Solution]:
    """Yield `Progress` after each iteration and the `Solution` of (H + δI) x = b last, for b [Q, P].

    Paige and Saunders (1975), one product an iteration, from ``start`` [Q, P] or 0; the residual
    never increases. With a singular matrix that does not reach b it ends at a least-squares
    solution, not converged. Memory: `memory.solve_bytes`.

    Raises:
        UserError: a tolerance out of reach, negative damping, no iterations, or b not finite.
    """
    return solve(Minres, matmat, b, damping=damping, tolerance=tolerance, iterations=iterations, start=start)


class Minres(Recurrence):
    """Lanczos vectors v, and the QR factors of their tridiagonal matrix by one rotation (c, s) each."""

    name = "MINRES"

    def __init__(self, x: Tensor, r: Tensor, scale: Tensor) -> None:
        super().__init__(x, r, scale)
        self.r = r.new_empty(len(r), 0)  # not followed
        self.length = norms(r)  # [a], signed: of the residual
        self.v, self.next = r / times(self.length, r), torch.zeros_like(r)  # [a, P]; next: v before, then v to come
        self.w, self.old_w = torch.zeros_like(r), torch.zeros_like(r)  # [a, P], directions
        zero, one = torch.zeros_like(scale), torch.ones_like(scale)
        self.alpha, self.beta, self.next_beta = zero, zero, zero  # [a], row of the tridiagonal matrix
        self.c, self.s, self.old_c, self.old_s = one, zero, one, zero  # [a], the last two rotations
        self.pivot = zero  # [a], its diagonal entry after those rotations

    def prepare(self, product: Product) -> tuple[Tensor, Tensor]:
        """Make the next Lanczos vector, and see who has nothing to gain from it; see `Recurrence`."""
        hv = product(self.v)
        self.next.mul_(times(-self.beta, hv)).add_(hv)
        self.alpha = dots(self.v, self.next)
        self.next.addcmul_(times(-self.alpha, hv), self.v)
        self.next_beta = norms(self.next)
        self.pivot = self.c * self.alpha - self.s * self.old_c * self.beta
        image = torch.hypot(self.pivot, self.c * self.next_beta)  # ‖Hr‖/‖r‖
        self.scale = torch.maximum(self.scale, torch.hypot(self.alpha, self.next_beta))
        able = image.isfinite() & (image > 10 * torch.finfo(hv.dtype).eps * self.scale)
        able &= ~self.settled(self.length.abs(), image)
        return able, torch.zeros_like(able)

    def step(self) -> tuple[Tensor, Tensor]:
        """Rotate, and step along the new w; see `Recurrence`."""
        above = self.s * self.alpha + self.c * self.old_c * self.beta
        far_above = self.old_s * self.beta
        diagonal = torch.hypot(self.pivot, self.next_beta)
        self.old_w.mul_(times(-far_above, self.w)).addcmul_(times(-above, self.w), self.w).add_(self.v)
        self.w, self.old_w = self.old_w.div_(times(diagonal, self.w)), self.w
        self.old_c, self.old_s = self.c, self.s
        self.c, self.s = self.pivot / diagonal, self.next_beta / diagonal
        self.x.addcmul_(times(self.c * self.length, self.w), self.w)
        self.length = -self.s * self.length
        self.beta = self.next_beta
        self.v, self.next = self.next.div_(times(self.beta, self.v)), self.v
        return self.length.abs(), self.alpha
