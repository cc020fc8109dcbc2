"""ResNets of torchvision: built from an architecture's name, with the images it wants."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from influence_core.checkpoints.configs import class_names
from influence_core.checkpoints.tensor_headers import safetensors_headers
from influence_core.errors import UserError
from influence_core.resnets import RESIZED, architecture, image_size, is_cifar
from influence_core.workspace import WEIGHTS


def empty_resnet(config: dict[str, Any], channels: int = 3) -> nn.Module:
    """Build the architecture without memory for its weights; raises `UserError` for a name that torchvision lacks."""
    from torchvision.models import get_model, list_models

    name = architecture(config)
    known = [each for each in list_models() if "resne" in each and "quantized" not in each and "_" not in each]
    if name not in list_models(include=["resnet*", "resnext*", "wide_resnet*"]):
        raise UserError(f"torchvision has no {name!r} that is read here: give one of {', '.join(known)}")
    with torch.device("meta"):
        module: nn.Module = get_model(name, weights=None, num_classes=len(class_names(config)))
        if is_cifar(config):
            module.conv1 = nn.Conv2d(channels, 64, 3, stride=1, padding=1, bias=False)
            module.maxpool = nn.Identity()
        elif channels != 3:
            module.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return module


def resnet(folder: Path, config: dict[str, Any]) -> nn.Module:
    """Load a folder's state dict into its architecture, in float32; raises `UserError` where it does not fit."""
    file = folder / WEIGHTS
    module = empty_resnet(config, safetensors_headers(file)["conv1.weight"].shape[1])
    try:
        module.load_state_dict(load_file(file), assign=True)
    except RuntimeError as error:  # its first line names the class only
        said = " ".join(str(error).split())
        raise UserError(
            f"{file} does not fit {config.get('architecture')} ({said[:200]}): correct config.json"
        ) from None
    return module.float()


def preparation(
    config: dict[str, Any], mean: Sequence[float], std: Sequence[float]
) -> Callable[[Sequence[Image.Image]], Sequence[np.ndarray]]:
    """Return what brings images of the right channels to float32 [B, C, H, W].

    For the ImageNet stem torchvision's own evaluation transform: shorter side to 256/224 of the
    size, centre crop, normalise. For the CIFAR stem the whole image at the size.
    """
    from torchvision.transforms import InterpolationMode, v2

    cifar = is_cifar(config)
    size = image_size(config)
    steps: list[nn.Module] = [v2.Resize(round(size * RESIZED), InterpolationMode.BILINEAR), v2.CenterCrop(size)]
    if cifar:
        steps = [v2.Resize((size, size), InterpolationMode.BILINEAR)]
    whole = v2.Compose(
        [*steps, v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
    )

    def prepare(images: Sequence[Image.Image]) -> Sequence[np.ndarray]:
        return [whole(image).numpy() for image in images]

    return prepare
