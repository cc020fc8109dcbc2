"""The Hessian of a workspace's training loss over its fixed, ordered, seeded sample of rows."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from influence_core.attribution.sample import coupled_l2, sample_size, undecayed
from influence_core.curvature.hvp import HessianOperator
from influence_core.events import Progress
from influence_core.models.classifier import Rows

if TYPE_CHECKING:
    from influence_core.attribution.projection import Projection

BATCH = 32  # rows whose gradient graph is built at a time


@dataclass(frozen=True)
class Sampled:
    """The operator and what it was made of."""

    operator: HessianOperator
    numbers: np.ndarray  # training row numbers, in order
    l2: float
    cursor: int  # label events counted in the rows' labels


def hessian_numbers(n: int, size: int, seed: int) -> np.ndarray:
    """Return the fixed, ordered Hessian sample: row numbers drawn without replacement, seeded."""
    generator = torch.Generator().manual_seed(seed)
    return np.sort(torch.randperm(n, generator=generator)[:size].numpy())


def sampled_hessian(
    work: "Projection", checkpoint: str | None, hessian_rows: int | None, seed: int, cursor: int | None = None
) -> Generator[Progress, None, Sampled]:
    """Return the Hessian over the sample, with the labels at a cursor (None: as they stand); see `HessianOperator`."""
    workspace = work.workspace
    labels = workspace.labels(cursor)
    rows = yield from work.train(labels.values)
    numbers = hessian_numbers(len(rows), sample_size(workspace, hessian_rows), seed)
    sample = Rows(work.classifier, [rows.items[int(row)] for row in numbers], rows.labels[numbers])
    batches = [batch for _, batch in sample.buckets(0, len(sample), BATCH)]
    l2 = coupled_l2(workspace, checkpoint)
    spared = undecayed(workspace, checkpoint)
    operator = HessianOperator(work.classifier, work.scope, batches, l2=l2, undecayed=spared)
    return Sampled(operator, numbers, l2, labels.cursor)
