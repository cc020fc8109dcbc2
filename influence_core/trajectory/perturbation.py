"""What is added to the loss: groups of rows with weights."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from influence_core.errors import UserError
from influence_core.models.classifier import Batch


@dataclass(frozen=True)
class Perturbation:
    """The rows of Σ_q ε_q · l_{B_q}: Q groups of n rows each (DEFINITIONS, Perturbation and step).

    Each l_{B_q} is the weighted mean of its rows' losses, with the labels given in ``batch``. Rows
    of weight 0 are padding. Raises `UserError` for weights that are not [Q, n] with Q·n rows, that
    are negative or not finite, or that are zero for a whole group.
    """

    batch: Batch  # Q*n rows, group after group
    weights: Tensor  # [Q, n]

    def __post_init__(self) -> None:
        shape = tuple(self.weights.shape)
        if len(shape) != 2 or shape[0] * shape[1] != len(self.batch):
            raise UserError(
                f"weights of shape {shape} do not fit {len(self.batch)} rows: give [groups, rows per group]"
            )
        if not holds(torch.isfinite(self.weights) & (self.weights >= 0)):
            wrong = [v for v in numbers(self.weights) if not 0 <= v < float("inf")]
            raise UserError(f"weight {wrong[0]} of a perturbation row must be a finite number, 0 or more: correct it")
        if not holds(self.weights.sum(dim=1) > 0):
            empty = [q for q, total in enumerate(numbers(self.weights.sum(dim=1))) if total <= 0]
            raise UserError(f"all {shape[1]} weights of group {empty[0]} are 0: give the group at least one row")

    @classmethod
    def mean(cls, batch: Batch) -> Self:
        """Return one group in which every row counts the same."""
        return cls(batch, torch.ones(1, len(batch), device=batch.labels.device))

    @property
    def groups(self) -> int:
        """Q, the number of groups."""
        return int(self.weights.shape[0])

    def group(self, q: int) -> tuple[Batch, Tensor]:
        """Return group q's rows and their weights ([n], unnormalised)."""
        n = int(self.weights.shape[1])
        rows = slice(q * n, (q + 1) * n)
        inputs = {name: value[rows] for name, value in self.batch.inputs.items()}
        return Batch(inputs, self.batch.labels[rows]), self.weights[q]


def check_epsilon(epsilon: Tensor, groups: int) -> None:
    """Raise `UserError` unless ``epsilon`` is [groups] and finite."""
    if tuple(epsilon.shape) != (groups,):
        raise UserError(f"epsilon of shape {tuple(epsilon.shape)} for {groups} groups: give one number per group")
    if not holds(torch.isfinite(epsilon)):
        raise UserError(f"epsilon must be finite, got {numbers(epsilon)}: give finite numbers")


def holds(condition: Tensor) -> bool:
    """Say whether a condition holds everywhere; inside ``vmap`` values cannot be read, and it passes."""
    try:
        return bool(condition.all())
    except RuntimeError:  # vmap's refusal of data-dependent control flow; it has no class of its own
        return True


def numbers(values: Tensor) -> list[float]:
    """Return the values as floats, for a message."""
    return [float(value) for value in values.flatten()]
