"""Linear: y = x Wᵀ + c, so W's gradient is Σ_t b_t a_tᵀ over the T positions of a row, c's is Σ_t b_t.

With T positions and K directions, forming the [out, in] gradient and multiplying it costs
(T + K) · out · in multiplications a row, never forming it T · K · out · in: forming wins unless T
or K is 1. The norm alone costs T² · (out + in) from the Gram matrices of a and b.
"""

import torch
from torch import Tensor, nn

from influence_core.gradients.rules.factors import Dense, Factor, piece, sqnorms
from influence_core.gradients.rules.registry import register


class LinearWeight(Factor):
    """Σ_t b_t a_tᵀ as its two factors."""

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self.a, self.b = a, b  # [B, T, in], [B, T, out]
        self.count, self.positions = a.shape[0], a.shape[1]
        self.shape, self.device = torch.Size((b.shape[2], a.shape[2])), a.device

    def dot(self, directions: Tensor) -> Tensor:
        """Return ⟨g_x, d⟩, [B, K]."""
        if self._forming_costs_more(len(directions)):
            return self._dot_unformed(directions)
        return self._formed(directions, None, norms=False)[0]

    def sqnorm(self, metric: Tensor | None = None) -> Tensor:
        """Return g_x · P · g_x, [B]."""
        if self.positions == 1:  # G = b aᵀ, so that G² = b² (a²)ᵀ
            a, b = self.a[:, 0].square(), self.b[:, 0].square()
            return a.sum(1) * b.sum(1) if metric is None else (b @ metric * a).sum(1)
        if metric is None and self.positions * sum(self.shape) < self.shape.numel():
            return _gram(self, self)
        return self._formed(self.a.new_zeros(0, *self.shape), metric)[1]

    def products(self, directions: Tensor, metric: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return both, forming each gradient once."""
        if len(directions) == 0 or self._forming_costs_more(len(directions)):
            return self.dot(directions), self.sqnorm(metric)
        return self._formed(directions, metric)

    def dense(self, start: int, stop: int) -> Tensor:
        """Return some rows in full."""
        return self.b[start:stop].mT @ self.a[start:stop]

    def factored_cross(self, other: Factor, metric: Tensor | None) -> Tensor | None:
        """Return the product with another use, from Gram matrices where it can."""
        return _gram(self, other) if isinstance(other, LinearWeight) and metric is None else None

    def _forming_costs_more(self, count: int) -> bool:
        return self.positions * count < self.positions + count

    def _dot_unformed(self, directions: Tensor) -> Tensor:
        """Return Σ_t b_tᵀ D_k a_t for every k, [B, K], some directions at a time."""
        a, b = self.a.flatten(0, 1), self.b.flatten(0, 1)  # [B·T, in], [B·T, out]
        step = piece(self.device, a.numel())
        dots = a.new_empty(self.count, len(directions))
        for start in range(0, len(directions), step):
            some = directions[start : start + step]
            products = torch.bmm(b.expand(len(some), *b.shape), some) * a  # [k, B·T, in]
            dots[:, start : start + step] = products.sum(2).view(len(some), *self.a.shape[:2]).sum(2).T
        return dots

    def _formed(self, directions: Tensor, metric: Tensor | None, *, norms: bool = True) -> tuple[Tensor, Tensor]:
        """Form some output units' gradients of all rows at a time, and use them while they are at hand."""
        out, inner = self.shape
        count = len(directions)
        dots, squares = self.a.new_zeros(self.count, count), self.a.new_zeros(self.count)
        transposed = self.b.mT  # [B, out, T]
        step = piece(self.device, self.count * inner)
        for start in range(0, out, step):
            stop = min(start + step, out)
            gradients = (transposed[:, start:stop] @ self.a).flatten(1)  # [B, units · in]
            if count:
                dots.addmm_(gradients, directions[:, start:stop].flatten(1).T)
            if norms:
                squares += sqnorms(gradients, None if metric is None else metric[start:stop].flatten())
        return dots, squares


def _gram(one: LinearWeight, two: LinearWeight) -> Tensor:
    """Return ⟨Σ_s b_s a_sᵀ, Σ_t b'_t a'_tᵀ⟩ = Σ_st (a_s · a'_t)(b_s · b'_t), [B]."""
    return ((one.a @ two.a.mT) * (one.b @ two.b.mT)).sum((1, 2))


def live(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Leave out the positions that no row's loss depends on: a is [B, T, in], b is [B, T, out].

    Where a classifier reads one token, its last block has no gradient at any other position.
    """
    if b.shape[1] == 1 or bool((b[-1] != 0).any(1).all()):  # one row settles the usual case
        return a, b
    kept = (b != 0).any(2).any(0).nonzero().flatten()
    return a.index_select(1, kept), b.index_select(1, kept)


@register(nn.Linear)
def linear(module: nn.Module, a: Tensor, b: Tensor) -> dict[str, Factor]:
    """Return the factors of a Linear: a is [B, ..., in], b is [B, ..., out]."""
    a, b = live(a.reshape(len(a), -1, a.shape[-1]), b.reshape(len(b), -1, b.shape[-1]))
    return {"weight": LinearWeight(a, b), "bias": Dense(b.sum(1))}


@register("transformers.pytorch_utils.Conv1D")
def conv1d(module: nn.Module, a: Tensor, b: Tensor) -> dict[str, Factor]:
    """Return the factors of GPT-2's Conv1D, a Linear that keeps Wᵀ: a is [B, ..., in], b is [B, ..., out]."""
    a, b = live(a.reshape(len(a), -1, a.shape[-1]), b.reshape(len(b), -1, b.shape[-1]))
    return {"weight": LinearWeight(b, a), "bias": Dense(b.sum(1))}
