"""What a correction leaves behind, so that it can be kept and repeated: parameters, optimizer state, manifest."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from influence_core.correction.setting import Setting
from influence_core.correction.strategies import Chosen
from influence_core.home import write_json
from influence_core.models.prefix import Opened
from influence_core.models.tensor_names import file_names
from influence_core.trajectory.lockstep import Lockstep
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.trajectory.start import Start
from influence_core.versions import versions
from influence_core.workspace import WEIGHTS, now


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
) -> None:
    """Leave parameters, optimizer state and the manifest where `keeping` finds them."""
    workspace, spec = setting.workspace, setting.spec
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
        "cursor": setting.labels.cursor,
        "stale": chosen.stale,
        "scope": opened.scope.name,
        "prefix": opened.reason or "kept",
        "predicted": workspace.label_names[setting.predicted],
        "desired": workspace.label_names[setting.desired],
        "epsilon": spec.weight_of(len(chosen.numbers)),
        "optimizer": asdict(optimizer),
        "optimizer_state": start.source,
        "rows": [workspace.train["id"].iloc[int(number)] for number in chosen.numbers],
        "row_labels": [workspace.label_names[int(label)] for label in chosen.labels],
        "retention_rows": setting.retention_ids,
        **noted(near_rows=setting.near_ids, proponents_of=chosen.proponents_of, desired_share=chosen.desired_share),
        "steps": last.t,
        "threads": torch.get_num_threads(),
        "device": str(opened.whole.device),
        "dtype": str(opened.whole.dtype),
        "torch": torch.__version__,
        "versions": versions(),
        "made": now(),
    }
    write_json(result / "manifest.json", manifest)
