"""A classifier as functions of its parameters: what every later room builds on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from influence_core.errors import UserError

if TYPE_CHECKING:
    from influence_core.models.layout import Layout

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """Inputs and labels of B examples, ready for the module.

    ``inputs`` are the module's keyword arguments, each with the batch as its first dimension, so
    that every per-example quantity stays per example (nothing is broadcast over the batch).
    """

    inputs: dict[str, Tensor]  # each [B, ...]
    labels: Tensor  # [B] int64

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def to(self, device: torch.device) -> "Batch":
        """Move to a device (asynchronously from pinned memory)."""
        inputs = {name: value.to(device, non_blocking=True) for name, value in self.inputs.items()}
        return Batch(inputs, self.labels.to(device, non_blocking=True))

    def relabelled(self, labels: Tensor) -> "Batch":
        """Return the same inputs with other labels ([B] int64)."""
        return Batch(self.inputs, labels)


@dataclass(frozen=True)
class Scope:
    """The parameters that an analysis differentiates and a correction trains.

    ``modules`` are the roots of the trained part: only they enter train mode, everything before
    them stays in eval whatever the path (DEFINITIONS, Perturbation and step).
    """

    name: str  # head, last:n, all
    parameters: tuple[str, ...]  # names as in module.named_parameters()
    modules: tuple[str, ...]  # names as in module.named_modules()


class Classifier:
    """Base of all classifiers, and itself the one for a plain module that returns logits.

    Contract: ``logits`` and ``losses`` depend on nothing but the batch, the given parameters and
    buffers, the module's train/eval mode and the random state. A name missing from ``parameters``
    means the module's own value. The module is kept in eval mode; parameters do not require grad
    unless a caller passes ones that do. Losses are per-example cross-entropies, in float32 at least.
    """

    def __init__(
        self,
        module: nn.Module,
        label_names: Sequence[str],
        scopes: Mapping[str, Scope] | None = None,
        layout: "Layout | None" = None,
    ) -> None:
        self.module = module.eval().requires_grad_(False)
        self.label_names = tuple(label_names)
        self.layout = layout
        self.companions = ""  # fingerprint of the files beside its weights, where it was loaded from such
        self._scopes = dict(scopes or {})

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' dtype."""
        return next(self.module.parameters()).dtype

    def logits(self, batch: Batch, parameters: Parameters | None = None, buffers: Parameters | None = None) -> Tensor:
        """Return the class logits, [B, C]."""
        given = {**(parameters or {}), **(buffers or {})}
        output = torch.func.functional_call(self.module, given, (), batch.inputs)
        return output if isinstance(output, Tensor) else output.logits

    def losses(self, batch: Batch, parameters: Parameters | None = None, buffers: Parameters | None = None) -> Tensor:
        """Return each example's cross-entropy (nats), [B], float32 at least."""
        return self.losses_of(self.logits(batch, parameters, buffers), batch.labels)

    def losses_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropies that follow from logits [B, C] and labels [B]."""
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        return F.cross_entropy(logits, labels, reduction="none")

    def scope(self, name: str) -> Scope:
        """Return the named scope; ``all`` always exists, others follow from the layout where there is one.

        Raises `UserError` for a scope that the model does not have.
        """
        if self.layout is not None:
            return self.layout.scope(self.module, name)
        if name == "all":
            return Scope("all", tuple(n for n, _ in self.module.named_parameters()), ("",))
        if name not in self._scopes:
            known = ", ".join(["all", *self._scopes])
            raise UserError(
                f"scope {name!r}: {type(self.module).__name__} is of no family whose parts are known here, only all of "
                f"it can be chosen: use {known}"
            )
        return self._scopes[name]

    def parameters(self, scope: Scope) -> Parameters:
        """Return the scope's parameters, detached (they share memory with the module)."""
        own = dict(self.module.named_parameters())
        return {name: own[name].detach() for name in scope.parameters}

    def encode(self, raw: Sequence[Any]) -> Sequence[Any]:
        """Turn raw inputs into what `collate` takes, once per row (tokenising, say)."""
        return list(raw)

    def size(self, item: Any) -> int:
        """Return what an encoded item costs, to batch like with like (tokens for text)."""
        return 1

    def sizes(self, items: Sequence[Any]) -> np.ndarray:
        """Return what each of N encoded items costs, [N]; images are not looked at for it."""
        return np.fromiter((self.size(item) for item in items), np.int64, len(items))

    def collate(self, items: Sequence[Any], labels: Sequence[int] | np.ndarray) -> Batch:
        """Make a batch of encoded items on the classifier's device."""
        return self.place({"x": torch.stack([torch.as_tensor(item) for item in items]).to(self.dtype)}, labels)

    def place(self, inputs: dict[str, Tensor], labels: Sequence[int] | np.ndarray) -> Batch:
        """Make a batch of tensors on the host, on the classifier's device (through pinned memory to cuda)."""
        batch = Batch(inputs, torch.as_tensor(np.asarray(labels), dtype=torch.int64))
        if self.device.type == "cuda":
            pinned = {name: value.pin_memory() for name, value in batch.inputs.items() if not value.is_cuda}
            batch = Batch({**batch.inputs, **pinned}, batch.labels.pin_memory())
        return batch.to(self.device)


class Rows:
    """Encoded examples with their labels, from which batches are made by row number."""

    def __init__(self, classifier: Classifier, items: Sequence[Any], labels: Sequence[int] | np.ndarray) -> None:
        self.classifier = classifier
        self.items = items
        self.labels = np.asarray(labels, dtype=np.int64)  # [N]
        if len(self.items) != len(self.labels):
            raise ValueError(f"{len(self.items)} items but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def sizes(self) -> np.ndarray:
        """What each row costs, [N]."""
        return self.classifier.sizes(self.items)

    def batch(self, rows: Sequence[int] | np.ndarray, labels: Sequence[int] | np.ndarray | None = None) -> Batch:
        """Make one batch of the given rows, with their own labels unless others are given."""
        chosen = self.labels[np.asarray(rows)] if labels is None else labels
        return self.classifier.collate([self.items[int(row)] for row in rows], chosen)

    def buckets(self, start: int, stop: int, size: int) -> Iterator[tuple[np.ndarray, Batch]]:
        """Yield (row numbers, batch) over rows start..stop, like sizes together.

        The order depends on the rows alone, so results do not depend on who runs it.
        """
        order = start + np.argsort(self.sizes[start:stop], kind="stable")
        for first in range(0, len(order), size):
            rows = order[first : first + size]
            yield rows, self.batch(rows)
