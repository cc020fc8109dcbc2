"""Per-row loss gradients in full, for the few rows that become directions."""

import torch

from influence_core.models.classifier import Batch, Classifier, Parameters, Scope
from influence_core.models.modes import in_eval


def row(batch: Batch, index: int) -> Batch:
    """Return one row as a batch of its own, padding included."""
    part = slice(index, index + 1)
    return Batch({name: value[part] for name, value in batch.inputs.items()}, batch.labels[part])


def row_gradients(classifier: Classifier, scope: Scope, batch: Batch) -> Parameters:
    """Return ∇l_x of every row of a batch, {parameter name: [B, *shape]}, in eval mode, detached.

    One forward and backward a row, and B times the scope's parameters in memory: meant for queries.
    """
    batch = batch.to(classifier.device)
    own = {name: value.detach() for name, value in classifier.module.named_parameters()}
    leaves = {name: own[name].detach().requires_grad_() for name in scope.parameters}
    stacked = {name: value.new_zeros(len(batch), *value.shape) for name, value in classifier.parameters(scope).items()}
    with in_eval(classifier.module), torch.enable_grad():
        for index in range(len(batch)):
            losses = classifier.losses(row(batch, index), own | leaves)
            gradients = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
            for name, gradient in zip(leaves, gradients, strict=True):
                if gradient is not None:
                    stacked[name][index] = gradient
    return stacked
