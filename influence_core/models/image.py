"""Image classifiers: ResNet and ViT of transformers, ResNet of torchvision."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from influence_core.errors import UserError
from influence_core.models.classifier import Batch, Classifier
from influence_core.models.layout import layout_of


class ImageClassifier(Classifier):
    """A classifier of images [C, H, W], given by the first argument of the module's forward.

    ``mean`` and ``std`` (one number a channel, of values in [0, 1]) are the checkpoint's own
    normalisation; an image that has one channel where they have three is repeated. Attention is
    the plain one, which has the derivatives that curvature and tangents need (DESIGN, Numerics 5).
    """

    def __init__(
        self,
        module: nn.Module,
        label_names: Sequence[str],
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
    ) -> None:
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise UserError(f"mean {tuple(mean)} and std {tuple(std)}: give one number a channel, std above 0")
        if callable(choose := getattr(module, "set_attn_implementation", None)):
            choose("eager")
        super().__init__(module, label_names, layout=layout_of(module))
        self.entry = next(iter(inspect.signature(module.forward).parameters))
        self.mean = np.asarray(mean, dtype=np.float32)[:, None, None]  # [C, 1, 1]
        self.std = np.asarray(std, dtype=np.float32)[:, None, None]

    def encode(self, raw: Sequence[Any]) -> list[Any]:
        """Bring images to float32 [C, H, W].

        Takes uint8 arrays [H, W] or [H, W, C] and PIL images, which are scaled to [0, 1] and
        normalised, or floating-point arrays [C, H, W], which are taken as they are. Raises
        `UserError` for anything else and for images of different sizes.
        """
        items = [self._encoded(place, image) for place, image in enumerate(raw)]
        for place, item in enumerate(items):
            if item.shape != items[0].shape:
                raise UserError(
                    f"image {place} is {_size(item)}, image 0 is {_size(items[0])}: bring all images to one size"
                )
        return items

    def _encoded(self, place: int, image: Any) -> np.ndarray:
        values = np.asarray(image)
        if np.issubdtype(values.dtype, np.floating):
            if values.ndim != 3:
                raise UserError(f"image {place} is an array of shape {values.shape}: give [channels, height, width]")
            return values.astype(np.float32)
        if values.dtype != np.uint8 or values.ndim not in (2, 3):
            raise UserError(
                f"image {place} is an array of {values.dtype} of shape {values.shape}: give uint8 [height, width] or "
                "[height, width, channels], or floating-point [channels, height, width]"
            )
        channels = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
        if channels.shape[0] not in (1, len(self.mean)):
            raise UserError(
                f"image {place} has {channels.shape[0]} channels, the model {len(self.mean)}: "
                f"convert it to {len(self.mean)}, or to one, which is repeated"
            )
        normalised: np.ndarray = (channels.astype(np.float32) / 255 - self.mean) / self.std
        return normalised

    def collate(self, items: Sequence[Any], labels: Sequence[int] | np.ndarray) -> Batch:
        """Stack images of one size."""
        return self.place({self.entry: torch.from_numpy(np.stack(items)).to(self.dtype)}, labels)


def _size(item: np.ndarray) -> str:
    return " × ".join(str(length) for length in item.shape)
