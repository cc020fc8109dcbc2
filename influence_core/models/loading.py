"""Checkpoints into memory, checked; one warm classifier per process."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from influence_core.artefacts import check_companions, check_same
from influence_core.checkpoints.configs import class_names, read_config
from influence_core.checkpoints.links import refuse_links_out
from influence_core.errors import UserError
from influence_core.fingerprints import tensors_fingerprint
from influence_core.models.classifier import Classifier, Rows, Scope
from influence_core.models.image import load_image
from influence_core.models.seq2seq import load_t5
from influence_core.models.text import load_text
from influence_core.preparation import Kind, Preparation
from influence_core.specs import Split
from influence_core.workspace import WEIGHTS, Workspace

PLAIN = Preparation()  # as the checkpoint itself does

# encoded splits live as long as the classifier whose tokenizer made them
_encoded: WeakKeyDictionary[Classifier, dict[tuple[str, str], Sequence[Any]]] = WeakKeyDictionary()


def device() -> torch.device:
    """The device that work runs on: cuda when it is there."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(workspace: Workspace, checkpoint: str | None = None) -> Classifier:
    """Return the checkpoint's classifier, in eval mode on the best device.

    Callers pass changed parameters as arguments and never write into the module, so one classifier
    serves every run of a process. Raises `StaleError` when the weights, or what lies beside them, are not those
    recorded.
    """
    entry = workspace.checkpoint(checkpoint)
    path = Path(entry.path)
    check_same(f"checkpoint {entry.name}", entry.fingerprint, tensors_fingerprint(path / WEIGHTS))
    check_companions(entry)
    return load_folder(path, entry.fingerprint, workspace.label_names, entry.kind, entry.preparation, entry.companions)


@lru_cache(maxsize=2)
def load_folder(
    path: Path,
    fingerprint: str,
    label_names: tuple[str, ...],
    kind: Kind = "text",
    preparation: Preparation = PLAIN,
    companions: str = "",
) -> Classifier:
    """Return the classifier of a checkpoint folder; a changed one, by its two fingerprints, is a new one.

    Raises `UserError` for a folder that became unsafe, does not fit, or has other classes than ``label_names``.
    """
    refuse_links_out(path)
    config = read_config(path)
    found = class_names(config)
    if kind != "seq2seq" and len(found) != len(label_names):
        raise UserError(
            f"the checkpoint {path} has {len(found)} classes ({', '.join(found)}), the data "
            f"{len(label_names)} ({', '.join(label_names)}): choose data and checkpoint that match"
        )
    classifier: Classifier
    if kind == "image":
        classifier = load_image(path, label_names)
    elif kind == "seq2seq":
        classifier = load_t5(path, label_names, preparation)
    else:
        classifier = load_text(path, label_names, preparation)
    classifier.companions = companions
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
        column: Any = workspace.dataset.splits[split][workspace.dataset.modality]  # mapped; encoded in blocks
        kept[key] = classifier.encode(column)
    items = kept[key]
    own = workspace.dataset.splits[split]["label"].to_numpy()
    return Rows(classifier, items, own if labels is None else labels)
