"""A checkpoint's configuration, read and bounded before anything is made of it. No torch."""

from pathlib import Path
from typing import Any

from influence_core.checkpoints.processors import (
    entries,
    refuse_large_pictures,
    refuse_odd_normalisation,
    refuse_other_files,
)
from influence_core.checkpoints.tensor_headers import read_limited
from influence_core.errors import UserError
from influence_core.preparation import Kind
from influence_core.resnets import TORCHVISION

PROCESSOR = "preprocessor_config.json"
PROCESSORS = (PROCESSOR, "processor_config.json")
CHECKED = ("config.json", "tokenizer_config.json", *PROCESSORS, "generation_config.json")
CLASSES = 65_536  # more than any real classifier has
# Largest values of a configuration's integers, by a part of the name, the first that fits: no real model has more.
BOUNDS = {
    "num_labels": CLASSES,
    "vocab": 4_000_000,
    "position": 100_000_000,
    **dict.fromkeys(("layer", "depth", "stage", "block", "group"), 512),  # a list's sum
    **dict.fromkeys(("hidden", "embed", "dim", "d_model", "channels", "width", "heads"), 65_536),
    "": 100_000_000,
}
KNOWN: dict[str, Kind] = {
    "bert": "text",
    "roberta": "text",
    "distilbert": "text",
    "t5": "seq2seq",
    "vit": "image",
    "resnet": "image",
    TORCHVISION: "image",
}


def read_config(folder: Path) -> dict[str, Any]:
    """Read a checkpoint folder's ``config.json``, and hold all its configurations against what is safe.

    Raises `UserError` for a folder that is no checkpoint, code of its own (``auto_map``), other files in its
    configurations' place, an adapter, quantised weights, and integers that no real model has.
    """
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} is not a checkpoint folder (no config.json in it): give a folder that save_pretrained wrote"
        )
    for name in CHECKED:
        if (file := folder / name).is_file():
            found = read_limited(file)
            if "auto_map" in (name for name, _ in entries(found)) or "custom_pipelines" in found:
                raise UserError(
                    f"{file} asks to run code of its own (auto_map): such checkpoints are refused, "
                    "use a standard architecture"
                )
            refuse_other_files(file, found)
            if name in PROCESSORS:
                refuse_large_pictures(file, found)
    if (folder / "adapter_config.json").exists():
        raise UserError(f"{folder} holds an adapter (adapter_config.json): merge it into its model and save that")
    config = read_limited(folder / "config.json")
    if config.get("quantization_config"):
        raise UserError(f"{folder} holds quantised weights: save the checkpoint in float32 or half precision")
    _refuse_out_of_bounds(folder / "config.json", config)
    refuse_large_pictures(folder / "config.json", {"size": config.get("image_size")})
    if config.get("model_type") == TORCHVISION:
        refuse_odd_normalisation(folder / "config.json", config)
    return config


def kind_of(folder: Path, config: dict[str, Any]) -> Kind:
    """Return what kind of classifier a configuration describes; raises `UserError` for what is none."""
    family, architectures = str(config.get("model_type")), config.get("architectures") or [""]
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise UserError(
            f"the configuration in {folder} says architectures = {str(architectures)[:60]}, not a list of names: "
            "correct it"
        )
    architecture = architectures[0]
    if architecture.endswith("ForSequenceClassification") and family not in ("t5", "mt5", "umt5"):
        return "text"
    if architecture.endswith("ForImageClassification"):
        return "image"
    if architecture == "T5ForConditionalGeneration":
        return "seq2seq"
    if not architecture and family in KNOWN:
        return KNOWN[family]
    raise UserError(
        f"{folder} holds a {architecture or 'model'} of type {family!r}, not a classifier that is read here: give "
        "one of AutoModelForSequenceClassification, AutoModelForImageClassification or T5ForConditionalGeneration, "
        "or a torchvision ResNet"
    )


def class_names(config: dict[str, Any]) -> list[str]:
    """Class names of a configuration, in order of the logits.

    Raises `UserError` where they are not 0, 1, 2, …, too many, or others in number than it says itself.
    """
    names, count = config.get("id2label"), config.get("num_labels")
    if count is not None and not (isinstance(count, int) and 1 <= count <= CLASSES):
        raise UserError(f"the configuration says num_labels = {str(count)[:40]}: give 1 to {CLASSES:,}")
    if not names:
        return [f"LABEL_{index}" for index in range(2 if count is None else count)]
    if not isinstance(names, dict) or sorted(names, key=str) != sorted(map(str, range(len(names)))):
        raise UserError(
            f"the configuration's id2label {str(names)[:80]} does not number the classes 0, 1, 2, …: correct it"
        )
    if len(names) > CLASSES or (count is not None and count != len(names)):
        raise UserError(
            f"the configuration's id2label names {len(names):,} classes, its num_labels is {count}: correct it "
            f"(at most {CLASSES:,} are read)"
        )
    found = [str(names[str(index)]) for index in range(len(names))]
    if len(set(found)) < len(found):
        raise UserError(f"the configuration's id2label names a class twice ({', '.join(found)[:80]}): correct it")
    return found


def label_words(config: dict[str, Any]) -> dict[str, str]:
    """Return the label words that a T5 checkpoint records, by class and in order; empty where it records none."""
    words = config.get("label_words") or {}
    if not isinstance(words, dict) or not all(isinstance(word, str) and word for word in words.values()):
        raise UserError(
            f"the configuration's label_words {str(words)[:80]} must name a word for each class: correct it"
        )
    return {str(name): word for name, word in words.items()}


def _refuse_out_of_bounds(file: Path, config: dict[str, Any]) -> None:
    for name, value in config.items():
        if isinstance(value, dict) and name.endswith("_config"):
            _refuse_out_of_bounds(file, value)
        most = next(bound for part, bound in BOUNDS.items() if part in name)
        integers = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, int)]
        found = max(sum(integers) if most == BOUNDS["layer"] else 0, *map(abs, integers)) if integers else 0
        if found > most:
            raise UserError(f"{file} says {name} = {str(value)[:60]}, above the {most:,} of any real model: not built")
