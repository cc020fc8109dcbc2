"""Work behind the frozen prefix gives what work on the whole model gives."""

import numpy as np
import pytest
import torch
from families import FAMILIES, rows
from models import random_directions

from influence_core.curvature.hvp import HessianOperator
from influence_core.gradients.project import project
from influence_core.models.classifier import Rows
from influence_core.models.predict import Predictions, predict
from influence_core.models.suffix import Suffix, cut
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.trajectory.perturbation import Perturbation
from influence_core.trajectory.step import TrainingStep

CASES = [
    *(("bert", name) for name in ("head", "last:1", "last:3")),
    ("roberta", "last:1"),
    ("distilbert", "last:1"),
    *(("t5", name) for name in ("head", "last:1", "last:2")),
    *(("vit", name) for name in ("head", "last:1")),
    *(("resnet", name) for name in ("head", "last:1")),
    *(("torchvision", name) for name in ("head", "last:2")),
]


def pair(family: str, name: str) -> tuple[Rows, Rows]:
    """Return the same rows under the whole classifier and under its suffix."""
    whole = FAMILIES[family].build()
    suffix = cut(whole, whole.scope(name))
    assert isinstance(suffix, Suffix)
    raw = FAMILIES[family].raw()
    return rows(whole, raw), rows(suffix, raw)


def close(family: str, found: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare; T5's norm computes its variance in float32 whatever the dtype, which sets its tolerance."""
    tolerance = 1e-6 if family == "t5" else 1e-9
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def all_close(family: str, found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        close(family, found[key], value)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_logits_losses_and_predictions_are_those_of_the_whole(family, name):
    plain, behind = pair(family, name)
    order = [7, 0, 3, 10]
    a, b = plain.batch(order), behind.batch(order)
    close(family, behind.classifier.logits(b), plain.classifier.logits(a))
    close(family, behind.classifier.losses(b), plain.classifier.losses(a))
    found = [list(predict(each.classifier, each))[-1] for each in (plain, behind)]
    assert isinstance(found[0], Predictions)
    for field in ("probabilities", "losses", "features"):
        np.testing.assert_allclose(getattr(found[1], field), getattr(found[0], field), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_the_suffix_runs_on_given_parameters_and_shares_the_module_s_own(family, name):
    plain, behind = pair(family, name)
    scope = plain.classifier.scope(name)
    own = plain.classifier.parameters(scope)
    for key, value in behind.classifier.parameters(scope).items():
        assert value.data_ptr() == own[key].data_ptr()
    other = {key: value + 0.1 * torch.randn_like(value) for key, value in own.items()}
    a, b = plain.batch([1, 2]), behind.batch([1, 2])
    changed = plain.classifier.logits(a, other)
    assert not torch.allclose(changed, plain.classifier.logits(a))
    close(family, behind.classifier.logits(b, other), changed)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_projections_and_hessian_products_are_those_of_the_whole(family, name):
    plain, behind = pair(family, name)
    scope = plain.classifier.scope(name)
    directions = random_directions(plain.classifier, scope, 3)
    found = []
    for each in (plain, behind):
        batches = [batch for _, batch in each.buckets(0, len(each), 4)]
        products = project(each.classifier, scope, batches, directions)
        operator = HessianOperator(each.classifier, scope, batches)
        v = torch.randn(operator.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        found.append({"dots": products.dots, "sqnorms": products.sqnorms, "product": operator.matvec(v)})
    all_close(family, found[1], found[0])


@pytest.mark.parametrize(("family", "name"), CASES)
def test_training_steps_with_dropout_are_those_of_the_whole(family, name):
    plain, behind = pair(family, name)
    scope = plain.classifier.scope(name)
    ends = []
    for each in (plain, behind):
        step = TrainingStep(each.classifier, scope, OptimizerSpec("sgd", 0.05), each, 5, 9, batchnorm_train=True)
        parameters = each.classifier.parameters(scope)
        state = step.initial_state(parameters)
        perturbation = Perturbation.mean(each.batch([2, 6], [0, 1]))
        for t in range(2):
            parameters, state = step(parameters, state, torch.tensor([0.3], dtype=torch.float64), perturbation, t)
        ends.append({**parameters, **state.buffers})
    all_close(family, ends[1], ends[0])
    assert not torch.equal(ends[0][scope.parameters[-1]], plain.classifier.parameters(scope)[scope.parameters[-1]])


def test_the_frozen_modules_do_not_run_and_the_original_is_left_as_it_was():
    plain, behind = pair("bert", "last:1")
    calls = []
    whole = plain.classifier.module
    for part in ("bert.embeddings", "bert.encoder.layer.1", "bert.encoder.layer.2"):
        whole.get_submodule(part).register_forward_hook(lambda *_, part=part: calls.append(part))
    behind.classifier.logits(behind.batch([0]))
    assert calls == ["bert.encoder.layer.2"]
    plain.classifier.logits(plain.batch([0]))
    assert calls[1:] == ["bert.embeddings", "bert.encoder.layer.1", "bert.encoder.layer.2"]


def test_where_nothing_is_frozen_the_reason_is_given():
    whole = FAMILIES["bert"].build()
    assert "scope all trains the model from its first layers on" in str(cut(whole, whole.scope("all")))
