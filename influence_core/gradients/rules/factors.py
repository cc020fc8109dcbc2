"""Per-example gradients of one parameter, kept as factors wherever that is smaller."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

# Elements of per-example gradient formed at a time. On a CPU a piece should stay in the cache
# between being formed and being multiplied; on an accelerator fewer, larger kernels win.
CPU_ELEMENTS = 1 << 20
DEVICE_ELEMENTS = 1 << 26


def piece(device: torch.device, each: int) -> int:
    """How many slices of ``each`` elements to form at a time, at least 1."""
    return max(1, (CPU_ELEMENTS if device.type == "cpu" else DEVICE_ELEMENTS) // max(1, each))


def sqnorms(gradients: Tensor, metric: Tensor | None) -> Tensor:
    """Return g · P · g, [B], of gradients [B, n] under a diagonal P [n] or the identity, in as few passes as can be."""
    if metric is None:
        norms: Tensor = torch.linalg.vector_norm(gradients, dim=1)
        return norms.square_()
    return (gradients.square() * metric).sum(1)


class Factor(ABC):
    """The gradients of one parameter through one use of it, for each of B rows: g_x of ``shape``."""

    count: int  # B
    shape: torch.Size  # the parameter's
    device: torch.device

    @abstractmethod
    def dot(self, directions: Tensor) -> Tensor:
        """Return ⟨g_x, d⟩, [B, K], for directions [K, *shape]."""

    @abstractmethod
    def sqnorm(self, metric: Tensor | None = None) -> Tensor:
        """Return g_x · P · g_x, [B], with P = ``metric`` (*shape, a diagonal) or the identity."""

    @abstractmethod
    def dense(self, start: int, stop: int) -> Tensor:
        """Return the gradients of rows start..stop in full, [stop - start, *shape]."""

    def products(self, directions: Tensor, metric: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``dot(directions)`` and ``sqnorm(metric)``; a rule may share work between them."""
        return self.dot(directions), self.sqnorm(metric)

    def cross(self, other: "Factor", metric: Tensor | None = None) -> Tensor:
        """Return g_x · P · h_x, [B], with h_x the gradient through another use of the same parameter."""
        for one, two in ((self, other), (other, self)):
            product = one.factored_cross(two, metric)
            if product is not None:
                return product
        parts = []
        for start, stop in self.pieces():
            product = self.dense(start, stop) * other.dense(start, stop)
            parts.append((product if metric is None else product * metric).flatten(1).sum(1))
        return torch.cat(parts)

    def factored_cross(self, other: "Factor", metric: Tensor | None) -> Tensor | None:
        """Return ``cross`` without forming a gradient in full, or None where the rule knows no way."""
        return None

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield row ranges whose dense gradients fit in memory together."""
        step = piece(self.device, self.shape.numel())
        for start in range(0, self.count, step):
            yield start, min(start + step, self.count)


class Dense(Factor):
    """Gradients held in full: biases, norms, small tables."""

    def __init__(self, gradients: Tensor) -> None:
        self.gradients = gradients  # [B, *shape]
        self.count, self.shape, self.device = len(gradients), gradients.shape[1:], gradients.device

    def dot(self, directions: Tensor) -> Tensor:
        """Return ⟨g_x, d⟩, [B, K]."""
        return self.gradients.flatten(1) @ directions.flatten(1).T

    def sqnorm(self, metric: Tensor | None = None) -> Tensor:
        """Return g_x · P · g_x, [B]."""
        return sqnorms(self.gradients.flatten(1), None if metric is None else metric.flatten())

    def dense(self, start: int, stop: int) -> Tensor:
        """Return some rows in full."""
        return self.gradients[start:stop]
