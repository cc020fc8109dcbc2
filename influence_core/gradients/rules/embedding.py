"""Embedding: the gradient of table row v is Σ_{t: id_t = v} b_t; all other rows are zero.

It stays sparse: ids and output gradients. A norm must add up repeated tokens first, which the Gram
matrix of b does when it is masked by equal ids.
"""

import torch
from torch import Tensor, nn

from influence_core.errors import UserError
from influence_core.gradients.rules.factors import Dense, Factor
from influence_core.gradients.rules.linear import LinearWeight
from influence_core.gradients.rules.registry import register


class EmbeddingWeight(Factor):
    """Σ_t e(id_t) b_tᵀ as ids and output gradients."""

    def __init__(self, ids: Tensor, b: Tensor, rows: int) -> None:
        self.ids, self.b = ids, b  # [B, T] int64, [B, T, D]
        self.count, self.device = ids.shape[0], b.device
        self.shape = torch.Size((rows, b.shape[2]))

    def dot(self, directions: Tensor) -> Tensor:
        """Return ⟨g_x, d⟩, [B, K]."""
        ids = self.ids.flatten()
        columns = [(each[ids].view_as(self.b) * self.b).sum((1, 2)) for each in directions]
        return torch.stack(columns, 1) if columns else self.b.new_zeros(self.count, 0)

    def sqnorm(self, metric: Tensor | None = None) -> Tensor:
        """Return g_x · P · g_x, [B]."""
        return self._gram(self, metric)

    def dense(self, start: int, stop: int) -> Tensor:
        """Return some rows in full."""
        gradients = self.b.new_zeros(stop - start, *self.shape)
        ids = self.ids[start:stop, :, None].expand_as(self.b[start:stop])
        return gradients.scatter_add_(1, ids, self.b[start:stop])

    def factored_cross(self, other: Factor, metric: Tensor | None) -> Tensor | None:
        """Return the product with another use, from Gram matrices where it can."""
        if isinstance(other, EmbeddingWeight):
            return self._gram(other, metric)
        if isinstance(other, LinearWeight):  # tied: Σ_st b'_s[id_t] (a'_s · P[id_t] b_t)
            at_ids = self.ids[:, None, :].expand(-1, other.positions, -1)
            return (other.b.gather(2, at_ids) * (other.a @ self._weighted(metric).mT)).sum((1, 2))
        return None

    def _weighted(self, metric: Tensor | None) -> Tensor:
        return self.b if metric is None else self.b * metric[self.ids.flatten()].view_as(self.b)

    def _gram(self, other: "EmbeddingWeight", metric: Tensor | None) -> Tensor:
        equal = self.ids[:, :, None] == other.ids[:, None, :]
        return ((self._weighted(metric) @ other.b.mT) * equal).sum((1, 2))


@register(nn.Embedding)
def embedding(module: nn.Module, a: Tensor, b: Tensor) -> dict[str, Factor]:
    """Return the factor of an Embedding: a is ids [B, ...], b is [B, ..., D].

    Raises:
        UserError: the table is renormalised or its gradient rescaled (max_norm, scale_grad_by_freq).
    """
    assert isinstance(module, nn.Embedding)
    for option in ("max_norm", "scale_grad_by_freq"):
        if getattr(module, option):
            raise UserError(
                f"an Embedding of {module.num_embeddings} rows has {option} = {getattr(module, option)}, "
                "under which its gradient is not the loss's derivative: build it without, or choose a scope without it"
            )
    ids = a.reshape(len(a), -1)
    b = b.reshape(len(b), -1, b.shape[-1])
    if module.padding_idx is not None:  # that row never learns, as in torch
        b = b * (ids != module.padding_idx)[:, :, None]
    factor = EmbeddingWeight(ids, b, module.num_embeddings)
    # A table no longer than the row (token types, say) is smaller in full.
    return {"weight": Dense(factor.dense(0, len(ids))) if module.num_embeddings <= ids.shape[1] else factor}
