"""What a checkpoint's file calls a parameter, where that is another name than the module's."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from influence_core.errors import UserError

OLDER = {".weight": ".gamma", ".bias": ".beta"}  # layer norms of the first BERT checkpoints


def file_names(module: nn.Module, parameters: Iterable[str], tensors: Iterable[str]) -> dict[str, str]:
    """Return {parameter: its tensor's name in the file}, given the names of the file's tensors.

    transformers renames tensors while it loads (ViT's attention, say) and back when it saves; what is
    kept must have the file's names, so that every version reads it. Raises `UserError` for a
    parameter that the file does not have.
    """
    known = set(tensors)
    found: dict[str, str] = {}
    for name in parameters:
        candidates = (name, _reverted(module, name), *(_older(name)))
        match = next((candidate for candidate in candidates if candidate in known), None)
        if match is None:
            raise UserError(f"the checkpoint's file has no tensor for {name}: save it again with save_pretrained")
        found[name] = match
    return found


def _reverted(module: Any, name: str) -> str:
    """Return the name that transformers gives a parameter when it saves."""
    if not hasattr(module, "config") or name not in (own := dict(module.named_parameters())):
        return name
    from transformers.core_model_loading import revert_weight_conversion

    renamed = revert_weight_conversion(module, {name: own[name].detach()})
    return str(next(iter(renamed)))


def _older(name: str) -> list[str]:
    return [name.removesuffix(end) + older for end, older in OLDER.items() if name.endswith(end)]
