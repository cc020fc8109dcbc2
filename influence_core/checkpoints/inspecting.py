"""Checkpoints looked at before anything is loaded: configuration and headers only. No torch.

Whatever is refused here is refused before a tensor is allocated (DESIGN, Safety).
"""

from collections.abc import Sequence
from pathlib import Path

from influence_core.checkpoints.configs import (
    KNOWN,
    PROCESSOR,
    class_names,
    kind_of,
    label_words,
    read_config,
)
from influence_core.checkpoints.links import refuse_links_out
from influence_core.checkpoints.recorded import CHECKPOINT, Recorded, recorded
from influence_core.checkpoints.sources import FILE_TYPES, weights_of
from influence_core.checkpoints.tensor_headers import Headers, parameters_of
from influence_core.errors import UserError
from influence_core.preparation import Kind
from influence_core.resnets import CIFAR, TORCHVISION, is_cifar
from influence_core.specs import Sources
from influence_core.survey import CheckpointFound

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
# Where a classifier's last layer is: its first size is the number of classes.
HEADS = ("classifier.weight", "classifier.out_proj.weight", "classifier.1.weight", "score.weight", "fc.weight")


def inspect(spec: Sources, path: Path, also: Sequence[Path] | None = None) -> list[CheckpointFound]:
    """Look at a spec's checkpoint in ``path`` and at those in ``also`` (default: the spec's, as local paths).

    Returns the one to start with first: of a Trainer's output folder its own model, or the last
    checkpoint. Raises `UserError` for whatever is missing, damaged, unsafe, too large or does not fit.
    """
    more = [Path(each).expanduser() for each in spec.also] if also is None else list(also)
    found: list[CheckpointFound] = []
    for place in (path, *more):
        found += [one for one in _at(place, spec) if one.path not in {known.path for known in found}]
    first = found[0]
    for other in found[1:]:
        if (other.kind, other.family, other.classes) != (first.kind, first.family, first.classes):
            raise UserError(
                f"{other.path} is a {other.family} with classes {_shown(other.classes)}, {first.path} a "
                f"{first.family} with {_shown(first.classes)}: give checkpoints of one training"
            )
    return found


def _at(path: Path, spec: Sources) -> list[CheckpointFound]:
    """Return the checkpoints at one place."""
    path = path.expanduser().absolute()
    if path.is_file():
        return [_file(path, spec)]
    if not path.is_dir():
        raise UserError(f"there is nothing at {path}: give a checkpoint's folder, a weights file, or a name on the hub")
    path = path.resolve()
    refuse_links_out(path)
    inside = sorted(
        (int(match[1]), entry)
        for entry in path.iterdir()
        if entry.is_dir() and (match := CHECKPOINT.fullmatch(entry.name))
    )
    found = [_folder(entry, spec) for _, entry in reversed(inside)]
    if not inside or (path / "config.json").is_file():
        found.insert(0, _folder(path, spec))
    return found


def _folder(folder: Path, spec: Sources) -> CheckpointFound:
    config = read_config(folder)
    family, kind = str(config.get("model_type")), kind_of(folder, config)
    weights = weights_of(folder)
    if family == TORCHVISION:
        architecture = str(config.get("architecture"))
        if spec.architecture and spec.architecture.removesuffix(CIFAR) != architecture.removesuffix(CIFAR):
            raise UserError(f"{folder} is a {architecture}, not a {spec.architecture}: leave the architecture out")
        _check_torchvision(folder, architecture, is_cifar(config), weights.headers)
    elif spec.architecture:
        raise UserError(
            f"the architecture {spec.architecture!r} is given, but {folder} says itself that it is a {family}: leave "
            "the architecture out"
        )
    elif kind == "image" and not (folder / PROCESSOR).is_file():
        raise UserError(
            f"{folder} has no {PROCESSOR}: save the checkpoint's image processor there (save_pretrained does)"
        )
    elif kind != "image" and not any((folder / name).is_file() for name in VOCABULARIES):
        raise UserError(f"{folder} has no tokenizer (no {VOCABULARIES[0]}): put the checkpoint's tokenizer files there")
    classes = tuple(label_words(config)) if kind == "seq2seq" else tuple(class_names(config))
    if kind != "seq2seq":
        _check_classes(folder, classes, weights.headers)
    known = recorded(folder)
    notes = [*known.notes]
    if family not in KNOWN:
        notes.append(f"{family} is no family whose parts are known here: only the scope all can be chosen.")
    if kind == "seq2seq" and not classes:
        notes.append("It records no label words: each class is said by its name unless label words are given.")
    if kind != "seq2seq" and not config.get("id2label"):
        notes.append("It names no classes: labels are matched by number.")
    if not weights.ready:
        said = "pickled (scanned, nothing in it was executed)" if not weights.safe else "in several files"
        notes.append(f"Its weights are {said}: they are copied into one safetensors file.")
    return _found(folder, kind, family, classes, weights.headers, known, notes)


def _file(file: Path, spec: Sources) -> CheckpointFound:
    """A torchvision state dict without a configuration."""
    beside = (file.parent / "config.json").is_file()
    if file.suffix not in FILE_TYPES:
        hint = f"the folder {file.parent}" if beside else "a folder, or a state dict as .safetensors or .pt"
        raise UserError(f"{file} is no weights file: give {hint}")
    if beside and not spec.architecture:
        raise UserError(f"{file} is one file of a checkpoint: give its folder {file.parent}")
    if not spec.architecture:
        raise UserError(
            f"{file} is a weights file, which does not say of what model: give the architecture (resnet18, "
            "resnet18-cifar, …), or a checkpoint's folder"
        )
    headers = weights_of(file).headers
    architecture = spec.architecture.removesuffix(CIFAR)
    _check_torchvision(file, architecture, spec.architecture.endswith(CIFAR), headers)
    classes = tuple(f"LABEL_{number}" for number in range(headers["fc.weight"].shape[0]))
    notes = [
        "It names no classes: labels are matched by number.",
        f"Images are normalised as {spec.architecture} usually is.",
    ]
    return _found(file, "image", TORCHVISION, classes, headers, Recorded(), notes)


def _found(
    path: Path,
    kind: Kind,
    family: str,
    classes: tuple[str, ...],
    headers: Headers,
    known: Recorded,
    notes: Sequence[str],
) -> CheckpointFound:
    return CheckpointFound(
        path=str(path),
        kind=kind,
        family=family,
        classes=classes,
        parameters=parameters_of(headers),
        step=known.step,
        optimizer=known.optimizer,
        notes=tuple(notes),
    )


def _check_classes(folder: Path, classes: tuple[str, ...], headers: Headers) -> None:
    """Hold the number of classes against the last layer, where that is known by name."""
    for name in HEADS:
        header = headers.get(name)
        if header is not None and len(header.shape) == 2:
            if header.shape[0] != len(classes):
                raise UserError(
                    f"{folder} names {len(classes)} classes ({_shown(classes)}), but its {name} has {header.shape[0]} "
                    "rows: correct id2label in its config.json"
                )
            return


def _check_torchvision(path: Path, architecture: str, cifar: bool, headers: Headers) -> None:
    """Hold a torchvision state dict against what a ResNet's begins and ends with."""
    if not architecture.removesuffix(CIFAR).startswith(("resnet", "resnext", "wide_resnet")):
        raise UserError(
            f"{path}: the architecture {architecture!r} is not read here: give a ResNet's (resnet18, resnet50-cifar, …)"
        )
    for name, dimensions in (("conv1.weight", 4), ("fc.weight", 2)):
        if name not in headers or len(headers[name].shape) != dimensions:
            raise UserError(f"{path} has no {name} as a {architecture} has: give the state dict of the model itself")
    _, channels, *kernel = headers["conv1.weight"].shape
    wanted = [3, 3] if cifar else [7, 7]
    if kernel != wanted:
        other = "resnet18-cifar" if not cifar else "resnet18"
        raise UserError(
            f"{path} begins with a {kernel[0]}×{kernel[1]} convolution, the architecture that was given with a "
            f"{wanted[0]}×{wanted[1]} one: give the other stem's (as in {other})"
        )
    if channels not in (1, 3):
        raise UserError(f"{path} takes images of {channels} channels: only 1 and 3 are read")


def _shown(classes: Sequence[str]) -> str:
    return ", ".join(classes)[:80] or "none named"
