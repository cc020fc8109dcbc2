"""A workspace opened for trajectories: classifier in the asked precision, training step, where it starts."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from influence_core.artefacts import base_key
from influence_core.events import Progress, through
from influence_core.models import prefix
from influence_core.models.classifier import Batch, Parameters, Rows
from influence_core.models.loading import rows_of
from influence_core.models.prefix import Opened, open_scope
from influence_core.models.suffix import Suffix, cut
from influence_core.sizes import record_outputs
from influence_core.specs import Split, TracinErrorSpec, TrajectorySpec
from influence_core.studies.keys import optimizer_key
from influence_core.study_checks import check_drawn
from influence_core.trajectory.optimizers import OptimizerSpec, OptimizerState
from influence_core.trajectory.start import Start, optimizer_of, start_state
from influence_core.trajectory.step import TrainingStep
from influence_core.workspace import Workspace


@dataclass(frozen=True)
class Setting:
    """What all trajectories of a study share."""

    workspace: Workspace
    opened: Opened  # in the asked precision
    step: TrainingStep
    parameters: Parameters  # θ_init
    state: OptimizerState
    source: str  # of the state: checkpoint, warm, zeros

    @property
    def dtype(self) -> torch.dtype:
        """The asked precision."""
        return self.opened.classifier.dtype

    @property
    def device(self) -> torch.device:
        """Where everything is."""
        return self.opened.classifier.device

    def batch(self, split: Split, numbers: Sequence[int] | np.ndarray, labels: np.ndarray) -> Batch:
        """Return rows of a split with these labels, from behind the frozen prefix where there is one."""
        if split == "train":
            return self.step.rows.batch(numbers, labels)
        encoded = rows_of(self.workspace, self.opened.whole, split)
        plain, suffix = encoded.batch(numbers, labels), self.opened.classifier
        if not isinstance(suffix, Suffix):
            return plain
        return suffix.collate([output.numpy() for output in suffix.prefix(plain)], labels)


def optimizer_for(workspace: Workspace, spec: TrajectorySpec) -> OptimizerSpec:
    """Return the optimizer that a study asks for; TracIn's error is that of plain SGD, as Eq. 2 knows no momentum."""
    found = optimizer_of(workspace.checkpoint(spec.checkpoint), spec.optimizer, spec.learning_rate)
    return replace(found, momentum=0.0) if isinstance(spec, TracinErrorSpec) else found


def setting_key(workspace: Workspace, spec: TrajectorySpec) -> dict[str, Any]:
    """Return all that the base trajectory depends on.

    A state that is not asked for stays None where one is made, and is "checkpoint" where the
    checkpoint has begun to carry one.
    """
    carried = spec.optimizer_state is None and optimizer_key(workspace, spec)["state"] == "checkpoint"
    return {
        **base_key(workspace, spec.checkpoint, spec.scope),
        "optimizer": asdict(optimizer_for(workspace, spec)),
        "state": "checkpoint" if carried else spec.optimizer_state,
        "batch_size": spec.batch_size,
        "steps": spec.steps,
        "seed": spec.seed,
        "dropout": spec.dropout,
        "dtype": spec.dtype,
    }


def setting_words(workspace: Workspace, spec: TrajectorySpec) -> dict[str, Any]:
    """Return by name what a study's trajectories are of, its defaults filled in, for tables and `conjecture`."""
    optimizer = optimizer_for(workspace, spec)
    return {
        "workspace": workspace.name,
        "checkpoint": workspace.checkpoint(spec.checkpoint).name,
        "scope": spec.scope or workspace.scope,
        "optimizer": optimizer.kind,
        "learning_rate": optimizer.learning_rate,
        "batch_size": spec.batch_size,
        "seed": spec.seed,
    }


def open_setting(workspace: Workspace, spec: TrajectorySpec, *, few: bool = False) -> Iterator[Progress | Setting]:
    """Yield progress while the frozen part's outputs and the optimizer's state are made, then the setting.

    Where ``few`` rows will be asked for, their outputs are made when they come up.
    In another precision than the checkpoint's, θ_init, the outputs and the state are its own, converted.
    """
    native = open_scope(workspace, spec.checkpoint, spec.scope)
    rows = yield from through(prefix.rows(workspace, native, "train", few=few), Rows)  # original labels (DEFINITIONS)
    if not isinstance(rows.items, prefix.Asked):
        record_outputs(workspace, spec.checkpoint, native.scope.name)
    optimizer = optimizer_for(workspace, spec)
    step = TrainingStep(
        native.classifier, native.scope, optimizer, rows, spec.batch_size, spec.seed, dropout=spec.dropout
    )
    checkpoint, parameters = workspace.checkpoint(spec.checkpoint), native.classifier.parameters(native.scope)
    start = yield from through(start_state(workspace, checkpoint, step, parameters, spec.optimizer_state), Start)
    state, opened = start.state, native
    if spec.dtype is not None and (dtype := getattr(torch, spec.dtype)) != native.whole.dtype:
        opened = in_precision(native, dtype)
        rows = Rows(opened.classifier, rows.items, rows.labels)
        step = TrainingStep(
            opened.classifier, opened.scope, optimizer, rows, spec.batch_size, spec.seed, dropout=spec.dropout
        )
        parameters = opened.classifier.parameters(opened.scope)
        state = OptimizerState.from_tensors({name: value.to(dtype) for name, value in state.to_tensors().items()})
    yield Setting(workspace, opened, step, parameters, state, start.source)


def in_precision(opened: Opened, dtype: torch.dtype) -> Opened:
    """Return the same checkpoint and scope with a module of its own in another precision."""
    whole = copy.copy(opened.whole)
    whole.module = copy.deepcopy(opened.whole.module).to(dtype)
    if not isinstance(opened.classifier, Suffix):
        return replace(opened, classifier=whole, whole=whole)
    suffix = cut(whole, opened.scope)
    assert isinstance(suffix, Suffix)
    return replace(opened, classifier=suffix, whole=whole)


@dataclass(frozen=True)
class Drawn:
    """Which rows a repeat takes."""

    train: np.ndarray  # [X] row numbers
    labels: np.ndarray  # [X] their labels as they stand
    test: np.ndarray  # [Z] row numbers of the test split
    targets: np.ndarray  # [Z] their gold labels

    def ids(self, workspace: Workspace) -> dict[str, list[str]]:
        """Return the rows by id."""
        splits = workspace.dataset.splits
        return {
            "train": [str(each) for each in splits["train"]["id"].iloc[self.train]],
            "test": [str(each) for each in splits["test"]["id"].iloc[self.test]],
        }


def draw(workspace: Workspace, seed: int, repeat: int, train_rows: int, test_rows: int) -> Drawn:
    """Draw a repeat's rows without replacement, seeded (seed, repeat); raises `UserError` for more than there are."""
    check_drawn(workspace, train_rows, test_rows)
    splits = workspace.dataset.splits
    random = np.random.default_rng([seed, repeat])
    train = random.permutation(len(splits["train"]))[:train_rows]
    frame = splits["test"]
    test = random.permutation(len(frame))[:test_rows]
    gold = (frame["gold"] if "gold" in frame else frame["label"]).to_numpy()
    return Drawn(train, workspace.labels().values[train], test, gold[test].astype(np.int64))
