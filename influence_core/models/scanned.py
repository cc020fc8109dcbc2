"""Pickled tensors into memory, once `checkpoints.pickles` has scanned their file."""

from pathlib import Path
from typing import Any

import torch

from influence_core.errors import UserError


def load_scanned(file: Path) -> Any:
    """Load what ``torch.save`` wrote, mapped; raises `UserError` where torch refuses it after all."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever its own unpickler and its tensors run into
        said = " ".join(str(error).split())
        raise UserError(
            f"{file} cannot be loaded ({type(error).__name__}: {said[:200]}): save the checkpoint again, as safetensors"
        ) from None
