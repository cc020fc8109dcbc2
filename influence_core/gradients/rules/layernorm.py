"""LayerNorm: y = γ ⊙ x̂ + β, so γ's gradient is Σ_t b_t ⊙ x̂_t and β's is Σ_t b_t."""

import torch.nn.functional as F
from torch import Tensor, nn

from influence_core.gradients.rules.factors import Dense, Factor
from influence_core.gradients.rules.registry import register


@register(nn.LayerNorm)
def layernorm(module: nn.Module, a: Tensor, b: Tensor) -> dict[str, Factor]:
    """Return the factors of a LayerNorm: a and b are [B, ..., *normalized_shape]."""
    assert isinstance(module, nn.LayerNorm)
    shape = module.normalized_shape

    def total(gradients: Tensor) -> Factor:
        return Dense(gradients.reshape(len(gradients), -1, *shape).sum(1))

    normalized = F.layer_norm(a, shape, eps=module.eps)
    return {"weight": total(b * normalized), "bias": total(b)}
