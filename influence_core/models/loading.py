"""Checkpoints into memory, checked; one warm classifier per process."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from influence_core.artefacts import check_same
from influence_core.errors import UserError
from influence_core.fingerprints import tensors_fingerprint
from influence_core.models.classifier import Classifier, Rows, Scope
from influence_core.models.text import load_text
from influence_core.specs import Split
from influence_core.workspace import WEIGHTS, Workspace

MODEL_TYPES = ("bert",)

# encoded splits live as long as the classifier whose tokenizer made them
_encoded: WeakKeyDictionary[Classifier, dict[tuple[str, str], list[Any]]] = WeakKeyDictionary()


def device() -> torch.device:
    """The device that work runs on: cuda when it is there."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check a checkpoint folder's ``config.json`` before anything is loaded."""
    file = folder / "config.json"
    if not folder.is_dir() or not file.is_file():
        raise UserError(
            f"{folder} is not a checkpoint folder (no config.json in it): give a folder that save_pretrained wrote"
        )
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{file} is not JSON ({error}): save the checkpoint again") from None
    if not isinstance(config, dict):
        raise UserError(f"{file} holds a {type(config).__name__}, not a configuration: save the checkpoint again")
    if "auto_map" in config:
        raise UserError(
            f"{file} asks to run code of its own (auto_map): such checkpoints are refused, use a standard architecture"
        )
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        raise UserError(
            f"{folder} holds a model of type {kind!r}; this version reads {', '.join(MODEL_TYPES)} classifiers: "
            "give a BertForSequenceClassification checkpoint"
        )
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} has no {WEIGHTS}: save the checkpoint as safetensors (save_pretrained does)")
    return config


def class_names(config: dict[str, Any]) -> list[str]:
    """Class names of a Hugging Face config, in order of the logits."""
    names = config.get("id2label") or {str(index): f"LABEL_{index}" for index in range(config.get("num_labels", 2))}
    return [str(names[key]) for key in sorted(names, key=int)]


def load(workspace: Workspace, checkpoint: str | None = None) -> Classifier:
    """Return the checkpoint's classifier, in eval mode on the best device.

    Callers pass changed parameters as arguments and never write into the module, so one classifier
    serves every run of a process. Raises `StaleError` when the weights are not those recorded.
    """
    entry = workspace.checkpoint(checkpoint)
    check_same(f"checkpoint {entry.name}", entry.fingerprint, tensors_fingerprint(Path(entry.path) / WEIGHTS))
    return load_folder(Path(entry.path), entry.fingerprint, workspace.label_names)


@lru_cache(maxsize=2)
def load_folder(path: Path, fingerprint: str, label_names: tuple[str, ...]) -> Classifier:
    """Return the classifier of a checkpoint folder; the fingerprint of its tensors makes a changed one a new one."""
    config = read_config(path)
    found = class_names(config)
    if len(found) != len(label_names):
        raise UserError(
            f"the checkpoint {path} has {len(found)} classes ({', '.join(found)}), the data "
            f"{len(label_names)} ({', '.join(label_names)}): choose data and checkpoint that match"
        )
    classifier = load_text(path, label_names)
    classifier.module.to(device())
    return classifier


def scope_of(workspace: Workspace, classifier: Classifier, name: str | None) -> Scope:
    """Return the asked scope, by default the workspace's."""
    return classifier.scope(name or workspace.scope)


def rows_of(workspace: Workspace, classifier: Classifier, split: Split, labels: np.ndarray | None = None) -> Rows:
    """Return a split's encoded rows, with its original labels unless others are given ([N])."""
    kept = _encoded.setdefault(classifier, {})
    key = (workspace.data_fingerprint, split)
    if key not in kept:
        kept[key] = classifier.encode(workspace.dataset.splits[split]["text"].tolist())
    items = kept[key]
    own = workspace.dataset.splits[split]["label"].to_numpy()
    return Rows(classifier, items, own if labels is None else labels)
