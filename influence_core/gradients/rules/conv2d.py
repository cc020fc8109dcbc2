"""Conv2d: a Linear on the patch under each output position, so W's gradient is Σ_t b_t patch_tᵀ.

It is formed for some rows and output channels at a time. Forming costs T multiplications an
element and K directions K, with T the hundreds of positions of an image, so nothing is gained by
not forming it. With groups, each group of outputs sees its own channels only.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from influence_core.gradients.rules.factors import Dense, Factor, piece
from influence_core.gradients.rules.registry import register

# A piece has as many rows and output channels at least: the directions are read once for all its
# rows, the inputs once for all its channels.
ROWS, CHANNELS = 16, 16


class ConvWeight(Factor):
    """Σ_t b_t patch_tᵀ as the input image and the output's gradient."""

    def __init__(self, module: nn.Conv2d, a: Tensor, b: Tensor) -> None:
        self.module = module
        self.a, self.b = a, b  # [B, C, H, W], [B, O, H', W']
        self.count, self.shape, self.device = a.shape[0], module.weight.shape, a.device

    def dot(self, directions: Tensor) -> Tensor:
        """Return ⟨g_x, d⟩, [B, K]."""
        return self.products(directions)[0]

    def sqnorm(self, metric: Tensor | None = None) -> Tensor:
        """Return g_x · P · g_x, [B]."""
        return self.products(self.a.new_zeros(0, *self.shape), metric)[1]

    def products(self, directions: Tensor, metric: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return both, forming each gradient once."""
        dots, sqnorms = self.a.new_zeros(self.count, len(directions)), self.a.new_zeros(self.count)
        for rows, channels in self._blocks():
            gradients = Dense(_formed(self.module, self.a[rows], self.b[rows, channels]))
            dots[rows] += gradients.dot(directions[:, channels])
            sqnorms[rows] += gradients.sqnorm(None if metric is None else metric[channels])
        return dots, sqnorms

    def dense(self, start: int, stop: int) -> Tensor:
        """Return some rows in full."""
        return _formed(self.module, self.a[start:stop], self.b[start:stop])

    def _blocks(self) -> Iterator[tuple[slice, slice]]:
        """Yield rows and output channels (all of them where there are groups) formed at a time."""
        patches = self.a.shape[1] * self.shape[2:].numel() * self.b.shape[2:].numel()
        rows = min(self.count, max(piece(self.device, max(self.shape.numel(), patches)), ROWS))
        channels = max(piece(self.device, rows * self.shape[1:].numel()), CHANNELS)
        if self.module.groups > 1:
            channels = self.shape[0]
        for row in range(0, self.count, rows):
            for channel in range(0, self.shape[0], channels):
                yield slice(row, row + rows), slice(channel, channel + channels)


def _formed(module: nn.Conv2d, a: Tensor, b: Tensor) -> Tensor:
    """Return per-row gradients [B, O, C / groups, kh, kw] from a [B, C, H, W] and b [B, O, H', W']."""
    rows, groups, positions = len(a), module.groups, b.shape[2:].numel()
    shape = torch.Size((b.shape[1], *module.weight.shape[1:]))
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = F.pad(a, _padding(module), mode=mode)
    blocks = shape[0] // groups % 8 == 0 and shape[1] % 8 == 0
    if a.device.type == "cpu" and blocks and 2 * positions >= shape[1:].numel():
        # One image whose groups are the rows. oneDNN takes whole blocks of channels without cutting
        # out patches, which pays where the images are large beside the gradients (measured).
        image, back = padded.flatten(0, 1)[None], b.flatten(0, 1)[None]
        shaped = a.new_empty(1).expand(rows * shape[0], *shape[1:])  # only its shape is read
        options = (None, module.stride, (0, 0), module.dilation, False, (0, 0), rows * groups)
        wanted = (False, True, False)  # of input, weight, bias
        gradients: Tensor = torch.ops.aten.convolution_backward(back, image, shaped, *options, wanted)[1]
        return gradients.view(rows, *shape)
    patches = _patches(module, padded, b.shape[2:]).view(rows, groups, -1, positions)
    return (b.reshape(rows, groups, -1, positions) @ patches.mT).view(rows, *shape)


def _patches(module: nn.Conv2d, padded: Tensor, positions: torch.Size) -> Tensor:
    """Return what each of T output positions sees, [B, C · kh · kw, T].

    A strided view and one copy: on a CPU several times faster than ``F.unfold``.
    """
    padded = padded.contiguous()
    (kh, kw), (sh, sw), (dh, dw) = module.kernel_size, module.stride, module.dilation
    rows, channels, row, column = padded.stride()
    size = (*padded.shape[:2], kh, kw, *positions)
    view = padded.as_strided(size, (rows, channels, dh * row, dw * column, sh * row, sw * column))
    return view.reshape(len(padded), -1, positions.numel())


def _padding(module: nn.Conv2d) -> list[int]:
    """Return the padding as ``F.pad`` takes it: last dimension first, before and after."""
    sizes: list[int] = []
    for dimension in (1, 0):
        if module.padding == "valid":
            sizes += [0, 0]
        elif module.padding == "same":  # the odd one goes after, as in torch
            total = module.dilation[dimension] * (module.kernel_size[dimension] - 1)
            sizes += [total // 2, total - total // 2]
        else:
            sizes += [int(module.padding[dimension])] * 2
    return sizes


@register(nn.Conv2d)
def conv2d(module: nn.Module, a: Tensor, b: Tensor) -> dict[str, Factor]:
    """Return the factors of a Conv2d: a is [B, C, H, W], b is [B, O, H', W']."""
    assert isinstance(module, nn.Conv2d)
    return {"weight": ConvWeight(module, a, b), "bias": Dense(b.sum((2, 3)))}
