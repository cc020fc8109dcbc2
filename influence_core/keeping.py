"""Keeping a corrected model: a checkpoint folder that plain transformers loads, without torch."""

import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from influence_core.artefacts import check_same, write_parquet
from influence_core.errors import UserError
from influence_core.fingerprints import tensors_fingerprint
from influence_core.home import read_json, write_json

if TYPE_CHECKING:
    from influence_core.workspace import Checkpoint, Workspace

WEIGHTS = "model.safetensors"
STATE = "optimizer.safetensors"
COMPANIONS = (".json", ".txt", ".model", ".md")  # configuration and tokenizer; nothing else of a user's folder


def keep(workspace: "Workspace", result: Path, name: str) -> "Checkpoint":
    """Make the end of a correction a checkpoint of the workspace.

    ``result`` is what the correction left: parameters, optimizer state, manifest and, where it was
    not interrupted, the whole split's predictions. The folder appears under its name only when it is
    whole. Raises `UserError` for a name in use, or when the correction left nothing.
    """
    place = workspace.checkpoint_folder(name)
    if not (result / "manifest.json").exists():
        raise UserError("this correction has left no parameters (it ended before its first step): run it again")
    manifest: dict[str, Any] = read_json(result / "manifest.json")
    parent = workspace.checkpoint(manifest["checkpoint"])
    check_same("the workspace's data", manifest["data"], workspace.data_fingerprint)
    found = tensors_fingerprint(Path(parent.path) / WEIGHTS)
    check_same(f"checkpoint {parent.name}", manifest["checkpoint_fingerprint"], found)
    temporary = place.with_name(f".{name}.{uuid.uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        kept = _write(workspace, result, name, temporary, parent, manifest)
        temporary.rename(place)  # refuses a folder that another process has made meanwhile
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    outcome = kept.notes["outcome"]
    if (result / "after.parquet").exists() and "split" in outcome:
        folder = workspace.artefacts.make("predictions", workspace.prediction_key(outcome["split"], name))
        write_parquet(folder / "predictions.parquet", pd.read_parquet(result / "after.parquet"))
    return kept


def _write(
    workspace: "Workspace",
    result: Path,
    name: str,
    temporary: Path,
    parent: "Checkpoint",
    manifest: dict[str, Any],
) -> "Checkpoint":
    """Write model, optimizer state and manifests into the temporary folder."""
    for file in Path(parent.path).iterdir():
        if file.is_file() and file.suffix in COMPANIONS and file.name != "manifest.json":
            shutil.copyfile(file, temporary / file.name)
    tensors: dict[str, np.ndarray] = load_file(Path(parent.path) / WEIGHTS)
    changed = load_file(result / "parameters.safetensors")
    unknown = sorted(changed.keys() - tensors.keys())
    if unknown:
        raise UserError(f"{parent.path} has no tensor {unknown[0]}: the parent was changed, restore it and keep again")
    tensors.update({key: value.astype(tensors[key].dtype) for key, value in changed.items()})
    save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
    shutil.copyfile(result / STATE, temporary / STATE)
    write_json(temporary / "correction.json", manifest)
    outcome = read_json(result / "result.json") if (result / "result.json").exists() else {}
    accuracy = {outcome["split"]: outcome["after"]} if "after" in outcome else {}
    optimizer = {**manifest["optimizer"], "state": STATE}
    notes = {"correction": manifest, "outcome": outcome}
    return workspace.add_checkpoint(
        name,
        draft=temporary,
        parent=parent.name,
        kind=parent.kind,
        preparation=parent.preparation,
        accuracy=accuracy,
        optimizer=optimizer,
        notes=notes,
    )
