"""Where a checkpoint's weights lie and what they hold, before they are loaded. No torch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from influence_core.checkpoints.pickles import state_dict_headers
from influence_core.checkpoints.processors import PLAIN_NAME
from influence_core.checkpoints.tensor_headers import (
    Headers,
    numbers_of,
    read_limited,
    refuse_too_large,
    safetensors_headers,
)
from influence_core.errors import UserError
from influence_core.workspace import WEIGHTS

SAFE, SHARDED = WEIGHTS, "model.safetensors.index.json"
PICKLED, PICKLED_SHARDS = "pytorch_model.bin", "pytorch_model.bin.index.json"
FILE_TYPES = (".safetensors", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class Weights:
    """The files that hold a checkpoint's tensors, and the tensors' headers; all checked."""

    files: tuple[Path, ...]
    headers: Headers
    safe: bool  # safetensors, else pickles that were scanned

    @property
    def ready(self) -> bool:
        """Whether the loaders read it as it lies: one file of the usual name."""
        return len(self.files) == 1 and self.files[0].name == SAFE


def weights_of(path: Path) -> Weights:
    """Find and check the weights of a checkpoint folder, or of one weights file.

    Safetensors come before pickles. Raises `UserError` where there are none, and for everything that
    `safetensors_headers`, `state_dict_headers` and `refuse_too_large` refuse.
    """
    if path.is_file():
        if path.suffix not in FILE_TYPES:
            raise UserError(f"{path} is no weights file: give a folder, or a state dict as .safetensors or .pt")
        return _read((path,), path.suffix == ".safetensors")
    if (path / SAFE).is_file():
        return _read((path / SAFE,), True)
    if (path / SHARDED).is_file():
        return _read(_shards(path / SHARDED, ".safetensors"), True)
    if (path / PICKLED).is_file():
        return _read((path / PICKLED,), False)
    if (path / PICKLED_SHARDS).is_file():
        return _read(_shards(path / PICKLED_SHARDS, ".bin"), False)
    raise UserError(f"{path} has no {SAFE}: save the checkpoint as safetensors (save_pretrained does)")


def _read(files: tuple[Path, ...], safe: bool) -> Weights:
    headers: Headers = {}
    reader: Callable[[Path], Headers] = safetensors_headers if safe else state_dict_headers
    for file in files:
        found = reader(file)
        if twice := headers.keys() & found.keys():
            raise UserError(
                f"{file} holds {min(twice)!r} again, which an earlier file of the checkpoint has: save it again"
            )
        headers.update(found)
        refuse_too_large(files[0], numbers_of(headers))
    return Weights(files, headers, safe)


def _shards(index: Path, ending: str) -> tuple[Path, ...]:
    """Return the files that an index names, which must lie beside it."""
    names = read_limited(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise UserError(f"{index} names no files: save the checkpoint again")
    files = sorted({str(name) for name in names.values()})
    for name in files:
        if not PLAIN_NAME.fullmatch(name) or not name.endswith(ending):
            raise UserError(
                f"{index} names the file {name[:80]!r}, which is none of its own folder: save the checkpoint again"
            )
        if not (index.parent / name).is_file():
            raise UserError(f"{index.parent / name} is missing, {index.name} names it: fetch the checkpoint again")
    return tuple(index.parent / name for name in files)
