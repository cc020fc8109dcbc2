"""Primitive 1: per-example loss gradients dotted with K directions in one pass."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from influence_core.errors import UserError
from influence_core.gradients.capture import Owner, capture, owners
from influence_core.gradients.rows import row, row_gradients
from influence_core.gradients.rules import Factor, rule_for
from influence_core.gradients.rules.channelnorm import refuse_mixed_rows
from influence_core.models.classifier import Batch, Classifier, Parameters, Scope


@dataclass(frozen=True)
class Products:
    """Products of N rows' loss gradients, in the order the rows were given."""

    dots: Tensor  # [N, K]: g_x · P · d
    sqnorms: Tensor  # [N]: g_x · P · g_x


def project(
    classifier: Classifier,
    scope: Scope,
    batches: Iterable[Batch],
    directions: Parameters,
    metric: Parameters | None = None,
) -> Products:
    """Return g_x · P · d [N, K] and g_x · P · g_x [N] of every row x, in eval mode.

    ``directions`` are {parameter name: [K, *shape]} for the whole scope (an empty dict, or K = 0,
    gives norms only), ``metric`` is a diagonal P, {parameter name: shape}, or the identity. No
    gradient of more than one layer and one batch exists at a time.

    Raises:
        UserError: a layer type without a rule, a BatchNorm that mixes rows, or a model whose gradients its layers'
            inputs and outputs do not explain (weights used outside their module, the batch not first).
    """
    parts = list(iterate(classifier, scope, batches, directions, metric))
    if parts:
        return Products(torch.cat([part.dots for part in parts]), torch.cat([part.sqnorms for part in parts]))
    count = len(next(iter(directions.values()), ()))
    kind = torch.promote_types(classifier.dtype, torch.float32)
    zeros = torch.zeros(0, count + 1, dtype=kind, device=classifier.device)
    return Products(zeros[:, :count], zeros[:, count])


def iterate(
    classifier: Classifier,
    scope: Scope,
    batches: Iterable[Batch],
    directions: Parameters,
    metric: Parameters | None = None,
) -> Iterator[Products]:
    """Yield the products of each batch as it is done, for callers that save or report on the way; see `project`."""
    found = owners(classifier.module, scope)
    refuse_mixed_rows(classifier.module)
    for owner in found:
        rule_for(owner.name, owner.module)  # refuses before any work
    ready = _prepare(classifier, scope, directions, metric)
    verified = False
    for batch in batches:
        here = batch.to(classifier.device)
        if len(here) and not verified:
            _verify(classifier, scope, found, row(here, 0))
            verified = True
        with torch.no_grad():
            products = _products(classifier, found, here, ready, metric)
        yield products


def _prepare(
    classifier: Classifier, scope: Scope, directions: Parameters, metric: Parameters | None
) -> dict[str, Tensor]:
    """Check directions and metric against the scope and return P · d, on the classifier's device."""
    own = classifier.parameters(scope)
    counts = {len(value) for value in directions.values()}
    if directions and (set(directions) != set(own) or len(counts) != 1):
        raise ValueError(f"directions must have one K for each of the {len(own)} parameters of scope {scope.name!r}")
    if metric is not None and set(metric) != set(own):
        raise ValueError(f"the metric must have each of the {len(own)} parameters of scope {scope.name!r}")
    kind = torch.promote_types(classifier.dtype, torch.float32)
    ready = {}
    for name, value in own.items():
        given = directions[name] if directions else value.new_zeros(0, *value.shape)
        if given.shape[1:] != value.shape or (metric is not None and metric[name].shape != value.shape):
            raise ValueError(f"direction or metric of {name!r} does not have its shape {tuple(value.shape)}")
        given = given.to(classifier.device, kind)
        ready[name] = given if metric is None else given * metric[name].to(classifier.device, kind)
    return ready


def _products(
    classifier: Classifier,
    found: list[Owner],
    batch: Batch,
    directions: Mapping[str, Tensor],
    metric: Parameters | None,
) -> Products:
    count = len(next(iter(directions.values()), ()))
    kind = torch.promote_types(classifier.dtype, torch.float32)
    dots = torch.zeros(len(batch), count, dtype=kind, device=classifier.device)
    sqnorms = torch.zeros(len(batch), dtype=kind, device=classifier.device)
    if len(batch) == 0:
        return Products(dots, sqnorms)
    for name, uses in _factors(classifier, found, batch).items():
        diagonal = None if metric is None else metric[name].to(classifier.device, kind)
        for index, factor in enumerate(uses):
            dot, sqnorm = factor.products(directions[name], diagonal)
            dots += dot
            sqnorms += sqnorm
            for earlier in uses[:index]:
                sqnorms += 2 * factor.cross(earlier, diagonal)
    return Products(dots, sqnorms)


def _factors(classifier: Classifier, found: list[Owner], batch: Batch) -> dict[str, list[Factor]]:
    """Return the factors of every use of every parameter, by the parameter's name."""
    by_parameter: dict[str, list[Factor]] = defaultdict(list)
    for use in capture(classifier, found, batch):
        factors = rule_for(use.owner.name, use.owner.module)(use.owner.module, use.a, use.b)
        for local, name in use.owner.parameters.items():
            if local not in factors:
                kind = type(use.owner.module).__name__
                raise UserError(
                    f"parameter {local!r} of module {use.owner.name!r} is unknown to the rule of {kind}: "
                    "remove the reparametrisation, or choose a scope without it"
                )
            by_parameter[name].append(factors[local])
    return by_parameter


def _verify(classifier: Classifier, scope: Scope, found: list[Owner], one: Batch) -> None:
    """Compare one row's factors with autograd's gradient, parameter by parameter.

    ‖f − g‖² = f·f − 2 f·g + g·g needs no full gradient of the factors. It finds what no layer
    could see, such as a weight that is also used outside its module.
    """
    factors = _factors(classifier, found, one)
    reference = row_gradients(classifier, scope, one)  # {name: [1, *shape]}
    kind = torch.promote_types(classifier.dtype, torch.float32)
    squares = {name: value.to(kind).square().sum() for name, value in reference.items()}
    noise = 1e-10 * torch.stack(list(squares.values())).sum()
    tolerance = max(1e-4, (16 * torch.finfo(classifier.dtype).eps) ** 2)
    for name, value in reference.items():
        distance = squares[name].clone()
        for index, factor in enumerate(factors.get(name, [])):
            dot, sqnorm = factor.products(value.to(kind))
            distance += sqnorm[0] - 2 * dot[0, 0]
            for earlier in factors[name][:index]:
                distance += 2 * factor.cross(earlier)[0]
        if not distance <= tolerance * squares[name] + noise:  # also when it is not a number
            off, size = float(distance.clamp(min=0).sqrt()), float(squares[name].sqrt())
            raise UserError(
                f"the gradient of {name!r} that its module's inputs and outputs give differs from autograd's by "
                f"{off:.3g} of {size:.3g}: the weight is used outside its module's forward, "
                "or the row's loss is not finite; choose a scope without it"
            )
