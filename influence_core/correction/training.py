"""From a correction's settings and rows to the training that it is: used by the run and by its replay."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from influence_core.events import Progress, through
from influence_core.models import prefix
from influence_core.models.classifier import Parameters, Rows
from influence_core.models.prefix import Opened
from influence_core.specs import CorrectionSpec
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.trajectory.perturbation import Perturbation
from influence_core.trajectory.start import Start, start_state
from influence_core.trajectory.step import TrainingStep
from influence_core.workspace import Workspace


@dataclass(frozen=True)
class Training:
    """What `trajectory.lockstep` iterates."""

    step: TrainingStep
    parameters: Parameters  # the checkpoint's
    start: Start
    epsilon: Tensor  # [1]
    perturbation: Perturbation  # B, with the labels of l_B


def training(
    workspace: Workspace,
    opened: Opened,
    spec: CorrectionSpec,
    optimizer: OptimizerSpec,
    state: str | None,
    numbers: np.ndarray,
    labels: Sequence[int] | np.ndarray,
) -> Iterator[Progress | Training]:
    """Yield progress, then the training on L (original labels, DEFINITIONS) and l_B.

    ``state`` is where the optimizer's state comes from (`start_state`); ``numbers`` and ``labels`` [k] are B's.
    Raises what `start_state` and `TrainingStep` raise.
    """
    classifier, scope = opened.classifier, opened.scope
    rows = yield from through(prefix.rows(workspace, opened, "train"), Rows)
    step = TrainingStep(classifier, scope, optimizer, rows, spec.batch_size, spec.seed)
    parameters = classifier.parameters(scope)
    checkpoint = workspace.checkpoint(spec.checkpoint)
    start = yield from through(start_state(workspace, checkpoint, step, parameters, state), Start)
    perturbation = Perturbation.mean(rows.batch(numbers, labels))
    epsilon = torch.tensor([spec.weight], dtype=classifier.dtype, device=classifier.device)
    yield Training(step, parameters, start, epsilon, perturbation)
