"""Hessians the slow, plain way."""

import torch
from torch import Tensor, nn

from influence_core.curvature.flat import flatten, unflatten
from influence_core.models.classifier import Batch, Classifier


def dense_hessian(classifier: Classifier, batch: Batch, l2: float = 0.0) -> Tensor:
    """∇²L over all parameters, from torch.func, [P, P]."""
    scope = classifier.scope("all")
    own = classifier.parameters(scope)

    def loss(flat: Tensor) -> Tensor:
        losses = nn.functional.cross_entropy(
            torch.func.functional_call(classifier.module, unflatten(flat, own), (), batch.inputs), batch.labels
        )
        return losses + l2 / 2 * flat.square().sum()

    return torch.func.hessian(loss)(flatten(own, scope))
