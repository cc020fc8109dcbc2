"""What a correction leaves behind, so that it can be kept and repeated: parameters, optimizer state, manifest."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from influence_core.correction.setting import Setting
from influence_core.correction.strategies import Chosen
from influence_core.home import write_json
from influence_core.models.prefix import Opened
from influence_core.models.tensor_names import file_names
from influence_core.specs import Correcting
from influence_core.trajectory.lockstep import Lockstep
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.trajectory.start import Start
from influence_core.versions import versions
from influence_core.workspace import WEIGHTS, Workspace, now


def noted(**facts: Any) -> dict[str, Any]:
    """Return those facts that there are: manifests and results have no field for the others, as before them."""
    return {name: value for name, value in facts.items() if value is not None}


def trained(opened: Opened, last: Lockstep, tensors: Iterable[str]) -> dict[str, Tensor]:
    """Return what the training changed, by the names of the file's ``tensors``: parameters, and statistics that moved.

    Raises what `file_names` raises.
    """
    known, own = set(tensors), {**last.parameters, **last.optimizer_state.buffers}
    counts = {name for name in own if name.endswith(".num_batches_tracked")}  # whole numbers, kept as such in files
    own = {name: value for name, value in own.items() if name in known or name not in counts}  # older files have none
    names = file_names(opened.whole.module, own, known)
    return {names[name]: (value.long() if name in counts else value).cpu().contiguous() for name, value in own.items()}


def save(
    setting: Setting,
    opened: Opened,
    optimizer: OptimizerSpec,
    start: Start,
    chosen: Chosen,
    last: Lockstep,
    result: Path,
    near_ids: list[str] | None,
) -> None:
    """Leave a correction of one misprediction: what it was, beside what `leave` leaves.

    ``near_ids`` are those retention rows that are most similar to the corrected one.
    """
    workspace, names = setting.workspace, setting.workspace.label_names
    own = {
        "stale": chosen.stale,
        "predicted": names[setting.predicted],
        "desired": names[setting.desired],
        "epsilon": setting.spec.weight_of(len(chosen.numbers)),
        **rows_of_group(workspace, chosen.numbers, chosen.labels),
        "retention_rows": setting.retention_ids,
        **noted(near_rows=near_ids, proponents_of=chosen.proponents_of, desired_share=chosen.desired_share),
    }
    leave(workspace, setting.spec, setting.labels.cursor, opened, optimizer, start, last, result, own)


def rows_of_group(workspace: Workspace, numbers: np.ndarray, labels: Sequence[int] | np.ndarray) -> dict[str, Any]:
    """Return rows and labels ([n] both) as a manifest names them."""
    ids, names = workspace.train["id"], workspace.label_names
    return {
        "rows": [str(ids.iloc[int(number)]) for number in numbers],
        "row_labels": [names[int(label)] for label in labels],
    }


def leave(
    workspace: Workspace,
    spec: Correcting,
    cursor: int,
    opened: Opened,
    optimizer: OptimizerSpec,
    start: Start,
    last: Lockstep,
    result: Path,
    own: dict[str, Any],
) -> None:
    """Leave parameters, optimizer state and the manifest where `keeping` finds them; ``own`` tells what was corrected.

    ``cursor`` is that of the labels that the run saw.
    """
    result.mkdir(parents=True, exist_ok=True)
    checkpoint = workspace.checkpoint(spec.checkpoint)
    with safe_open(Path(checkpoint.path) / WEIGHTS, "pt") as file:  # what is kept has the names that the file has
        changed = trained(opened, last, file.keys())
    save_file(changed, result / "parameters.safetensors")
    save_file(last.optimizer_state.to_tensors(), result / "optimizer.safetensors")
    manifest = {
        "spec": spec.model_dump(),
        "workspace": workspace.name,
        "data": workspace.data_fingerprint,
        "checkpoint": checkpoint.name,
        "checkpoint_fingerprint": checkpoint.fingerprint,
        "cursor": cursor,
        "scope": opened.scope.name,
        "prefix": opened.reason or "kept",
        **own,
        "optimizer": asdict(optimizer),
        "optimizer_state": start.source,
        "steps": last.t,
        "threads": torch.get_num_threads(),
        "device": str(opened.whole.device),
        "dtype": str(opened.whole.dtype),
        "torch": torch.__version__,
        "versions": versions(),
        "made": now(),
    }
    write_json(result / "manifest.json", manifest)
