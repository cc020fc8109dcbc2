"""A Trainer's ``optimizer.pt`` as a state by parameter names, in safetensors."""

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from influence_core.checkpoints.recorded import STATE, TrainerGroups, UnusableStateError, trainer_groups
from influence_core.checkpoints.tensor_headers import Headers
from influence_core.models.scanned import load_scanned

# What the Trainer of transformers 5 decays: no layer norm's parameters, and no name with one of these.
UNDECAYED = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")


def convert(file: Path, module: nn.Module, place: Path) -> tuple[str, ...]:
    """Write the state into ``place`` as `trajectory.optimizers.OptimizerState` names it; returns the undecayed names.

    The file numbers parameters; which number is which follows from the Trainer's two groups (decayed,
    then biases and norms), each in the order of ``module.named_parameters()``. Every shape is checked.
    Raises `UnusableStateError` where they do not fit, or parameters have had different numbers of updates.
    """
    groups = trainer_groups(file)  # scans the file
    names = _names(file, groups, module)
    saved = load_scanned(file)["state"]
    steps = {float(held["step"]) for held in saved.values() if "step" in held}
    if len(steps) > 1:
        raise UnusableStateError(_said(file, f"its parameters have had {sorted(steps)} updates, not all the same"))
    tensors: dict[str, Tensor] = {"step": torch.tensor(steps.pop() if steps else 0.0, dtype=torch.float64)}
    for number, name in names.items():
        for kind in groups.moments.get(number, {}).keys() - {"step"}:
            tensors[f"{kind}.{name}"] = saved[number][kind].float().clone()
    place.mkdir(parents=True, exist_ok=True)
    save_file(tensors, place / STATE)
    if not groups.constants["weight_decay"]:
        return ()
    parts = zip(groups.groups, groups.decayed, strict=True)
    return tuple(names[number] for numbers, decayed in parts if not decayed for number in numbers)


def fits(headers: Headers, module: nn.Module) -> bool:
    """Say whether a state's tensors are moments of the module's parameters (plain SGD has none)."""
    shapes = {name: tuple(value.shape) for name, value in module.named_parameters()}
    moments = [key.partition(".") for key in headers if key != "step" and not key.startswith("buffers.")]
    return "step" in headers and all(headers[f"{kind}.{name}"].shape == shapes.get(name) for kind, _, name in moments)


def _names(file: Path, groups: TrainerGroups, module: nn.Module) -> dict[int, str]:
    """Return the parameter names by number, in the first grouping that fits in sizes and all shapes."""
    shapes = {name: tuple(value.shape) for name, value in module.named_parameters()}
    for grouping in _groupings(module):
        if [len(each) for each in grouping if each] != [len(each) for each in groups.groups if each]:
            continue
        numbers = [number for group in groups.groups for number in group]
        names = dict(zip(numbers, (name for group in grouping for name in group), strict=True))
        if all(_same_shapes(groups, number, shapes[name]) for number, name in names.items()):
            return names
    held = sum(len(group) for group in groups.groups)
    raise UnusableStateError(
        _said(
            file,
            f"its {held} parameters in groups of {', '.join(str(len(g)) for g in groups.groups)} are not this model's",
        )
    )


def _same_shapes(groups: TrainerGroups, number: int, shape: tuple[int, ...]) -> bool:
    """Say whether a parameter's moments are there with its shape."""
    moments = {kind: header for kind, header in groups.moments.get(number, {}).items() if kind != "step"}
    return bool(moments) and all(header.shape == shape for header in moments.values())


def _groupings(module: nn.Module) -> Iterator[list[list[str]]]:
    """Yield how a Trainer groups parameters: as version 5 does, as version 4 did, and all in one group."""
    names = [name for name, _ in module.named_parameters()]
    norms = {
        f"{path}.{name}"
        for path, part in module.named_modules()
        if type(part).__name__.endswith("LayerNorm")
        for name, _ in part.named_parameters(recurse=False)
    }
    now = {name for name in names if name in norms or UNDECAYED.search(name.lower())}
    before = {name for name in names if name in norms or "bias" in name}
    for undecayed in (now, before):
        yield [[name for name in names if name not in undecayed], [name for name in names if name in undecayed]]
    yield [names]


def _said(file: Path, reason: str) -> str:
    return f"the optimizer state {file} is not used, {reason}: choose optimizer state warm"
