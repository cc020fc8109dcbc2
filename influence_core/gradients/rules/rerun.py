"""A module's own forward once more, with other values of the parameters that it holds."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from influence_core.models.modes import in_eval


class _Forward(nn.Module):
    """Calls a module's ``forward`` without its hooks: a and b were captured inside them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, a: Tensor) -> Any:
        return self.module.forward(a)


def rerun(module: nn.Module, parameters: Mapping[str, Tensor], a: Tensor) -> Tensor:
    """Return the output for input a, in eval mode; of a tuple, its first element."""
    with in_eval(module):
        given = {f"module.{name}": value for name, value in parameters.items()}
        output = torch.func.functional_call(_Forward(module), given, (a,))
    first: Tensor = output[0] if isinstance(output, tuple) else output
    return first
