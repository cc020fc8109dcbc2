"""Parameters held directly by a module with children: class tokens, positions, a block's own scales.

There is no formula for what such a module does with them, so its forward is run once more on its
input and differentiated row by row by those parameters alone, with the output's gradient b.
"""

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from influence_core.gradients.rules.factors import Dense, Factor
from influence_core.gradients.rules.registry import register
from influence_core.gradients.rules.rerun import rerun


@register(nn.Module)
def bare(module: nn.Module, a: Tensor, b: Tensor) -> dict[str, Factor]:
    """Return the factors of the parameters that the module itself holds: a and b are [B, ...], any shape."""
    held = {name: each.detach() for name, each in module.named_parameters(recurse=False, remove_duplicate=False)}
    if a.is_floating_point():  # captured in float32 at least, run again in what the children take
        a = a.to(next(iter(held.values())).dtype)

    def weighted(parameters: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
        return (rerun(module, parameters, a[None])[0] * b).sum()

    with sdpa_kernel(SDPBackend.MATH):  # the others cannot be mapped over rows
        gradients = torch.func.vmap(torch.func.grad(weighted), in_dims=(None, 0, 0))(held, a, b)
    return {name: Dense(gradient.to(b.dtype)) for name, gradient in gradients.items()}
