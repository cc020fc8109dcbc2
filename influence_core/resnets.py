"""What a configuration says of a torchvision ResNet, and the images that it wants. No torch."""

from collections.abc import Sequence
from typing import Any

TORCHVISION = "torchvision"  # a configuration's model_type
CIFAR = "-cifar"  # ends an architecture whose first convolution is 3×3, without max-pool
# Means and deviations of the data that each stem is for, where config.json gives none: ImageNet's as torchvision has
# them, CIFAR-10's training images'.
NORMALISED = {
    False: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    True: ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}
SIZE = {False: 224, True: 32}
RESIZED = 256 / 224  # the shorter side before the crop, for the ImageNet stem


def architecture(config: dict[str, Any]) -> str:
    """Return torchvision's name of the model."""
    return str(config.get("architecture")).removesuffix(CIFAR)


def is_cifar(config: dict[str, Any]) -> bool:
    """Whether a configuration's ResNet of torchvision begins with a 3×3 convolution and no max-pool."""
    return config.get("stem") == "cifar" or str(config.get("architecture")).endswith(CIFAR)


def image_size(config: dict[str, Any]) -> int:
    """Return the pixels of a side that an image has when it comes to the model."""
    return int(config.get("image_size") or SIZE[is_cifar(config)])


def normalisation(config: dict[str, Any], channels: int) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and deviation of each channel, of values in [0, 1]: the configuration's, else those of its stem.

    Those of a stem are of three channels; a model of one channel gets their averages.
    """
    mean, std = (
        each if channels == len(each) else (sum(each) / len(each),) * channels for each in NORMALISED[is_cifar(config)]
    )
    return config.get("image_mean") or mean, config.get("image_std") or std
