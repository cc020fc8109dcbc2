"""How many bytes a graph keeps for its backward, and how many there are to spend."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

GRAPH_BYTES = 4 << 30  # graphs kept in main memory, unless told otherwise
DEVICE_SHARE = 0.5  # of an accelerator's free memory


def graph_limit(device: torch.device) -> int:
    """Return how many bytes kept graphs may take on a device when nobody said."""
    if device.type != "cuda":
        return GRAPH_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(DEVICE_SHARE * (free + unused))


class SavedBytes:
    """The storages saved for backward so far, each counted once, without those that exist anyway.

    Of a storage that is larger than what was saved of it (rows of a mapped file, say) only that counts.
    """

    def __init__(self, own: nn.Module) -> None:
        self._apart = {_key(value) for value in (*own.parameters(), *own.buffers())}
        self._parts: dict[int, dict[int, int]] = {}  # of each storage: address and bytes of what was saved
        self._storages: dict[int, Tensor] = {}  # one tensor of each, so that no address is used again

    @property
    def total(self) -> int:
        """Bytes."""
        sizes = {key: tensor.untyped_storage().nbytes() for key, tensor in self._storages.items()}
        return sum(min(sizes[key], sum(parts.values())) for key, parts in self._parts.items())

    def add(self, tensor: Tensor) -> Tensor:
        """Count a tensor; returns it for autograd to keep."""
        saved = tensor.detach()
        if (key := _key(saved)) not in self._apart:
            parts, address = self._parts.setdefault(key, {}), saved.data_ptr()
            parts[address] = max(saved.nbytes, parts.get(address, 0))
            self._storages.setdefault(key, saved)
        return saved


@contextmanager
def saved_bytes(module: nn.Module) -> Iterator[SavedBytes]:
    """Count what is saved for backward inside the block; the module's parameters and buffers are left out."""
    count = SavedBytes(module)
    with saved_tensors_hooks(count.add, lambda saved: saved):
        yield count


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
