"""BatchNorm and GroupNorm: y = γ ⊙ â + β by channel, so γ's gradient is Σ b ⊙ â over a channel and β's is Σ b."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from influence_core.errors import UserError
from influence_core.gradients.rules.factors import Dense, Factor, piece
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
    mean, variance, eps = module.running_mean, module.running_var, module.eps
    return _channels(lambda rows: F.batch_norm(rows, mean, variance, eps=eps), a, b)


@register(nn.GroupNorm)
def groupnorm(module: nn.Module, a: Tensor, b: Tensor) -> dict[str, Factor]:
    """Return the factors of a GroupNorm: a and b are [B, C, ...]."""
    assert isinstance(module, nn.GroupNorm)
    return _channels(lambda rows: F.group_norm(rows, module.num_groups, eps=module.eps), a, b)


def _channels(normalize: Callable[[Tensor], Tensor], a: Tensor, b: Tensor) -> dict[str, Factor]:
    """Sum over all but rows and channels; a and b are [B, C, ...].

    Some rows at a time: at the size of a whole batch of images, fresh memory would cost more than the sums.
    """
    step, each = piece(a.device, a[0].numel()), a[0, 0].numel()
    products = [
        (normalize(a[start : start + step]) * b[start : start + step]).reshape(-1, a.shape[1], each).sum(2)
        for start in range(0, len(a), step)
    ]
    return {"weight": Dense(torch.cat(products)), "bias": Dense(b.reshape(len(b), -1, each).sum(2))}
