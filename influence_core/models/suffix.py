"""A classifier cut in two where its frozen part ends.

What precedes the scope gives the same output for a row whatever is trained, so that output can take
the row's place: the suffix runs from there, with the original's own modules and parameters.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from influence_core.models.classifier import Batch, Classifier, Parameters, Scope
from influence_core.models.layout import Layout
from influence_core.models.padding import additive_mask, lengths_of, padded

BATCH = 64  # rows through the frozen part at a time


class Suffix(Classifier):
    """The part of a classifier behind its frozen part, as a classifier of that part's outputs.

    Items are the outputs for one row without padding: [T, d], or of one shape for all rows. The
    module has the original's names, and shares its parameters, buffers and trained modules; the
    frozen modules hand on what they are given, so they draw no random numbers and their parameters
    count for nothing. Scopes of the original are valid here as long as they are not wider.
    """

    def __init__(self, whole: Classifier, layout: Layout, frozen: Sequence[str]) -> None:
        self.whole = whole
        self.frozen = tuple(frozen)  # modules left out, in the order that data passes them
        self.inner = copy.copy(whole)
        self.inner.module = _handing_on(whole.module, self.frozen)
        super().__init__(self.inner.module, whole.label_names, layout=layout)
        self.entry, self.ragged = layout.entry, layout.ragged

    def logits(self, batch: Batch, parameters: Parameters | None = None, buffers: Parameters | None = None) -> Tensor:
        """Return the class logits, [B, C]."""
        return self.inner.logits(batch, parameters, buffers)

    def losses(self, batch: Batch, parameters: Parameters | None = None, buffers: Parameters | None = None) -> Tensor:
        """Return each example's loss (nats), [B], as the original defines it."""
        return self.inner.losses(batch, parameters, buffers)

    def losses_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the losses that follow from logits [B, C] and labels [B]."""
        return self.inner.losses_of(logits, labels)

    def prefix(self, batch: Batch) -> list[Tensor]:
        """Return the frozen part's output for each row of a batch of the *original*: on the host, no padding."""
        with torch.no_grad():
            output = _output_of(self.whole, self.frozen[-1], batch)
        output = output.to("cpu", torch.promote_types(output.dtype, torch.float32))
        if not self.ragged:
            return list(output)
        return [row[:length] for row, length in zip(output, lengths_of(batch.inputs["attention_mask"]), strict=True)]

    def encode(self, raw: Sequence[Any]) -> Sequence[Any]:
        """Encode as the original does and run its frozen part; returns arrays, all in memory."""
        items = self.whole.encode(raw)
        found: list[Any] = [None] * len(items)
        order = np.argsort(self.whole.sizes(items), kind="stable")
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            batch = self.whole.collate([items[int(row)] for row in rows], np.zeros(len(rows), np.int64))
            for row, output in zip(rows, self.prefix(batch), strict=True):
                found[int(row)] = output.numpy()
        return found

    def size(self, item: Any) -> int:
        """Return what an item costs, as the original counts it (tokens for text)."""
        return len(item) if self.ragged else 1

    def sizes(self, items: Sequence[Any]) -> np.ndarray:
        """Return what each item costs, [N]; outputs of one shape are not read for it."""
        return super().sizes(items) if self.ragged else np.ones(len(items), np.int64)

    def collate(self, items: Sequence[Any], labels: Sequence[int] | np.ndarray) -> Batch:
        """Make a batch of outputs of the frozen part; pads as the original does."""
        if not self.ragged:
            return self.place({self.entry: torch.from_numpy(np.stack(items)).to(self.dtype)}, labels)
        states = torch.from_numpy(padded(items, 0.0, items[0].dtype)).to(self.dtype)
        mask = additive_mask([len(item) for item in items], self.dtype)
        return self.place({self.entry: states, "attention_mask": mask}, labels)


def cut(classifier: Classifier, scope: Scope) -> Suffix | str:
    """Return the classifier behind all that precedes the scope, or the reason in words why there is none."""
    layout = classifier.layout
    if layout is None:
        return f"{type(classifier.module).__name__} is of no family whose parts are known"
    own = dict(classifier.module.named_parameters())
    trained = {id(own[name]) for name in scope.parameters}
    chain = layout.stem + layout.blocks if layout.chained else layout.stem
    frozen: list[str] = []
    for name in chain:
        # by identity: a table that the scope trains elsewhere is trained here
        if any(id(parameter) in trained for parameter in classifier.module.get_submodule(name).parameters()):
            break
        frozen.append(name)
    if len(frozen) < len(layout.stem):
        return f"scope {scope.name} trains the model from its first layers on, so nothing before it is frozen"
    return Suffix(classifier, layout, frozen)


class _ReachedError(Exception):
    """Ends a forward pass once the output that was wanted is there."""

    def __init__(self, output: Tensor) -> None:
        self.output = output


def _output_of(classifier: Classifier, name: str, batch: Batch) -> Tensor:
    """Return what a module gives out in a forward pass of the classifier, which ends there."""

    def leave(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        raise _ReachedError(output if isinstance(output, Tensor) else output[0])

    handle = classifier.module.get_submodule(name).register_forward_hook(leave)
    try:
        classifier.logits(batch)
    except _ReachedError as reached:
        return reached.output
    finally:
        handle.remove()
    raise RuntimeError(f"the forward pass went past {name}")


def _handing_on(module: nn.Module, names: Sequence[str], path: str = "") -> nn.Module:
    """Return the module with the named parts handing on what they are given; everything else is shared.

    Copied are the modules on the way to the named ones (``path`` is this one's own name), with
    dictionaries of their own.
    """
    twin = copy.copy(module)
    vars(twin).update({name: value.copy() for name, value in vars(module).items() if isinstance(value, dict)})
    if path in names:
        vars(twin)["forward"] = _hand_on  # an instance attribute comes before the class's method
        return twin
    for child, part in module.named_children():
        full = f"{path}.{child}" if path else child
        if any(name == full or name.startswith(f"{full}.") for name in names):
            setattr(twin, child, _handing_on(part, names, full))
    return twin


def _hand_on(*args: Any, **kwargs: Any) -> Tensor:
    return next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
