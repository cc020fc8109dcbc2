"""Which modules are in train mode during a forward pass, and BatchNorm without in-place updates."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from influence_core.models.classifier import Parameters

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


@contextmanager
def modes(module: nn.Module, roots: tuple[str, ...], dropout: bool, batchnorm: bool) -> Iterator[None]:
    """Put the modules under ``roots`` in train mode and all others in eval, until the block ends.

    ``batchnorm`` is the mode of BatchNorm layers under the roots, ``dropout`` that of everything
    else there. What was set before returns afterwards, errors included. BatchNorm layers in train
    mode normalise by the batch but leave their running statistics alone (see `moving_statistics`),
    because an in-place update would be neither pure nor differentiable by ``torch.func``.
    """
    before = [(part, part.training) for part in module.modules()]
    tracked = [part for part in module.modules() if isinstance(part, BATCH_NORMS) and part.track_running_stats]
    trained = {part for root in roots for part in module.get_submodule(root).modules()}
    try:
        for part, _ in before:
            part.training = part in trained and (batchnorm if isinstance(part, BATCH_NORMS) else dropout)
        for norm in tracked:
            norm.track_running_stats = not norm.training  # in eval the statistics are read, not written
        yield
    finally:
        for part, training in before:
            part.training = training
        for norm in tracked:
            norm.track_running_stats = True


def batch_norms(module: nn.Module, roots: tuple[str, ...]) -> dict[str, BatchNorm]:
    """Return the BatchNorm layers under ``roots`` that keep running statistics, by name."""
    trained = {part for root in roots for part in module.get_submodule(root).modules()}
    return {
        name: part
        for name, part in module.named_modules()
        if part in trained and isinstance(part, BATCH_NORMS) and part.running_mean is not None
    }


def running_statistics(module: nn.Module, roots: tuple[str, ...]) -> Parameters:
    """Return copies of the running statistics of `batch_norms`, all as floating-point tensors.

    The count of batches becomes float64, so that the whole optimizer state can carry tangents.
    """
    statistics: Parameters = {}
    for name, norm in batch_norms(module, roots).items():
        for buffer, value in norm.named_buffers(recurse=False):
            copy = value.detach().clone()
            statistics[f"{name}.{buffer}"] = copy if copy.is_floating_point() else copy.to(torch.float64)
    return statistics


@contextmanager
def moving_statistics(norms: dict[str, BatchNorm], statistics: Parameters) -> Iterator[Parameters]:
    """Yield a copy of ``statistics`` that follows the forward passes made inside the block.

    The update is torch.nn.BatchNorm's own: (1 − momentum)·old + momentum·new, with the unbiased
    variance, or the cumulative mean if momentum is None. Tensors are replaced, never written into.
    """
    moving = dict(statistics)

    def follow(name: str, norm: BatchNorm, x: Tensor) -> None:
        dims = [d for d in range(x.dim()) if d != 1]  # [B, C, ...]: all but the channels
        count = moving[f"{name}.num_batches_tracked"] + 1
        variance, mean = torch.var_mean(x, dim=dims, correction=1)
        for buffer, new in (("running_mean", mean), ("running_var", variance)):
            old = moving[f"{name}.{buffer}"]
            share: Tensor | float = 1 / count.to(old) if norm.momentum is None else norm.momentum
            moving[f"{name}.{buffer}"] = (1 - share) * old + share * new
        moving[f"{name}.num_batches_tracked"] = count

    handles = [
        norm.register_forward_pre_hook(lambda part, inputs, name=name: follow(name, part, inputs[0]))
        for name, norm in norms.items()
    ]
    try:
        yield moving
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def differentiable_statistics(norms: dict[str, BatchNorm]) -> Iterator[None]:
    """Let eval-mode BatchNorm layers pass on the derivative of their running statistics.

    Statistics that moved with the parameters depend on ε, and torch's own ``batch_norm`` refuses
    forward-mode derivatives of them; inside the block the same formula is computed in the open.
    """
    for norm in norms.values():
        # An instance attribute comes before the class's method; functional_call leaves it alone.
        vars(norm)["forward"] = partial(_normalise, norm)
    try:
        yield
    finally:
        for norm in norms.values():
            del vars(norm)["forward"]


def _normalise(norm: BatchNorm, x: Tensor) -> Tensor:
    """Return (x − mean) / √(var + eps) · weight + bias, x [B, C, ...]."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    shape = (1, -1) + (1,) * (x.dim() - 2)
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight
    normalised = (x - norm.running_mean.view(shape)) * scale.view(shape)
    return normalised + norm.bias.view(shape) if norm.affine else normalised
