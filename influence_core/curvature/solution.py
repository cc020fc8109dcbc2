"""What solving (H + δI) x = b for many right-hand sides gives, and what it may be asked for."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from influence_core.errors import UserError

REACHABLE = {torch.float32: 1e-5, torch.float64: 1e-13}  # smallest relative tolerance that rounding allows
CHUNK_ELEMENTS = 1 << 22  # of a block of vectors, taken to float64 at a time: 32 MB


@dataclass(frozen=True)
class Solution:
    """Approximate solutions x of (H + δI) x = b, one a right-hand side, and how far to trust each.

    A right-hand side that has ended keeps its last residual in the rows that follow. Tables are on
    the CPU.
    """

    x: Tensor  # [Q, P], the iterate of smallest residual, in b's dtype
    residuals: Tensor  # [iterations + 1, Q] float64: ‖r‖/‖b‖ by the recurrence, before and after each iteration
    true_residuals: Tensor  # [Q] float64: ‖b − (H + δI) x‖/‖b‖ by one more product
    converged: Tensor  # [Q] bool: the recurrence reached the tolerance, the true residual twice that
    best: Tensor  # [Q] int64: the iterations after which x stood, a row of ``residuals``
    curvatures: Tensor  # [iterations, Q] float64: pᵀ(H + δI)p/pᵀp of the directions p (MINRES: Lanczos vectors), or NaN
    negative: Tensor  # [Q] int64: the first row of ``curvatures`` below 0, or −1
    breakdown: Tensor  # [Q] int64: the iterations after which Conjugate Residual went over to MINRES, or −1
    damping: float  # δ
    iterations: int  # done; the most of any right-hand side
    method: str


def check_request(b: Tensor, damping: float, tolerance: float, iterations: int) -> None:
    """Refuse what cannot be solved; raises `UserError`."""
    if b.dtype not in REACHABLE:
        kind = str(b.dtype).removeprefix("torch.")
        raise UserError(f"solving needs float32 or float64 numbers, got {kind}: load the model in float32")
    if not tolerance >= REACHABLE[b.dtype]:
        kind = str(b.dtype).removeprefix("torch.")
        raise UserError(
            f"a relative tolerance of {tolerance:g} is out of reach in {kind}: give at least {REACHABLE[b.dtype]:g}"
        )
    if not (math.isfinite(damping) and damping >= 0):
        raise UserError(f"damping = {damping:g}: give a finite number of at least 0")
    if iterations < 1:
        raise UserError(f"iterations = {iterations}: give at least 1")
    if not torch.isfinite(b).all():
        raise UserError("a right-hand side is not finite: check the model's losses, or use a higher precision")


def dots(one: Tensor, two: Tensor) -> Tensor:
    """Return the row-wise products of [Q, P] and [Q, P], [Q] float64, summed in float64."""
    total = torch.zeros(len(one), dtype=torch.float64, device=one.device)
    width = max(1, CHUNK_ELEMENTS // max(1, len(one)))
    for start in range(0, one.shape[1], width):
        columns = slice(start, start + width)
        total += torch.linalg.vecdot(one[:, columns].double(), two[:, columns].double())
    return total


def norms(vectors: Tensor) -> Tensor:
    """Return the lengths of the rows of [Q, P], [Q] float64."""
    return dots(vectors, vectors).sqrt()


def times(scalars: Tensor, vectors: Tensor) -> Tensor:
    """Shape [Q] scalars to multiply the rows of [Q, P], in the vectors' dtype."""
    return scalars.to(vectors.dtype)[:, None]
