"""Bytes that trajectories and tangents hold, to be shown before a run, and how many there are to spend."""

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from influence_core.models.classifier import Parameters
from influence_core.sizes import MEMORY_BYTES
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.trajectory.step import TrainingStep

DEVICE_SHARE = 0.5  # of an accelerator's free memory


def memory_limit(device: torch.device) -> int:
    """Return how many bytes trajectories or tangents may take on a device when nobody said."""
    if device.type != "cuda":
        return MEMORY_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(DEVICE_SHARE * (free + unused))


def copies(optimizer: OptimizerSpec) -> int:
    """Return how many numbers a trajectory carries per parameter: Adam 3, SGD with momentum 2, plain SGD 1."""
    return 3 if optimizer.kind == "adam" else 2 if optimizer.momentum else 1


def carried_bytes(optimizer: OptimizerSpec, parameters: int, count: int = 1, itemsize: int = 4) -> int:
    """Return the bytes of ``count`` trajectories, or of the tangents of as many ε, of P parameters each.

    Both are parameters and moments: 3 × P × 4 B each for Adam (DEFINITIONS, Trajectories). While a
    step is made, the old and the new ones exist side by side.
    """
    return copies(optimizer) * parameters * count * itemsize


def step_bytes(step: TrainingStep, parameters: Parameters) -> int:
    """Return the bytes that one more trajectory, or tangent, takes while a step is made for several at once.

    Old and new parameters and moments, the gradient, and the activations of a forward pass over B_0.
    """
    sizes = [value.numel() for value in parameters.values()]
    itemsize = step.classifier.dtype.itemsize
    carried = carried_bytes(step.optimizer, sum(sizes), 1, itemsize)
    return 2 * carried + sum(sizes) * itemsize + activation_bytes(step, parameters)


def activation_bytes(step: TrainingStep, parameters: Parameters) -> int:
    """Return the bytes that a forward pass over B_0 keeps for its backward, parameters left out."""
    batch = step.batch(0)
    leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    own = [*leaves.values(), *step.classifier.module.parameters(), *step.classifier.module.buffers()]
    apart = {value.untyped_storage().data_ptr() for value in own}
    kept: dict[int, int] = {}  # no address is used twice: the graph keeps every saved tensor until the end

    def count(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in apart:
            kept[address] = max(kept.get(address, 0), tensor.nbytes)
        return tensor

    with saved_tensors_hooks(count, lambda tensor: tensor), torch.enable_grad():
        loss = step.classifier.losses(batch, leaves).sum()
    total = sum(kept.values())
    del loss
    return total
