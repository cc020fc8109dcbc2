"""The optimizer of a trajectory and the state it starts from: the checkpoint's, warmed, or zeros."""

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from influence_core.artefacts import base_key
from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.models.classifier import Parameters
from influence_core.runs.locks import locked
from influence_core.specs import DEFAULT_RATE, WARM_BATCHES
from influence_core.trajectory.optimizers import OptimizerSpec, OptimizerState
from influence_core.trajectory.step import TrainingStep
from influence_core.trajectory.warm import warm_state
from influence_core.workspace import Checkpoint, Workspace


def optimizer_of(checkpoint: Checkpoint, kind: str = "checkpoint", learning_rate: float | None = None) -> OptimizerSpec:
    """Return an optimizer with the checkpoint's own constants where it is of that kind.

    ``kind`` is sgd, adam or checkpoint: the checkpoint's own, or Adam where it records none.
    """
    known = {field.name for field in fields(OptimizerSpec)}  # a manifest also says where the state and the rates are
    recorded = {name: value for name, value in (checkpoint.optimizer or {}).items() if name in known}
    recorded["undecayed"] = tuple(recorded.get("undecayed", ()))
    kind = recorded.get("kind", "adam") if kind == "checkpoint" else kind
    if recorded.get("kind") != kind:
        recorded = {}
    return OptimizerSpec(**{**recorded, "kind": kind, "learning_rate": learning_rate or DEFAULT_RATE[kind]})


@dataclass(frozen=True)
class Start:
    """An optimizer's state, and where it comes from."""

    state: OptimizerState
    source: str  # checkpoint, warm, zeros


def start_state(
    workspace: Workspace, checkpoint: Checkpoint, step: TrainingStep, parameters: Parameters, wanted: str | None
) -> Iterator[Progress | Start]:
    """Yield progress, then the state (DEFINITIONS, Perturbation and step).

    ``wanted`` is checkpoint, warm, zeros or None: the checkpoint's own where it carries one, otherwise
    warmed over 100 batches. A warmed state depends on no test row and is kept, so only the first
    run waits for it. Raises `UserError` where the checkpoint carries no state of this optimizer and scope.
    """
    recorded = checkpoint.optimizer or {}
    carries = recorded.get("kind") == step.optimizer.kind and "state" in recorded
    source = wanted or ("checkpoint" if carries else "warm")
    if source == "checkpoint" and not carries:
        raise UserError(
            f"checkpoint {checkpoint.name} carries no {step.optimizer.kind} state: choose optimizer state warm or zeros"
        )
    zeros = step.initial_state(parameters)
    if source == "checkpoint":
        kept = OptimizerState.from_tensors(load_file(Path(checkpoint.path) / str(recorded["state"])))
        yield Start(_on(_cut(kept, zeros, checkpoint, step), step), source)
    elif source == "zeros" or not (zeros.exp_avg or zeros.momentum_buffer):
        yield Start(zeros, "zeros")  # plain SGD has nothing to warm
    else:
        key: dict[str, Any] = {
            **base_key(workspace, checkpoint.name, step.scope.name),
            "optimizer": {**asdict(step.optimizer), "learning_rate": 0.0},
            "batch_size": step.batch_size,
            "batches": WARM_BATCHES,
            "seed": step.seed,
            "dropout": step.dropout,
        }
        if not np.array_equal(step.rows.labels, workspace.train["label"]):  # annotators' labels in the loss
            key["labels"] = hashlib.sha256(step.rows.labels.tobytes()).hexdigest()
        if step.batchnorm_train:
            key["batchnorm"] = "train"
        if step.classifier.dtype != torch.float32:  # single precision is left out: states made before are found
            key["dtype"] = str(step.classifier.dtype)
        file = workspace.artefacts.make("warm", key) / "state.safetensors"
        with locked(file.with_name("lock")):  # a second correction waits for the first one's state
            if not file.exists():
                for event in warm_state(step, parameters, WARM_BATCHES):
                    if isinstance(event, Progress):
                        yield event
                    else:
                        temporary = file.with_name(f".state.{uuid.uuid4().hex}")
                        save_file(event.to_tensors(), temporary)
                        temporary.replace(file)
        yield Start(_on(OptimizerState.from_tensors(load_file(file)), step), source)


def _cut(kept: OptimizerState, zeros: OptimizerState, checkpoint: Checkpoint, step: TrainingStep) -> OptimizerState:
    """Return what a kept state says of the scope's parameters; it may cover more (``zeros`` has the scope's own)."""

    def part(own: Parameters, wanted: Parameters) -> Parameters:
        if any(name not in own or own[name].shape != value.shape for name, value in wanted.items()):
            raise UserError(
                f"the optimizer state of {checkpoint.name} does not cover scope {step.scope.name}: "
                "choose optimizer state warm, or the scope it was made with"
            )
        return {name: own[name] for name in wanted}

    return kept._replace(
        momentum_buffer=part(kept.momentum_buffer, zeros.momentum_buffer),
        exp_avg=part(kept.exp_avg, zeros.exp_avg),
        exp_avg_sq=part(kept.exp_avg_sq, zeros.exp_avg_sq),
    )


def _on(state: OptimizerState, step: TrainingStep) -> OptimizerState:
    device = step.classifier.device
    return OptimizerState.from_tensors({name: value.to(device) for name, value in state.to_tensors().items()})
