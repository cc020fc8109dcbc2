"""Evaluation mode for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_eval(module: nn.Module) -> Iterator[None]:
    """Put every submodule in eval mode, and on leaving give each the mode that it had."""
    before = [(part, part.training) for part in module.modules() if part.training]
    try:
        module.eval()
        yield
    finally:
        for part, training in before:
            part.training = training
