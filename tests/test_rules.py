import subprocess
import sys

import pytest
import torch
from agreement import agree, each_parameter_agrees
from layer_models import Layered, classifier, hf_vit, images, torchvision_vit
from models import vector_batch
from torch import Tensor, nn

from influence_core.errors import UserError
from influence_core.gradients.project import project
from influence_core.gradients.rules import linear
from influence_core.gradients.rules.linear import LinearWeight


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, eps=0.3),
        nn.GroupNorm(2, 4),
        nn.GroupNorm(4, 4, eps=0.2),
        nn.GroupNorm(1, 4),
    ],
    ids=str,
)
def test_norms_by_channel(norm):
    def build() -> nn.Module:
        return Layered(4, nn.Conv2d(3, 4, 3, bias=False), norm.double(), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3))

    each_parameter_agrees(classifier(build), images(5))


class Flat(nn.Module):
    """Linear, one layer on x [B, 4] (seen through ``shape``), and Linear to the classes."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...], *, twice: bool = False) -> None:
        super().__init__()
        self.first, self.layer, self.out = nn.Linear(4, 12), layer, nn.Linear(12, 3)
        self.shape, self.twice = shape, twice

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).view(len(x), *self.shape)
        x = torch.tanh(self.layer(x))
        if self.twice:
            x = torch.tanh(self.layer(x) + 0.3)
        return self.out(x.flatten(1))


@pytest.mark.parametrize(
    ("norm", "shape"),
    [(nn.BatchNorm1d(12), (12,)), (nn.BatchNorm1d(3), (3, 4)), (nn.BatchNorm3d(3), (3, 2, 1, 2))],
    ids=str,
)
def test_batchnorm_of_other_dimensions(norm, shape):
    each_parameter_agrees(classifier(lambda: Flat(norm.double(), shape)), vector_batch(5))


@pytest.mark.parametrize("affine", [False, True])
def test_batchnorm_without_running_statistics_is_refused(affine):
    model = classifier(lambda: Flat(nn.BatchNorm1d(12, affine=affine, track_running_stats=False), (12,)))
    with pytest.raises(UserError, match=r"'layer' \(BatchNorm1d\) has track_running_stats=False.*running statistics"):
        project(model, model.scope("all"), [vector_batch(3)], {})


def scales() -> dict[str, nn.Module]:
    from transformers.models.dinov2.modeling_dinov2 import Dinov2Config, Dinov2LayerScale
    from transformers.models.llama.modeling_llama import LlamaRMSNorm
    from transformers.models.t5.modeling_t5 import T5LayerNorm

    return {
        "RMSNorm": nn.RMSNorm(4),
        "RMSNorm of two dimensions": nn.RMSNorm((3, 4), eps=0.1),
        "T5LayerNorm": T5LayerNorm(4, eps=0.01),
        "LlamaRMSNorm": LlamaRMSNorm(4),
        "Dinov2LayerScale": Dinov2LayerScale(Dinov2Config(hidden_size=4, layerscale_value=0.4)),
    }


@pytest.mark.parametrize("kind", scales())
def test_scales(kind):
    each_parameter_agrees(classifier(lambda: Flat(scales()[kind], (3, 4), twice=True)), vector_batch(5))


def test_conv1d_of_transformers():
    from transformers.pytorch_utils import Conv1D

    each_parameter_agrees(classifier(lambda: Flat(Conv1D(4, 4), (3, 4))), vector_batch(5))


class Tied(nn.Module):
    """One square weight in a Linear and in a Conv1D (which transposes it), one kernel in two convolutions."""

    def __init__(self) -> None:
        from transformers.pytorch_utils import Conv1D

        super().__init__()
        self.wide, self.same = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=2, dilation=2)
        self.same.weight = self.wide.weight
        self.one, self.two = nn.Linear(3, 3), Conv1D(3, 3)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.wide(torch.tanh(self.same(torch.tanh(self.wide(x))))))
        return self.two(torch.tanh(self.one(x.flatten(2).mT))).mean(1)


@pytest.mark.parametrize("metric", [False, True])
def test_weights_used_several_times_have_their_cross_terms(metric):
    model, batch = classifier(Tied), images(5, size=6)
    agree(model, batch, size=2, metric=metric)
    each_parameter_agrees(model, batch)


@pytest.mark.parametrize("build", [hf_vit, torchvision_vit])
def test_modules_that_hold_parameters_are_in_eval_and_keep_their_mode(build):
    model, batch = classifier(build), images(3, name="pixel_values" if build is hf_vit else "x")
    for part in model.module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.5
    model.module.train()
    agree(model, batch)
    assert all(part.training for part in model.module.modules())


class Token(nn.Module):
    """Holds a token and a child; the mask would have to be mapped over rows too."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.child = nn.Parameter(torch.ones(4)), nn.Linear(4, 3)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, None]:
        return self.child(torch.tanh(x * self.token if mask is None else x * mask)), None


class Masked(nn.Module):
    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.inner, self.masked = Token(), masked

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, mask=x > 0 if self.masked else None)[0]


def test_a_held_parameter_of_a_module_that_returns_a_tuple():
    each_parameter_agrees(classifier(lambda: Masked(False)), vector_batch(5))


def test_a_user_hook_on_a_module_that_holds_a_parameter_is_part_of_the_model():
    model = classifier(lambda: Masked(False))
    model.module.inner.register_forward_hook(lambda module, args, output: (2 * output[0].sin(), None))
    agree(model, vector_batch(5))


def test_a_module_of_several_tensors_is_refused():
    model = classifier(lambda: Masked(True))
    with pytest.raises(UserError, match=r"'inner' \(Token\) does not map one tensor to one"):
        project(model, model.scope("all"), [vector_batch(3)], {})


class Leaf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(12))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_a_leaf_of_unknown_type_is_an_error_that_says_how_to_add_a_rule():
    model = classifier(lambda: Flat(Leaf(), (12,)))
    wanted = r"'layer' is a .*Leaf.*known: .*T5LayerNorm.*rules/leaf.py.*@register\(Leaf\)"
    with pytest.raises(UserError, match=wanted):
        project(model, model.scope("all"), [vector_batch(3)], {})


def test_multihead_attention_with_other_options_is_refused():
    class Attended(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.out = nn.MultiheadAttention(4, 2, batch_first=True, add_zero_attn=True), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = x[:, None] * torch.arange(1, 4, dtype=x.dtype)[:, None]
            return self.out(self.mix(x, x, x, need_weights=False)[0].mean(1))

    model = classifier(Attended)
    with pytest.raises(UserError, match="add_zero_attn"):
        project(model, model.scope("all"), [vector_batch(3)], {})


@pytest.mark.parametrize("kept", [0, 1, 3])
@pytest.mark.parametrize("rule", [linear.linear, linear.conv1d])
def test_positions_without_a_gradient_are_left_out(kept, rule):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4, 6, n, generator=generator, dtype=torch.float64) for n in (5, 2))
    b[:, kept:] = 0
    b[-1] = 0  # whatever the row that is looked at first says
    factor = rule(nn.Linear(5, 2), a, b)["weight"]
    assert isinstance(factor, LinearWeight)
    assert factor.positions == kept
    full = torch.einsum("bto,bti->boi", b, a)
    full = full.mT if rule is linear.conv1d else full
    directions = torch.randn(3, *full.shape[1:], generator=generator, dtype=torch.float64)
    for metric in (None, directions[0].abs()):
        dots, sqnorms = factor.products(directions, metric)
        torch.testing.assert_close(dots, torch.einsum("boi,koi->bk", full, directions), rtol=1e-10, atol=1e-12)
        weighted = full if metric is None else full * metric
        torch.testing.assert_close(sqnorms, (full * weighted).sum((1, 2)), rtol=1e-10, atol=1e-14)


def test_rules_know_transformers_types_without_importing_them():
    code = (
        "import sys, influence_core.gradients.project; "
        "assert not {'transformers', 'torchvision'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_registered_names_of_transformers_exist():
    from importlib import import_module

    from influence_core.gradients.rules.registry import _rules

    for name in (key for key in _rules if isinstance(key, str)):
        module, _, kind = name.rpartition(".")
        assert issubclass(getattr(import_module(module), kind), nn.Module), name
