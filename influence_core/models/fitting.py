"""Whether a checkpoint's tensors fit its configuration: the model is built without memory for its weights."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from influence_core.checkpoints.tensor_headers import Headers, refuse_too_large, safetensors_headers
from influence_core.errors import UserError
from influence_core.models import pretrained, torchvision_models
from influence_core.preparation import Kind
from influence_core.resnets import TORCHVISION


def empty(folder: Path, config: dict[str, Any], kind: Kind, headers: Headers) -> nn.Module:
    """Build a checkpoint's model on the meta device.

    Raises `UserError` for a configuration that describes no model, one that is larger than
    ``INFLUENCE_MODEL_LIMIT_GB`` allows, or one of other tensors than ``headers``.
    """
    if config.get("model_type") == TORCHVISION:
        module = torchvision_models.empty_resnet(config, headers["conv1.weight"].shape[1])
    else:
        module = pretrained.empty_model(folder, kind)
    values = {name: value for name, value in module.state_dict().items() if value.numel()}
    refuse_too_large(folder / "config.json", sum(parameter.numel() for parameter in module.parameters()))
    for name, value in values.items():
        if name in headers and headers[name].shape != tuple(value.shape):
            raise UserError(
                f"{folder} holds {name} of shape {headers[name].shape}, its configuration describes "
                f"{tuple(value.shape)}: correct that, or save the checkpoint again"
            )
    return module


def unmatched(module: nn.Module, headers: Headers) -> list[str]:
    """Return the parameters that no tensor has the name of; transformers may know them by an older one."""
    return [name for name, _ in module.named_parameters() if name not in headers]


def refuse_not_finite(file: Path) -> None:
    """Raise `UserError` naming a tensor of a safetensors file that is not finite; one is in memory at a time."""
    names = safetensors_headers(file)
    with safe_open(file, framework="pt") as tensors:
        for name in names:
            value = tensors.get_tensor(name)
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise UserError(f"{file} holds numbers in {name} that are not finite: use another checkpoint")
