"""Keeping a corrected model: a checkpoint folder that plain transformers or torchvision loads. No torch."""

import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from safetensors.numpy import load_file, save_file

from influence_core.arrays import read_arrays
from influence_core.artefacts import check_companions, check_same, write_parquet
from influence_core.errors import UserError
from influence_core.fingerprints import companions, tensors_fingerprint
from influence_core.home import read_json, write_json, write_text
from influence_core.reports.cards import CHANGED, card, changed_rows
from influence_core.reports.cautions import compared
from influence_core.reports.facts import Correction, read
from influence_core.specs import Split

if TYPE_CHECKING:
    from influence_core.workspace import Checkpoint, Workspace

WEIGHTS = "model.safetensors"
STATE = "optimizer.safetensors"
TRAINING = "training.json"  # what `checkpoints.recorded` reads of a folder
CARD = "README.md"
AFTER: dict[Split, str] = {"test": "after.parquet", "validation": "after-validation.parquet"}  # of a result folder
FEATURES = ".features.npy"  # in place of a table's ending: the same rows' features


def keep(workspace: "Workspace", result: Path, name: str) -> "Checkpoint":
    """Make the end of a correction a checkpoint of the workspace.

    ``result`` is what the correction left: parameters, optimizer state, manifest and, where it was
    not interrupted, the whole split's predictions. The folder appears under its name only when it is
    whole. Raises `UserError` for a name in use, or when the correction left nothing.
    """
    place = workspace.checkpoint_folder(name)
    correction = read(workspace, result)
    manifest = correction.manifest
    parent = workspace.checkpoint(manifest["checkpoint"])
    check_same("the workspace's data", manifest["data"], workspace.data_fingerprint)
    found = tensors_fingerprint(Path(parent.path) / WEIGHTS)
    check_same(f"checkpoint {parent.name}", manifest["checkpoint_fingerprint"], found)
    check_companions(parent)  # the child is to be read as its parent was
    temporary = place.with_name(f".{name}.{uuid.uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        kept = _write(correction, result, name, temporary, parent)
        temporary.rename(place)  # refuses a folder that another process has made meanwhile
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for split, table in _after(result).items():
        folder = workspace.artefacts.make("predictions", workspace.prediction_key(split, name))
        write_parquet(folder / "predictions.parquet", table)
        if (features := (result / AFTER[split]).with_suffix(FEATURES)).exists():
            shutil.copyfile(features, folder / "features.npy")
    return kept


def _after(result: Path) -> dict[Split, pd.DataFrame]:
    """Return the predictions of the corrected parameters, of the splits that were compared."""
    return {split: pd.read_parquet(result / name) for split, name in AFTER.items() if (result / name).exists()}


def _write(correction: Correction, result: Path, name: str, temporary: Path, parent: "Checkpoint") -> "Checkpoint":
    """Write model, optimizer state, manifests and the model card into the temporary folder."""
    manifest, outcome = correction.manifest, correction.outcome
    for file in companions(Path(parent.path)):  # nothing else of a user's folder: not its training, nor its optimizer
        shutil.copyfile(file, temporary / file.name)
    _say_single(temporary / "config.json")
    tensors = read_arrays(Path(parent.path) / WEIGHTS)
    changed = load_file(result / "parameters.safetensors")
    unknown = sorted(changed.keys() - tensors.keys())
    if unknown:
        raise UserError(f"{parent.path} has no tensor {unknown[0]}: the parent was changed, restore it and keep again")
    tensors.update(changed)  # float32, as it was trained, whatever the parent is kept in
    save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
    shutil.copyfile(result / STATE, temporary / STATE)
    write_json(temporary / "correction.json", manifest)
    accuracy = {split: about["after"] for split, about in compared(outcome).items()}
    optimizer = {**manifest["optimizer"], "state": STATE}
    write_json(temporary / TRAINING, _training(parent, manifest))
    config = read_json(temporary / "config.json")
    first = tensors.get("conv1.weight")  # torchvision's
    channels = int(config.get("num_channels", 3) if first is None else first.shape[1])
    write_text(temporary / CARD, card(correction, name, parent, config, channels))
    if outcome:
        write_text(temporary / CHANGED, changed_rows(correction, _after(result)))
    notes = {"correction": manifest, "outcome": outcome}
    return correction.workspace.add_checkpoint(
        name,
        draft=temporary,
        parent=parent.name,
        kind=parent.kind,
        preparation=parent.preparation,
        accuracy=accuracy,
        optimizer=optimizer,
        notes=notes,
    )


def _say_single(config: Path) -> None:
    """Let a configuration say that the tensors beside it are in single precision."""
    about = read_json(config)
    named = {name: "float32" for name in ("dtype", "torch_dtype") if about.get(name) not in (None, "float32")}
    if named:
        write_json(config, {**about, **named})


def _training(parent: "Checkpoint", manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a ``training.json`` of the correction, so that the folder tells by itself how it was trained."""
    rate = manifest["optimizer"]["learning_rate"]
    recipe = {"correction": manifest["spec"], "made": manifest["made"], "max_length": parent.preparation.max_length}
    return {
        "step": manifest["steps"],
        "optimizer": manifest["optimizer"],
        "mean_learning_rate": rate,  # constant over a correction
        "recipe": {name: value for name, value in recipe.items() if value is not None},
    }
