"""What the trajectories behind one test row's readings depend on, known without torch."""

from collections.abc import Iterable
from typing import Any

from influence_core.artefacts import base_key
from influence_core.specs import DEFAULT_RATE, TrajectorySpec
from influence_core.workspace import Workspace


def optimizer_key(workspace: Workspace, spec: TrajectorySpec) -> dict[str, Any]:
    """Return kind, learning rate, state at step 0 and what the checkpoint records of an optimizer of that kind.

    Resolved as `trajectory.start` does: the checkpoint's own, or Adam; its state, or one that is warmed.
    """
    recorded = workspace.checkpoint(spec.checkpoint).optimizer or {}
    kind = recorded.get("kind", "adam") if spec.optimizer == "checkpoint" else spec.optimizer
    own = recorded if recorded.get("kind") == kind else {}
    state = spec.optimizer_state or ("checkpoint" if "state" in own else "warm")
    if state == "warm" and kind == "sgd" and not own.get("momentum"):
        state = "zeros"  # nothing to warm
    return {"kind": kind, "learning_rate": spec.learning_rate or DEFAULT_RATE[kind], "state": state, "recorded": own}


def readings_key(workspace: Workspace, spec: TrajectorySpec, example: str, target: int) -> dict[str, Any]:
    """Return all that l_z of one test row with a target label depends on along the base trajectory."""
    return {
        **base_key(workspace, spec.checkpoint, spec.scope),
        "optimizer": optimizer_key(workspace, spec),
        "batch_size": spec.batch_size,
        "steps": spec.steps,
        "seed": spec.seed,
        "dropout": spec.dropout,
        "dtype": spec.dtype,
        "example": example,
        "target": target,
    }


def shared(workspace: Workspace, spec: TrajectorySpec, abouts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the fields of `horizons.Followed` that a spec and what is kept of its parts tell."""
    optimizer, parts = optimizer_key(workspace, spec), list(abouts)
    return {
        "scope": spec.scope or workspace.scope,
        "checkpoint": workspace.checkpoint(spec.checkpoint).name,
        "optimizer": optimizer["kind"],
        "state": optimizer["state"],
        "learning_rate": optimizer["learning_rate"],
        "batch_size": spec.batch_size,
        "steps": spec.steps,
        "made": min((part["made"] for part in parts), default=""),
        "seconds": sum(part["seconds"] for part in parts),
    }
