"""Random crops and mirror images of a batch that lies on its device already."""

import torch
from torch import Tensor

PADDING = 8  # a crop moves by up to a PADDINGth of the size: RandomCrop(32, padding=4) of the paper, at any size


def crop_flip(images: Tensor, fill: Tensor) -> Tensor:
    """Shift each image by its own random offset, and mirror half of them (paper, J.1).

    Args:
        images: [B, C, H, W], prepared.
        fill: [C, 1, 1], what comes in at the edges: black, as prepared.

    Returns:
        [B, C, H, W]. Offsets come from torch's generator of the CPU, so they are the same on every device.
    """
    count, _, height, width = images.shape
    rows = _shifted(count, height).to(images.device)
    columns = _shifted(count, width).to(images.device)
    mirrored = (torch.rand(count) < 0.5).to(images.device)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[:, None, None, :]
    which = torch.arange(count, device=images.device)[:, None, None]
    # advanced indices on both sides of the channels put these last
    taken = images[which, :, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
    return torch.where(inside, taken.permute(0, 3, 1, 2), fill.to(images))


def _shifted(count: int, length: int) -> Tensor:
    """Return the positions that each of [count] crops reads, [count, length]; those outside are padding."""
    most = length // PADDING
    return torch.arange(length)[None, :] + torch.randint(-most, most + 1, (count, 1))
