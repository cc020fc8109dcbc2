"""What can be told of a run without loading the model: a scope's size, and what is made and kept before it begins."""

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from influence_core.artefacts import base_key
from influence_core.errors import UserError
from influence_core.home import read_json, write_json
from influence_core.specs import WARM_BATCHES, Correcting, FadingSpec, Scoped, TrajectorySpec

if TYPE_CHECKING:
    from influence_core.workspace import Workspace

OUTPUTS = "outputs.json"
MEMORY_BYTES = 4 << 30  # of main memory for trajectories or tangents, unless told otherwise
MOST_STEPS = 50  # of a correction that are counted where it is decided whether the frozen part's outputs are made first


def record_size(workspace: "Workspace", checkpoint: str | None, scope: str, size: int) -> None:
    """Keep what a loaded model said."""
    key = _key(workspace, checkpoint, scope)
    file = workspace.artefacts.path("scope", key) / "size.json"
    if not file.exists():
        workspace.artefacts.make("scope", key)
        write_json(file, {"parameters": size})


def scope_size(workspace: "Workspace", checkpoint: str | None, scope: str | None) -> int:
    """Return the number of parameters in a scope; all of the checkpoint's until the model was loaded once."""
    file = workspace.artefacts.path("scope", _key(workspace, checkpoint, scope or workspace.scope)) / "size.json"
    if file.exists():
        return int(read_json(file)["parameters"])
    return tensors_size(Path(workspace.checkpoint(checkpoint).path) / "model.safetensors")


def tensors_size(path: Path) -> int:
    """Return how many numbers a safetensors file holds, from its header."""
    header = _header(path)
    try:
        return int(sum(np.prod(entry["shape"], dtype=np.int64) for name, entry in header.items() if name[0] != "_"))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a safetensors file ({error}): save the checkpoint again") from None


def _header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            return dict(json.loads(stream.read(length)))
    except (OSError, struct.error, ValueError, TypeError) as error:
        raise UserError(f"{path} is not a safetensors file ({error}): save the checkpoint again") from None


def tensor_names(path: Path) -> list[str]:
    """Return the names of a safetensors file's tensors, from its header."""
    return [name for name in _header(path) if not name.startswith("_")]


def warm_kept(workspace: "Workspace", spec: Scoped, batch_size: int, seed: int) -> bool:
    """Whether an optimizer state warmed with these batches is kept for the spec's checkpoint, scope and modes."""
    wanted = {**base_key(workspace, spec.checkpoint, spec.scope), "batch_size": batch_size, "seed": seed}
    wanted["dropout"], mode = getattr(spec, "dropout", True), getattr(spec, "batchnorm", "eval")
    return any(
        (path / "state.safetensors").exists() and key.get("batchnorm", "eval") == mode
        for path, key in workspace.artefacts.find("warm", **wanted)
    )


def optimizer_kind(workspace: "Workspace", spec: TrajectorySpec | Correcting) -> str:
    """Return which optimizer a run trains with: sgd or adam."""
    recorded = workspace.checkpoint(spec.checkpoint).optimizer or {}
    return str(recorded.get("kind", "adam")) if spec.optimizer == "checkpoint" else spec.optimizer


def warms(workspace: "Workspace", spec: TrajectorySpec | Correcting) -> bool:
    """Whether a run first warms its optimizer's state over `WARM_BATCHES` batches (`trajectory.start.start_state`)."""
    recorded, kind = workspace.checkpoint(spec.checkpoint).optimizer or {}, optimizer_kind(workspace, spec)
    own = recorded.get("kind") == kind
    source = spec.optimizer_state or ("checkpoint" if own and "state" in recorded else "warm")
    moments = kind == "adam" or (own and bool(recorded.get("momentum")))  # plain SGD has nothing to warm
    return source == "warm" and moments and not warm_kept(workspace, spec, spec.batch_size, spec.seed)


def fills(workspace: "Workspace", spec: Correcting) -> bool:
    """Whether a correction first makes the frozen part's outputs of all training rows.

    It does where its batches may come to half of the rows, its own counted up to `MOST_STEPS` (most flip long before
    the last one). The first step then comes a little later, each takes half the time, as does whatever comes after.
    """
    batches = min(spec.steps, MOST_STEPS) + (WARM_BATCHES if warms(workspace, spec) else 0)
    return 2 * batches * spec.batch_size >= len(workspace.train)


def record_outputs(workspace: "Workspace", checkpoint: str | None, scope: str) -> None:
    """Keep that there is nothing left to make before training rows can be used in a scope: for estimates."""
    key = _key(workspace, checkpoint, scope)
    file = workspace.artefacts.path("scope", key) / OUTPUTS
    if not file.exists():
        workspace.artefacts.make("scope", key)
        write_json(file, {"rows": len(workspace.train)})


def outputs_kept(workspace: "Workspace", checkpoint: str | None, scope: str | None) -> bool:
    """Whether that was recorded."""
    return (workspace.artefacts.path("scope", _key(workspace, checkpoint, scope or workspace.scope)) / OUTPUTS).exists()


def rows_asked(workspace: "Workspace", spec: FadingSpec) -> int:
    """Return at most how many training rows a fading study uses: of its batches, and those it perturbs."""
    batches = spec.steps + (WARM_BATCHES if warms(workspace, spec) else 0)  # the same in all repeats
    return batches * spec.batch_size + spec.repeats * spec.train_rows


def asks_few(workspace: "Workspace", spec: FadingSpec) -> bool:
    """Whether that is a quarter or less, so that a first look need not wait for the frozen part's outputs of all."""
    return 4 * rows_asked(workspace, spec) <= len(workspace.train)


def _key(workspace: "Workspace", checkpoint: str | None, scope: str) -> dict[str, str]:
    return {"checkpoint": workspace.checkpoint(checkpoint).fingerprint, "scope": scope}
