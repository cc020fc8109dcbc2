"""What a training starts from: a checkpoint folder whose head has the data's classes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from influence_core.checkpoints.configs import read_config
from influence_core.data import hub
from influence_core.errors import UserError
from influence_core.home import write_json
from influence_core.models.pretrained import LOCAL, auto_class
from influence_core.resnets import CIFAR, TORCHVISION
from influence_core.training.recipes import Recipe
from influence_core.trajectory.streams import derive, random_stream
from influence_core.workspace import WEIGHTS

SIDE_FILES = ("*.json", "*.txt", "*.model")  # a tokenizer's or image processor's, and the configuration
WEIGHT_LISTS = "*.index.json"  # of weights in several files, which are written as one
GREY = {"image_mean": [0.286], "image_std": [0.353]}  # of Fashion-MNIST's training pixels


def write_start(recipe: Recipe, base: str | None, label_names: tuple[str, ...], folder: Path) -> None:
    """Write the checkpoint that a training starts from; what is new in it is drawn from the recipe's seed.

    ``base`` is a folder or hub name instead of the recipe's. Raises `UserError` for one that
    cannot be read or that is of another kind.
    """
    folder.mkdir(parents=True)
    with random_stream(torch.device("cpu"), derive(recipe.seed, "start")):
        if base is None and recipe.base in SCRATCH:
            SCRATCH[recipe.base](folder, label_names)
        else:
            _pretrained(recipe, _folder_of(base or recipe.base), label_names, folder)


def save(module: nn.Module, start: Path, folder: Path) -> None:
    """Write a trained module as a checkpoint like the one it started from."""
    copy_side_files(start, folder)
    save_pretrained: Any = getattr(module, "save_pretrained", None)
    if save_pretrained is not None:
        save_pretrained(folder)
    else:
        save_file({name: value.contiguous() for name, value in module.state_dict().items()}, folder / WEIGHTS)


def copy_side_files(source: Path, folder: Path) -> None:
    """Copy what a checkpoint folder holds besides weights."""
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in SIDE_FILES:
        for file in source.glob(pattern):
            if file.is_file() and not file.match(WEIGHT_LISTS):
                shutil.copyfile(file, folder / file.name)


def _folder_of(base: str) -> Path:
    return hub.fetch_checkpoint(base) if hub.looks_like_hub_name(base) else Path(base).expanduser().resolve()


def _pretrained(recipe: Recipe, base: Path, label_names: tuple[str, ...], folder: Path) -> None:
    """Write a pretrained model with a head for the classes; a head that fits stays, another is drawn."""
    config = read_config(base)  # refuses what is not safe
    copy_side_files(base, folder)
    if config.get("model_type") == TORCHVISION:
        write_json(folder / "config.json", {**config, **labelled(label_names)})
        shutil.copyfile(base / WEIGHTS, folder / WEIGHTS)
        return
    options: dict[str, Any] = {"use_safetensors": True, "dtype": torch.float32, **LOCAL}
    if recipe.kind != "seq2seq":
        options |= {**labelled(label_names), "num_labels": len(label_names), "ignore_mismatched_sizes": True}
    try:
        module = auto_class(recipe.kind).from_pretrained(base, **options)
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        said = str(error).strip().splitlines()
        raise UserError(
            f"{base} cannot be read as a {recipe.kind} model ({said[0] if said else type(error).__name__}): "
            f"recipe {recipe.name} wants one like {recipe.base}"
        ) from None
    if recipe.kind == "seq2seq":  # as `importing` reads them
        module.config.label_words = dict(zip(label_names, recipe.label_words, strict=True))
        module.config.prefix = recipe.prefix
    module.save_pretrained(folder)


def labelled(label_names: tuple[str, ...]) -> dict[str, Any]:
    """Return a configuration's fields that name the classes."""
    return {"id2label": dict(enumerate(label_names)), "label2id": {name: i for i, name in enumerate(label_names)}}


def _processor(folder: Path, size: int, normalisation: dict[str, list[float]]) -> None:
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": size, "width": size},
            "resample": 2,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            **normalisation,
        },
    )


def _small_resnet(folder: Path, label_names: tuple[str, ...]) -> None:
    """0.26 M parameters. Its stem divides the size by four: images are doubled to 56 × 56 first."""
    from transformers import ResNetConfig, ResNetForImageClassification

    widths = [32, 64, 112]
    config = ResNetConfig(
        num_channels=1,
        embedding_size=widths[0],
        hidden_sizes=widths,
        depths=[1, 1, 1],
        layer_type="basic",
        **labelled(label_names),
    )
    ResNetForImageClassification(config).save_pretrained(folder)
    _processor(folder, 56, GREY)


def _small_vit(folder: Path, label_names: tuple[str, ...]) -> None:
    """0.3 M parameters, on the 49 patches of 4 × 4 pixels of a 28 × 28 image."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        num_channels=1,
        image_size=28,
        patch_size=4,
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=192,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **labelled(label_names),
    )
    ViTForImageClassification(config).save_pretrained(folder)
    _processor(folder, 28, GREY)


def _resnet18_cifar(folder: Path, label_names: tuple[str, ...]) -> None:
    """Torchvision's ResNet-18 with the stem for 32 × 32 pixels: a 3 × 3 convolution, no pooling."""
    from torchvision.models import resnet18

    module = resnet18(num_classes=len(label_names))
    module.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, folder / WEIGHTS)
    about = {"model_type": TORCHVISION, "architecture": f"resnet18{CIFAR}", **labelled(label_names)}
    write_json(folder / "config.json", about)


SCRATCH: dict[str, Callable[[Path, tuple[str, ...]], None]] = {
    "small-resnet": _small_resnet,
    "small-vit": _small_vit,
    "resnet18-cifar": _resnet18_cifar,
}
