"""A checkpoint that was looked at becomes one that the loaders read: a folder with one model.safetensors."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from influence_core.checkpoints.configs import read_config
from influence_core.checkpoints.links import refuse_links_out
from influence_core.checkpoints.preparing import preparation_of
from influence_core.checkpoints.recorded import STATE, TRAINER_STATE, UnusableStateError, recorded
from influence_core.checkpoints.sources import Weights, weights_of
from influence_core.checkpoints.tensor_headers import safetensors_headers
from influence_core.errors import UserError
from influence_core.fingerprints import companions
from influence_core.home import write_json
from influence_core.models import pretrained
from influence_core.models.fitting import empty, refuse_not_finite, unmatched
from influence_core.models.optimizer_file import convert, fits
from influence_core.models.scanned import load_scanned
from influence_core.preparation import Kind, Preparation
from influence_core.resnets import CIFAR, TORCHVISION
from influence_core.specs import Sources
from influence_core.survey import CheckpointFound
from influence_core.workspace import WEIGHTS


@dataclass(frozen=True)
class Imported:
    """What a checkpoint's manifest records."""

    path: Path  # the folder that the loaders read
    kind: Kind
    preparation: Preparation
    optimizer: dict[str, Any] | None  # with "state", where there is one: a file in ``path``, or an absolute path
    notes: dict[str, Any]


def import_checkpoint(found: CheckpointFound, spec: Sources, place: Path, label_names: Sequence[str]) -> Imported:
    """Make a checkpoint that `inspecting.inspect` found readable.

    A folder with one model.safetensors stays where it is; anything else is copied into ``place``, the
    workspace's own folder of that checkpoint, as is a Trainer's optimizer state. The sources are
    checked again, because time has passed. Raises `UserError` for tensors that do not fit the
    configuration, a model above the limit, and weights that are not finite.
    """
    source = Path(found.path)
    if source.is_file():
        config = _configuration(source, spec, label_names)
    else:
        refuse_links_out(source)
        config = read_config(source)
    weights = weights_of(source)
    module = empty(source, config, found.kind, weights.headers)
    path = source if weights.ready and source.is_dir() else place
    if path == place:
        place.mkdir(parents=True, exist_ok=True)
        _copy(source, config, found.kind, weights, module, place)
    refuse_not_finite(path / WEIGHTS)
    if config.get("model_type") != TORCHVISION and unmatched(module, weights.headers):
        pretrained.model(path, found.kind)  # refuses where its tensors' older names do not cover the model either
    preparation = preparation_of(found, spec, label_names)
    optimizer, notes = (None, {}) if source.is_file() else _optimizer(source, module, path, place)
    return Imported(path, found.kind, preparation, optimizer, notes)


def _configuration(file: Path, spec: Sources, label_names: Sequence[str]) -> dict[str, Any]:
    """Return the configuration of a weights file that has none."""
    architecture = str(spec.architecture)
    return {
        "model_type": TORCHVISION,
        "architecture": architecture.removesuffix(CIFAR),
        "stem": "cifar" if architecture.endswith(CIFAR) else "imagenet",
        "id2label": {str(number): name for number, name in enumerate(label_names)},
        "source": file.name,
    }


def _copy(source: Path, config: dict[str, Any], kind: Kind, weights: Weights, module: nn.Module, place: Path) -> None:
    """Write the checkpoint into ``place`` as save_pretrained would."""
    if config.get("model_type") == TORCHVISION:
        _copy_state_dict(weights, module, place)
        write_json(place / "config.json", config)
    else:
        pretrained.model(source, kind, safe=weights.safe).save_pretrained(place, max_shard_size="1000TB")
    for file in companions(source) if source.is_dir() else ():
        if file.name != "config.json":
            shutil.copyfile(file, place / file.name)


def _copy_state_dict(weights: Weights, module: nn.Module, place: Path) -> None:
    """Write a state dict as safetensors: what the module has, each tensor with memory of its own."""
    file = weights.files[0]
    if weights.safe and len(weights.files) == 1:
        shutil.copyfile(file, place / WEIGHTS)
        return
    if weights.safe or len(weights.files) > 1:
        raise UserError(f"{file} is one of several weights files: give the state dict as one .safetensors file")
    known = module.state_dict().keys()
    if odd := weights.headers.keys() - known:
        raise UserError(f"{file} holds {min(odd)!r}, which the architecture does not have: give its own state dict")
    saved = load_scanned(file)
    save_file({name: value.detach().contiguous().clone() for name, value in saved.items()}, place / WEIGHTS)


def _optimizer(
    source: Path, module: nn.Module, path: Path, place: Path
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return what a manifest records of the optimizer, and its notes; a Trainer's state is converted into ``place``."""
    known = recorded(source)
    optimizer = dict(known.optimizer or {})
    said = list(known.notes)
    state = optimizer.pop("state", None)
    try:
        if state == TRAINER_STATE:
            optimizer["undecayed"] = list(convert(source / TRAINER_STATE, module, place))
            optimizer["state"] = STATE if path == place else str(place / STATE)
        elif state is not None:
            if not fits(safetensors_headers(source / STATE), module):
                raise UnusableStateError(f"{source / STATE} is of other parameters: choose optimizer state warm")
            optimizer["state"] = STATE if path == source else str(source / STATE)
    except UnusableStateError as error:
        said.append(str(error))
    notes = {"recipe": known.recipe, "epoch": known.epoch, "step": known.step, "optimizer": said or None}
    return optimizer or None, {name: value for name, value in notes.items() if value is not None}
