"""Rows of different lengths as one array, and the mask that hides what was added."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor


def padded(rows: Sequence[Any], fill: float, dtype: DTypeLike) -> np.ndarray:
    """Return rows [T_b, ...] as one array [B, max T, ...], filled up behind each row."""
    shape = (len(rows), max(len(row) for row in rows), *np.shape(rows[0])[1:])
    whole = np.full(shape, fill, dtype=dtype)
    for index, row in enumerate(rows):
        whole[index, : len(row)] = row
    return whole


def additive_mask(lengths: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return what attention adds to its scores, [B, 1, 1, max T]: 0, and the smallest number where there is padding."""
    hidden = torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, torch.finfo(dtype).min)[:, None, None, :]


def lengths_of(mask: Tensor) -> list[int]:
    """Return the lengths from which `additive_mask` made a mask."""
    return [int(length) for length in (mask[:, 0, 0, :] == 0).sum(1).tolist()]
