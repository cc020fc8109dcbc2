import pytest
import torch
from agreement import agree, each_parameter_agrees, expected
from layer_models import Layered, classifier, images, torchvision_resnet
from models import loop_gradients, random_directions, seeded
from torch import nn

from influence_core.gradients.project import project
from influence_core.gradients.rules import conv2d
from influence_core.models.classifier import Batch, Classifier, Scope

CONVOLUTIONS = {
    "plain": nn.Conv2d(3, 4, 3).double(),
    "stride": nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False).double(),
    "uneven": nn.Conv2d(3, 4, (2, 3), stride=(2, 1), padding=(0, 2), dilation=(1, 2)).double(),
    "same": nn.Conv2d(3, 4, (4, 3), padding="same", dilation=(1, 2)).double(),
    "valid": nn.Conv2d(3, 4, 1, padding="valid").double(),
    "reflect": nn.Conv2d(3, 4, 3, padding=2, padding_mode="reflect").double(),
    "circular": nn.Conv2d(3, 4, 3, padding="same", padding_mode="circular").double(),
    "replicate": nn.Conv2d(3, 4, 3, padding=(1, 0), padding_mode="replicate").double(),
    "groups": nn.Conv2d(6, 4, 3, groups=2, padding=1).double(),
    "depthwise": nn.Conv2d(4, 8, 3, groups=4).double(),
    "blocks": nn.Conv2d(8, 16, 3, padding=1).double(),
    "blocks, stride and dilation": nn.Conv2d(8, 8, (3, 2), padding=2, stride=(1, 2), dilation=2).double(),
    "blocks, groups": nn.Conv2d(16, 16, 3, groups=2, padding="same").double(),
    "long": nn.Conv2d(24, 8, 5, padding=1, stride=2).double(),  # longer patches than positions
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("pieces", [False, True])
def test_conv2d(kind, pieces, monkeypatch):
    layer = CONVOLUTIONS[kind]
    if pieces:
        monkeypatch.setattr("influence_core.gradients.rules.factors.CPU_ELEMENTS", 1)
        monkeypatch.setattr("influence_core.gradients.rules.conv2d.ROWS", 2)
        monkeypatch.setattr("influence_core.gradients.rules.conv2d.CHANNELS", 3)
    model = classifier(lambda: Layered(layer.out_channels, layer))
    each_parameter_agrees(model, images(5, channels=layer.in_channels), size=3)


def test_conv2d_forms_gradients_in_both_ways(monkeypatch):
    calls = []
    real = conv2d._patches
    monkeypatch.setattr(conv2d, "_patches", lambda *given: calls.append(1) or real(*given))
    for kind, cut in (
        ("blocks", False),
        ("blocks, stride and dilation", False),
        ("blocks, groups", False),
        ("plain", True),
        ("long", True),
    ):
        layer = CONVOLUTIONS[kind]
        calls.clear()
        project(
            classifier(lambda layer=layer: Layered(layer.out_channels, layer)),
            Scope("layer", ("layers.0.weight",), ("layers",)),
            [images(2, channels=layer.in_channels)],
            {},
        )
        assert bool(calls) == cut, kind


def test_conv2d_never_holds_the_patches_of_a_whole_batch(monkeypatch):
    rows = []
    real = conv2d._patches
    monkeypatch.setattr(conv2d, "_patches", lambda m, padded, p: rows.append(len(padded)) or real(m, padded, p))
    monkeypatch.setattr("influence_core.gradients.rules.factors.CPU_ELEMENTS", 20_000)
    monkeypatch.setattr("influence_core.gradients.rules.conv2d.ROWS", 2)
    layer = CONVOLUTIONS["plain"]  # patches of 27 × 36 elements a row
    agree(classifier(lambda: Layered(4, layer)), images(50), size=50)
    assert max(rows) == 20_000 // (27 * 36)


def test_float32_convolutions_give_float32_products():
    model = Classifier(seeded(torchvision_resnet, dtype=torch.float32), ["a", "b", "c"])
    batch = images(5, size=16)
    batch = Batch({"x": batch.inputs["x"].float()}, batch.labels)
    scope = model.scope("all")
    directions = random_directions(model, scope, 3)
    found = project(model, scope, [batch], directions)
    wanted = expected(loop_gradients(model, scope, batch), directions)
    assert found.dots.dtype == torch.float32
    torch.testing.assert_close(found.sqnorms, wanted.sqnorms, rtol=1e-4, atol=0)
    torch.testing.assert_close(found.dots, wanted.dots, rtol=1e-4, atol=1e-4 * float(wanted.sqnorms.max().sqrt()))
