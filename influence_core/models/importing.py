"""A checkpoint that was looked at becomes one that the loaders read: a folder with one model.safetensors."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from influence_core.checkpoints.configs import CIFAR, TORCHVISION, label_words, read_config
from influence_core.checkpoints.links import refuse_links_out
from influence_core.checkpoints.recorded import STATE, TRAINER_STATE, UnusableStateError, recorded
from influence_core.checkpoints.sources import Weights, weights_of
from influence_core.checkpoints.tensor_headers import safetensors_headers
from influence_core.errors import UserError
from influence_core.home import write_json
from influence_core.models import pretrained
from influence_core.models.fitting import empty, refuse_not_finite, unmatched
from influence_core.models.optimizer_file import convert, fits
from influence_core.preparation import Kind, Preparation
from influence_core.specs import Sources
from influence_core.survey import CheckpointFound
from influence_core.workspace import WEIGHTS

# What a folder holds besides configuration and weights that a loader reads.
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "preprocessor_config.json",
    "processor_config.json",
)


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
    preparation = _preparation(found, spec, config, label_names)
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
    for name in COMPANIONS if source.is_dir() else ():
        if (source / name).is_file():
            shutil.copyfile(source / name, place / name)


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
    saved = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    save_file({name: value.detach().contiguous().clone() for name, value in saved.items()}, place / WEIGHTS)


def _preparation(
    found: CheckpointFound, spec: Sources, config: dict[str, Any], label_names: Sequence[str]
) -> Preparation:
    """Return the spec's choices over what configuration and training record."""
    if found.kind == "image":
        return Preparation()
    recorded_prefix = config.get("prefix")
    prefix = spec.prefix if spec.prefix is not None else recorded_prefix if isinstance(recorded_prefix, str) else ""
    words: tuple[str, ...] = ()
    if found.kind == "seq2seq":
        if unknown := spec.label_words.keys() - set(label_names):
            raise UserError(
                f"a label word is given for {min(unknown)!r}, the classes are {', '.join(label_names)}: correct it"
            )
        own = {**label_words(config), **spec.label_words}
        words = tuple(own.get(name, name) for name in label_names)
    elif spec.label_words:
        raise UserError(
            f"label words are given, but {found.path} is a {found.family} with outputs of its own: leave them out"
        )
    recipe = None if Path(found.path).is_file() else recorded(Path(found.path)).recipe
    trained = recipe.get("max_length") if isinstance(recipe, dict) else None
    length = spec.max_length or (trained if isinstance(trained, int) else None)
    return Preparation(max_length=length, prefix=prefix, label_words=words)


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
