"""Making a kept correction again from its manifest, and comparing the weights bit for bit."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from influence_core.artefacts import check_same
from influence_core.correction.saving import trained
from influence_core.correction.training import Group, Training, training
from influence_core.errors import UserError
from influence_core.events import Progress, through
from influence_core.fingerprints import tensors_fingerprint
from influence_core.models.prefix import Opened, open_scope, open_whole
from influence_core.replays import Replayed
from influence_core.specs import Correcting, parse_spec
from influence_core.trajectory.lockstep import lockstep
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.versions import versions
from influence_core.workspace import WEIGHTS, Checkpoint, Workspace

PHASE = "replaying"
KEPT = "kept"  # a manifest's word for a run behind the kept outputs of the frozen part


def replay(workspace: Workspace, name: str) -> Iterator[Progress | Replayed]:
    """Yield progress, then how the weights of a kept correction compare with those that its manifest gives now.

    Rows, labels, optimizer and its state's source, seed, steps and threads are the manifest's: labels
    and rankings of today play no part. The number of threads is restored afterwards. Raises `UserError`
    for a checkpoint that is no kept correction, and `StaleError` where the data or the parent changed.
    """
    kept = workspace.checkpoint(name)
    manifest: dict[str, Any] | None = kept.notes.get("correction")
    if manifest is None:
        corrected = [entry.name for entry in workspace.checkpoints() if "correction" in entry.notes]
        raise UserError(
            f"checkpoint {kept.name!r} is no kept correction, there is nothing to replay: "
            f"choose one of {', '.join(corrected) or 'those that you keep (there is none yet)'}"
        )
    check_same("the workspace's data", manifest["data"], workspace.data_fingerprint)
    parent = workspace.checkpoint(manifest["checkpoint"])
    check_same(f"checkpoint {parent.name}", manifest["checkpoint_fingerprint"], parent.fingerprint)
    with threads(int(manifest["threads"])):
        opened = _opened(workspace, manifest)
        made = yield from through(_again(workspace, opened, manifest), dict)
        yield _compared(kept, parent, opened, manifest, made)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads inside; what was set before returns afterwards, errors included."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _opened(workspace: Workspace, manifest: dict[str, Any]) -> Opened:
    """Open the scope as the run did: behind the frozen part's outputs or not, since that decides the rounding."""
    opening = open_scope if manifest["prefix"] == KEPT else open_whole
    return opening(workspace, manifest["checkpoint"], manifest["scope"])


def _again(workspace: Workspace, opened: Opened, manifest: dict[str, Any]) -> Iterator[Progress | dict[str, Tensor]]:
    """Yield progress, then the trained tensors by the names that the checkpoint's file has for them."""
    spec = parse_spec({**manifest["spec"], "checkpoint": manifest["checkpoint"], "scope": manifest["scope"]})
    assert isinstance(spec, Correcting)
    optimizer = OptimizerSpec(**{**manifest["optimizer"], "undecayed": tuple(manifest["optimizer"]["undecayed"])})
    groups = [_group(workspace, about) for about in manifest.get("groups", [manifest])]  # one, unless several say so
    asked = training(workspace, opened, spec, optimizer, manifest["optimizer_state"], groups, manifest["cursor"])
    own = yield from through(asked, Training)
    total = int(manifest["steps"])
    # both trajectories, as in the run: the same operations give the same bits
    for now in lockstep(own.step, own.parameters, own.start.state, own.epsilon, own.perturbation, total):
        yield Progress(phase=PHASE, done=now.t, total=total, unit="steps")
    with safe_open(Path(workspace.checkpoint(spec.checkpoint).path) / WEIGHTS, "pt") as file:
        yield trained(opened, now, file.keys())


def _group(workspace: Workspace, about: dict[str, Any]) -> Group:
    """Return a manifest's rows, labels and weight."""
    places = workspace.places(about["rows"])
    numbers = np.array([places[row][1] for row in about["rows"]], dtype=np.int64)
    return Group(numbers, [workspace.label_index(label) for label in about["row_labels"]], about["epsilon"])


def _compared(
    kept: Checkpoint, parent: Checkpoint, opened: Opened, manifest: dict[str, Any], made: dict[str, Tensor]
) -> Replayed:
    found = load_file(Path(kept.path) / WEIGHTS)
    whole = load_file(Path(parent.path) / WEIGHTS)
    expected = {
        **{name: value.float() if value.is_floating_point() else value for name, value in whole.items()},
        **made,
    }
    apart = {
        name: by
        for name in found.keys() | expected.keys()
        if (by := _apart(found.get(name), expected.get(name))) is not None
    }
    differing = sorted(apart, key=lambda name: (-apart[name], name))
    largest = apart[differing[0]] if differing else 0.0
    return Replayed(
        checkpoint=kept.name,
        same=not differing,
        tensors=len(found.keys() | expected.keys()),
        differing=tuple(differing),
        largest=largest if math.isfinite(largest) else None,
        steps=int(manifest["steps"]),
        threads=torch.get_num_threads(),
        reasons=_reasons(kept, opened, manifest) if differing else (),
    )


def _apart(one: Tensor | None, other: Tensor | None) -> float | None:
    """Return None for the same bits, otherwise the largest difference of two numbers."""
    if one is None or other is None or one.shape != other.shape or one.dtype != other.dtype:
        return math.inf
    if torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)):
        return None
    by = float((one.double() - other.double()).abs().max())
    return math.inf if math.isnan(by) else by


def _reasons(kept: Checkpoint, opened: Opened, manifest: dict[str, Any]) -> tuple[str, ...]:
    """Say what differs from the run: files, threads, device, libraries, and how the frozen part is computed."""
    said: list[str] = []
    file = tensors_fingerprint(Path(kept.path) / WEIGHTS)
    if file != kept.fingerprint:
        said.append(
            "the kept weights were changed after they were kept "
            f"(fingerprint {file[:16]}, recorded {kept.fingerprint[:16]})"
        )
    then = {**manifest.get("versions", {"torch": manifest["torch"]}), **_machine(manifest)}
    here = {
        **versions(),
        "threads": torch.get_num_threads(),
        "device": str(opened.whole.device),
        "dtype": str(opened.whole.dtype),
    }
    said += [f"{name} was {then[name]}, here it is {own}" for name, own in here.items() if then.get(name, own) != own]
    if (opened.reason is None) != (manifest["prefix"] == KEPT):
        said.append(f"the frozen part's outputs were kept then and are not used now: {opened.reason}")
    if not said:
        said.append("versions, threads and device are the recorded ones: another processor may round differently")
    return tuple(said)


def _machine(manifest: dict[str, Any]) -> dict[str, Any]:
    return {name: manifest[name] for name in ("threads", "device", "dtype")}
