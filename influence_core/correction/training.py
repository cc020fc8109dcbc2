"""From a correction's settings and rows to the training that it is: used by the run and by its replay."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from influence_core.checks import no_batchnorm
from influence_core.errors import UserError
from influence_core.events import Progress, through
from influence_core.models import prefix
from influence_core.models.classifier import Parameters, Rows
from influence_core.models.prefix import Opened
from influence_core.sizes import record_outputs
from influence_core.specs import Correcting
from influence_core.trajectory.modes import batch_norms
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.trajectory.perturbation import Perturbation
from influence_core.trajectory.start import Start, start_state
from influence_core.trajectory.step import TrainingStep
from influence_core.workspace import Workspace


@dataclass(frozen=True)
class Group:
    """The rows of one l_{B_q}."""

    numbers: np.ndarray  # [n] training row numbers
    labels: Sequence[int] | np.ndarray  # [n] the labels that l_{B_q} uses
    epsilon: float  # ε_q


@dataclass(frozen=True)
class Training:
    """What `trajectory.lockstep` iterates."""

    step: TrainingStep
    parameters: Parameters  # the checkpoint's
    start: Start
    epsilon: Tensor  # [Q]
    perturbation: Perturbation  # B, with the labels of l_B


def training(
    workspace: Workspace,
    opened: Opened,
    spec: Correcting,
    optimizer: OptimizerSpec,
    state: str | None,
    groups: Sequence[Group],
    cursor: int,
) -> Iterator[Progress | Training]:
    """Yield progress, then the training on L and Σ_q ε_q · l_{B_q}.

    L has the original labels (DEFINITIONS), or with ``annotated_loss`` those that stood at ``cursor``.
    ``state`` is where the optimizer's state comes from (`start_state`); running statistics start as the
    checkpoint has them. Raises what `start_state` and `TrainingStep` raise, and `UserError` for
    batchnorm = train where nothing of the kind is trained.
    """
    classifier, scope = opened.classifier, opened.scope
    moving = spec.batchnorm == "train"
    if moving and not batch_norms(classifier.module, scope.modules):
        raise UserError(no_batchnorm(scope.name))
    own = workspace.labels(cursor).values if spec.annotated_loss else None
    rows = yield from through(prefix.rows(workspace, opened, "train", own), Rows)
    if opened.reason is None:
        record_outputs(workspace, spec.checkpoint, scope.name)
    step = TrainingStep(
        classifier,
        scope,
        optimizer,
        rows,
        spec.batch_size,
        spec.seed,
        dropout=spec.dropout,
        batchnorm_train=moving,
    )
    parameters = classifier.parameters(scope)
    checkpoint = workspace.checkpoint(spec.checkpoint)
    start = yield from through(start_state(workspace, checkpoint, step, parameters, state), Start)
    start = replace(start, state=start.state._replace(buffers=step.initial_state(parameters).buffers))
    epsilon = torch.tensor([group.epsilon for group in groups], dtype=classifier.dtype, device=classifier.device)
    yield Training(step, parameters, start, epsilon, perturbation(rows, groups))


def perturbation(rows: Rows, groups: Sequence[Group]) -> Perturbation:
    """Return the groups' rows, the shorter groups padded with rows of weight 0."""
    longest = max(len(group.numbers) for group in groups)
    numbers = np.concatenate([np.resize(group.numbers, longest) for group in groups])
    labels = np.concatenate([np.resize(np.asarray(group.labels), longest) for group in groups])
    batch = rows.batch(numbers, labels)
    weights = torch.zeros(len(groups), longest, device=batch.labels.device)
    for q, group in enumerate(groups):
        weights[q, : len(group.numbers)] = 1
    return Perturbation(batch, weights)
