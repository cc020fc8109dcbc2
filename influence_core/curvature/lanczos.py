"""Lanczos with full reorthogonalisation: the eigenpairs of largest magnitude, signs kept.

Rounding makes plain Lanczos lose orthogonality and repeat eigenvalues (Paige, 1976). Two
Gram-Schmidt passes against the whole basis, with float64 products, cost little beside a
Hessian-vector product.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from influence_core.curvature.basis import BASIS_BYTES, make_basis
from influence_core.errors import UserError
from influence_core.events import Progress

CHUNK_ELEMENTS = 1 << 22  # of the basis, taken to float64 at a time: 32 MB


@dataclass(frozen=True)
class Eigenpairs:
    """The k Ritz pairs of largest |λ| of a symmetric operator, and how far to trust them."""

    values: Tensor  # [k] float64, signed, by falling |λ|
    vectors: Tensor  # [k, P], rows of unit length, in the operator's dtype
    residuals: Tensor  # [k] float64: ‖H v − λ v‖ in exact arithmetic, |β_m s_mi|
    orthogonality: float  # spectral norm of QᵀQ − I over the whole basis
    iterations: int  # done; fewer than asked for if the space was exhausted
    negative: int  # how many of the k values are below 0
    restarts: int  # how often an invariant subspace was left by a fresh start vector
    exhausted: bool  # the basis spans the whole space, so every eigenpair is exact


def lanczos(
    matvec: Callable[[Tensor], Tensor],
    size: int,
    *,
    k: int,
    iterations: int,
    seed: int,
    dtype: torch.dtype,
    device: torch.device,
    folder: Path | None = None,
    memory_limit: int = BASIS_BYTES,
) -> Iterator[Progress | Eigenpairs]:
    """Yield `Progress` after each iteration and the `Eigenpairs` last (paper, Sec. 4.2).

    ``matvec`` maps [P] to [P], P = ``size``. Memory: ``iterations`` × P numbers for the basis, then
    k × P for the vectors (`memory.lanczos_bytes`); a basis above ``memory_limit`` bytes is kept in a
    nameless file in ``folder``, if one is given, with the same result. The start vector comes from a
    generator of its own seeded by ``seed``.

    Raises:
        UserError: k larger than the number of parameters or of iterations, a product that is not
            finite, or no room for the basis in the folder.
    """
    if not 1 <= k <= size:
        raise UserError(f"k = {k} eigenpairs of {size} parameters: choose k from 1 to {size}")
    if k > iterations:
        raise UserError(f"k = {k} eigenpairs need at least as many iterations, got {iterations}: raise iterations")
    steps = min(iterations, size)
    generator = torch.Generator().manual_seed(seed)
    basis = make_basis(steps, size, dtype, device, folder, memory_limit)
    diagonal, off_diagonal = torch.zeros(steps, dtype=torch.float64), torch.zeros(steps, dtype=torch.float64)
    tiny = 100 * torch.finfo(dtype).eps  # relative to the largest entry of T, which ‖H‖ is at least
    scale, restarts = 0.0, 0
    basis[0] = _fresh(basis[:0], generator, device)
    for step in range(steps):
        done = basis[: step + 1]
        w = matvec(basis[step].to(device)).to(device, torch.float64)
        w, coefficients = _orthogonalise(w, done)
        diagonal[step] = coefficients[step]
        beta = float(torch.linalg.vector_norm(w))
        scale = max(scale, abs(float(diagonal[step])), beta)
        if not torch.isfinite(torch.tensor([beta, float(diagonal[step])])).all():
            raise UserError(
                f"Hessian-vector product {step + 1} is not finite: check the model's losses, or use a higher precision"
            )
        invariant = beta <= tiny * scale
        off_diagonal[step] = 0.0 if invariant or step + 1 == size else beta
        if step + 1 < steps:
            restarts += invariant
            basis[step + 1] = _fresh(done, generator, device) if invariant else w / beta
        yield Progress(phase="Lanczos", done=step + 1, total=steps, unit="iterations")
    tridiagonal = torch.diag(diagonal) + torch.diag(off_diagonal[:-1], 1) + torch.diag(off_diagonal[:-1], -1)
    values, combinations = torch.linalg.eigh(tridiagonal)
    order = values.abs().argsort(descending=True, stable=True)[:k]
    chosen = combinations[:, order]  # [m, k]
    yield Eigenpairs(
        values=values[order],
        vectors=_combine(chosen.to(device), basis),
        residuals=(off_diagonal[-1] * chosen[-1]).abs(),
        orthogonality=_orthogonality(basis, device),
        iterations=steps,
        negative=int((values[order] < 0).sum()),
        restarts=restarts,
        exhausted=steps == size,
    )


def _fresh(basis: Tensor, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw a unit vector [P] orthogonal to the rows of the basis so far [j, P]."""
    w = torch.randn(basis.shape[1], generator=generator, dtype=torch.float64).to(device)
    for _ in range(2):  # little may be left of w when the basis nearly fills the space
        w, _ = _orthogonalise(w, basis)
        w /= torch.linalg.vector_norm(w)
    return w


def _chunks(basis: Tensor, device: torch.device) -> Iterator[tuple[slice, Tensor]]:
    """Yield the basis [j, P] in float64 on the device, some columns at a time."""
    width = max(1, CHUNK_ELEMENTS // max(1, len(basis)))
    for start in range(0, basis.shape[1], width):
        columns = slice(start, start + width)
        yield columns, basis[:, columns].to(device).double()


def _orthogonalise(w: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Take the components along the basis [j, P] out of w [P] twice; return w and their sum [j], float64.

    The second pass's products are taken while the first pass's chunk is at hand.
    """
    first = torch.zeros(len(basis), dtype=torch.float64, device=w.device)
    second = torch.zeros_like(first)
    w = w.clone()
    for columns, part in _chunks(basis, w.device):
        first += part @ w[columns]
    for columns, part in _chunks(basis, w.device):
        w[columns] -= first @ part
        second += part @ w[columns]
    for columns, part in _chunks(basis, w.device):
        w[columns] -= second @ part
    return w, first + second


def _combine(combinations: Tensor, basis: Tensor) -> Tensor:
    """Return combinationsᵀ · basis, [k, P], from [m, k] and [m, P]."""
    size = (combinations.shape[1], basis.shape[1])
    vectors = torch.empty(size, dtype=basis.dtype, device=combinations.device)
    for columns, part in _chunks(basis, combinations.device):
        vectors[:, columns] = (combinations.T @ part).to(basis.dtype)
    return vectors


def _orthogonality(basis: Tensor, device: torch.device) -> float:
    gram = -torch.eye(len(basis), dtype=torch.float64, device=device)
    for _, part in _chunks(basis, device):
        gram += part @ part.T
    return float(torch.linalg.matrix_norm(gram, ord=2))
