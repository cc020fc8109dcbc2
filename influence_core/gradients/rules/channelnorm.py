"""BatchNorm and GroupNorm: y = γ ⊙ â + β by channel, so γ's gradient is Σ b ⊙ â over a channel and β's is Σ b."""

import torch.nn.functional as F
from torch import Tensor, nn

from influence_core.errors import UserError
from influence_core.gradients.rules.factors import Dense, Factor
from influence_core.gradients.rules.registry import register


def refuse_mixed_rows(module: nn.Module) -> None:
    """Refuse a model in which the rows of a batch depend on each other.

    Raises:
        UserError: a BatchNorm, with or without parameters, keeps no running statistics.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:
            raise UserError(
                f"module {name!r} ({type(part).__name__}) has track_running_stats=False, so it mixes the rows of a "
                "batch and no row has a gradient of its own: give it running statistics"
            )


@register(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def batchnorm(module: nn.Module, a: Tensor, b: Tensor) -> dict[str, Factor]:
    """Return the factors of a BatchNorm in eval mode, with its running statistics: a and b are [B, C, ...]."""
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    return _channels(F.batch_norm(a, module.running_mean, module.running_var, eps=module.eps), b)


@register(nn.GroupNorm)
def groupnorm(module: nn.Module, a: Tensor, b: Tensor) -> dict[str, Factor]:
    """Return the factors of a GroupNorm: a and b are [B, C, ...]."""
    assert isinstance(module, nn.GroupNorm)
    return _channels(F.group_norm(a, module.num_groups, eps=module.eps), b)


def _channels(normalized: Tensor, b: Tensor) -> dict[str, Factor]:
    """Sum over all but rows and channels; ``normalized`` and b are [B, C, ...]."""
    b = b.reshape(*b.shape[:2], -1)
    return {"weight": Dense((normalized.reshape(b.shape) * b).sum(2)), "bias": Dense(b.sum(2))}
