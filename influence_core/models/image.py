"""Image classifiers: ResNet and ViT of transformers, ResNet of torchvision."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from influence_core.checkpoints.configs import read_config
from influence_core.data.pictures import decode
from influence_core.errors import UserError
from influence_core.models import pretrained, torchvision_models
from influence_core.models.classifier import Batch, Classifier
from influence_core.models.items import Lazy, blocks
from influence_core.models.layout import layout_of
from influence_core.resnets import TORCHVISION, normalisation

IN_MEMORY = 1_000_000_000  # bytes of prepared images; more are prepared each time they are looked at
TOGETHER = 256  # images prepared in one call
MODES = {1: "L", 3: "RGB"}

Prepare = Callable[[Sequence[Image.Image]], Sequence[np.ndarray]]


class ImageClassifier(Classifier):
    """A classifier of images [C, H, W], given by the first argument of the module's forward.

    ``mean`` and ``std`` (one number a channel, of values in [0, 1]) are the checkpoint's own
    normalisation; an image that has one channel where they have three is repeated. ``prepare`` is
    all that the checkpoint does to an image, sizes included, where it does more. Attention is the
    plain one, which has the derivatives that curvature and tangents need (DESIGN, Numerics 5).
    """

    def __init__(
        self,
        module: nn.Module,
        label_names: Sequence[str],
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
        prepare: Prepare | None = None,
    ) -> None:
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise UserError(f"mean {tuple(mean)} and std {tuple(std)}: give one number a channel, std above 0")
        if callable(choose := getattr(module, "set_attn_implementation", None)):
            choose("eager")
        super().__init__(module, label_names, layout=layout_of(module))
        self.entry = next(iter(inspect.signature(module.forward).parameters))
        self.mean = np.asarray(mean, dtype=np.float32)[:, None, None]  # [C, 1, 1]
        self.std = np.asarray(std, dtype=np.float32)[:, None, None]
        self.prepare = prepare

    def encode(self, raw: Sequence[Any]) -> Sequence[Any]:
        """Bring images to float32 [C, H, W], as the checkpoint does.

        Takes the bytes of image files, PIL images and uint8 arrays [H, W] or [H, W, C], which are
        prepared, and floating-point arrays [C, H, W], which are taken as they are. Returns views
        into one array, or a sequence that prepares an image each time it is looked at where that array
        would take more than 1 GB. Raises `UserError` for anything else and for images of different sizes.
        """
        if len(raw) == 0:
            return []
        shape = self._encoded(0, next(blocks(raw, 1)))[0].shape
        if 4 * int(np.prod(shape)) * len(raw) > IN_MEMORY:
            return Lazy(raw, lambda place, image: self._alike(place, self._encoded(place, [image])[0], shape))
        whole = np.empty((len(raw), *shape), dtype=np.float32)
        start = 0
        for part in blocks(raw, TOGETHER):
            for place, item in enumerate(self._encoded(start, part), start=start):
                whole[place] = self._alike(place, item, shape)
            start += len(part)
        return list(whole)

    def sizes(self, items: Sequence[Any]) -> np.ndarray:
        """Return 1 for each of N images, without preparing one."""
        return np.ones(len(items), np.int64)

    def _encoded(self, start: int, images: Sequence[Any]) -> Sequence[np.ndarray]:
        """Return [C, H, W] of each image; ``start`` is the first one's place."""
        plain = [self._opened(place, image) for place, image in enumerate(images, start=start)]
        if self.prepare is None or not all(isinstance(image, Image.Image) for image in plain):
            return [self._normalised(place, image) for place, image in enumerate(plain, start=start)]
        return self.prepare(plain)

    def _opened(self, place: int, image: Any) -> Any:
        """Return file bytes, and whatever `prepare` is to be given, as an image of the model's channels."""
        if isinstance(image, bytes):
            image = decode(image, str(place))
        elif self.prepare is None:
            return image
        elif isinstance(image, np.ndarray) and image.dtype == np.uint8:
            image = Image.fromarray(image)
        mode = MODES.get(len(self.mean))
        return image.convert(mode) if isinstance(image, Image.Image) and mode not in (None, image.mode) else image

    def _normalised(self, place: int, image: Any) -> np.ndarray:
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

    def _alike(self, place: int, item: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if item.shape != shape:
            raise UserError(
                f"image {place} is {_size(item.shape)}, image 0 is {_size(shape)}: bring all images to one size"
            )
        return item

    def collate(self, items: Sequence[Any], labels: Sequence[int] | np.ndarray) -> Batch:
        """Stack images of one size."""
        return self.place({self.entry: torch.from_numpy(np.stack(items)).to(self.dtype)}, labels)


def load_image(folder: Path, label_names: Sequence[str]) -> ImageClassifier:
    """Load a checkpoint directory of transformers (with its image processor) or of torchvision's ResNet.

    Raises `UserError` for weights that do not fit its configuration, or an image processor of other channels.
    """
    config = read_config(folder)
    prepare: Prepare
    if config.get("model_type") == TORCHVISION:
        module = torchvision_models.resnet(folder, config)
        channels = next(module.parameters()).shape[1]
        mean, std = normalisation(config, channels)
        prepare = torchvision_models.preparation(config, _each(folder, mean, channels), _each(folder, std, channels))
    else:
        module, processor = pretrained.model(folder, "image"), pretrained.image_processor(folder)
        channels = getattr(module.config, "num_channels", 3)
        normalises = getattr(processor, "do_normalize", True)
        mean, std = (processor.image_mean, processor.image_std) if normalises else ((0.0,), (1.0,))
        prepare = _processed_by(folder, processor)
    return ImageClassifier(module, label_names, _each(folder, mean, channels), _each(folder, std, channels), prepare)


def _processed_by(folder: Path, processor: Any) -> Prepare:
    def prepare(images: Sequence[Image.Image]) -> Sequence[np.ndarray]:
        with pretrained.in_one_line(folder, "image processor"):
            return [np.asarray(item, dtype=np.float32) for item in processor(images=list(images))["pixel_values"]]

    return prepare


def _each(folder: Path, values: Any, channels: int) -> tuple[float, ...]:
    """Return one number for each channel."""
    try:
        given = tuple(float(value) for value in (values if isinstance(values, (list, tuple)) else (values,)))
    except (TypeError, ValueError):
        raise UserError(
            f"the image processor in {folder} says {str(values)[:60]} of image_mean or image_std: give numbers"
        ) from None
    given = given * channels if len(given) == 1 else given
    if len(given) != channels or channels not in MODES:
        raise UserError(
            f"the image processor in {folder} normalises {len(given)} channels, the model takes {channels}: "
            "correct image_mean and image_std (1 and 3 channels are read)"
        )
    return given


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(str(length) for length in shape)
