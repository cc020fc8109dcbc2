"""nn.MultiheadAttention: it multiplies by its projections' weights without calling a Linear.

Both projections are linear layers, whose inputs and output gradients are found by running the
attention between them once more and back.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from influence_core.errors import UserError
from influence_core.gradients.rules.factors import Dense, Factor
from influence_core.gradients.rules.linear import LinearWeight, live
from influence_core.gradients.rules.registry import register


@register(nn.MultiheadAttention, whole=True)
def attention(module: nn.Module, a: Tensor, b: Tensor) -> dict[str, Factor]:
    """Return the factors of self-attention without a mask: a and b are [B, T, D].

    Raises:
        UserError: an option of MultiheadAttention under which the formula differs.
    """
    assert isinstance(module, nn.MultiheadAttention)
    packed, output = module.in_proj_weight, module.out_proj
    if packed is None or module.bias_k is not None or module.add_zero_attn or not module.batch_first:
        raise UserError(
            f"a MultiheadAttention of {module.embed_dim} dimensions has kdim, vdim, add_bias_kv, add_zero_attn or "
            "batch_first=False, which its layer rule does not know: choose a scope without it"
        )
    bias = None if module.in_proj_bias is None else module.in_proj_bias.detach().to(a.dtype)
    projected = F.linear(a, packed.detach().to(a.dtype), bias)  # [B, T, 3 · D]
    with torch.enable_grad():
        leaf = projected.detach().requires_grad_()
        # [B, heads, T, D / heads] each
        q, k, v = leaf.view(*a.shape[:2], 3, module.num_heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT * module.head_dim**-0.5).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).flatten(2)  # [B, T, D]
        (back,) = torch.autograd.grad(mixed, leaf, b @ output.weight.detach().to(b.dtype))
    last, first = live(mixed.detach(), b), live(a, back)
    return {
        "in_proj_weight": LinearWeight(*first),
        "in_proj_bias": Dense(first[1].sum(1)),
        "out_proj.weight": LinearWeight(*last),
        "out_proj.bias": Dense(last[1].sum(1)),
    }
