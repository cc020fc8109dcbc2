"""A vector that scales the last dimensions, y = w ⊙ n(x): RMSNorm and its kin, layer scale.

w's gradient is Σ_t b_t ⊙ n(a_t), and n is the module's own forward with w = 1, however it computes.
"""

import torch
from torch import Tensor, nn

from influence_core.gradients.rules.factors import Dense, Factor
from influence_core.gradients.rules.registry import register
from influence_core.gradients.rules.rerun import rerun

_TRANSFORMERS = (
    "dinov2.modeling_dinov2.Dinov2LayerScale",
    "dinov2_with_registers.modeling_dinov2_with_registers.Dinov2WithRegistersLayerScale",
    "dinov3_vit.modeling_dinov3_vit.DINOv3ViTLayerScale",
    "llama.modeling_llama.LlamaRMSNorm",
    "longt5.modeling_longt5.LongT5LayerNorm",
    "mistral.modeling_mistral.MistralRMSNorm",
    "mt5.modeling_mt5.MT5LayerNorm",
    "qwen2.modeling_qwen2.Qwen2RMSNorm",
    "qwen3.modeling_qwen3.Qwen3RMSNorm",
    "switch_transformers.modeling_switch_transformers.SwitchTransformersLayerNorm",
    "t5.modeling_t5.T5LayerNorm",
    "umt5.modeling_umt5.UMT5LayerNorm",
)


@register(nn.RMSNorm, *(f"transformers.models.{name}" for name in _TRANSFORMERS))
def scale(module: nn.Module, a: Tensor, b: Tensor) -> dict[str, Factor]:
    """Return the factor of the module's one parameter w: a and b are [B, ..., *shape of w]."""
    ((name, w),) = module.named_parameters(recurse=False)
    ones = {name: torch.ones_like(w, dtype=b.dtype)}
    unscaled = rerun(module, ones, a)
    return {name: Dense((b * unscaled).reshape(len(b), -1, *w.shape).sum(1))}
