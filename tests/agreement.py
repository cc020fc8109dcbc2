"""What a projection is held to: the products and norms of per-row gradients taken one by one."""

import torch
from models import loop_gradients, random_directions, random_metric, split

from influence_core.gradients.project import Products, project
from influence_core.models.classifier import Batch, Classifier, Parameters, Scope


def expected(gradients: Parameters, directions: Parameters, metric: Parameters | None = None) -> Products:
    """Products of full per-row gradients, in the plainest way."""
    dots, sqnorms = 0, 0
    for name, g in gradients.items():
        weighted = g if metric is None else g * metric[name]
        dots = dots + weighted.flatten(1) @ directions[name].flatten(1).T
        sqnorms = sqnorms + (weighted * g).flatten(1).sum(1)
    return Products(dots, sqnorms)


def close(found: Products, wanted: Products, gradients: Parameters, directions: Parameters) -> None:
    """Norms to 1e-10 relative; products to 1e-10 of what Cauchy-Schwarz allows them."""
    torch.testing.assert_close(found.sqnorms, wanted.sqnorms, rtol=1e-10, atol=0)
    g = sum(value.flatten(1).square().sum(1) for value in gradients.values()).sqrt()
    d = sum(value.flatten(1).square().sum(1) for value in directions.values()).sqrt()
    assert ((found.dots - wanted.dots).abs() <= 1e-10 * g[:, None] * d[None]).all()


def agree(
    classifier: Classifier,
    batch: Batch,
    *,
    scope: str = "all",
    size: int = 7,
    k: int = 3,
    metric: bool = False,
) -> None:
    chosen = classifier.scope(scope)
    directions = random_directions(classifier, chosen, k)
    diagonal = random_metric(classifier, chosen) if metric else None
    gradients = loop_gradients(classifier, chosen, batch)
    found = project(classifier, chosen, split(batch, size), directions, diagonal)
    close(found, expected(gradients, directions, diagonal), gradients, directions)


def each_parameter_agrees(model: Classifier, batch: Batch, *, size: int = 3, k: int = 3) -> None:
    """Products and norms of every parameter alone, with and without a metric, against the loop's."""
    gradients = loop_gradients(model, model.scope("all"), batch)
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 1e-9, name
        scope = Scope(name, (name,), ("",))
        directions = random_directions(model, scope, k)
        for diagonal in (None, random_metric(model, scope)):
            found = project(model, scope, split(batch, size), directions, diagonal)
            close(found, expected({name: gradient}, directions, diagonal), {name: gradient}, directions)
