"""Scope parameters as one vector, in the scope's order."""

import torch
from torch import Tensor

from influence_core.models.classifier import Parameters, Scope


def flatten(parameters: Parameters, scope: Scope) -> Tensor:
    """Concatenate a scope's parameters {name: shape} to one vector [P]."""
    return torch.cat([parameters[name].reshape(-1) for name in scope.parameters])


def unflatten(flat: Tensor, like: Parameters) -> Parameters:
    """Split [P] into {name: shape}, with names, order and shapes of ``like``; views of ``flat``.

    Raises:
        ValueError: the lengths differ.
    """
    return {name: part[0] for name, part in directions_from_flat(flat[None], like).items()}


def directions_from_flat(flat: Tensor, like: Parameters) -> Parameters:
    """Split [k, P] into directions {name: [k, *shape]}, in names, order and shapes of ``like``; views of ``flat``.

    Raises:
        ValueError: the lengths differ.
    """
    sizes = [value.numel() for value in like.values()]
    if flat.shape[1] != sum(sizes):
        raise ValueError(f"vectors of {flat.shape[1]} numbers do not fit {sum(sizes)} parameters")
    parts = torch.split(flat, sizes, 1)
    return {name: part.view(len(flat), *value.shape) for (name, value), part in zip(like.items(), parts, strict=True)}
