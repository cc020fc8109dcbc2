import pytest
import torch
from agreement import agree, close, expected
from layer_models import (
    Gpt2,
    classifier,
    hf_dinov2,
    hf_resnet,
    hf_vit,
    images,
    tokens,
    torchvision_resnet,
    torchvision_vit,
)
from models import loop_gradients, random_directions, split
from torch import Tensor, nn

from influence_core.errors import UserError
from influence_core.gradients.project import project
from influence_core.models.classifier import Batch, Scope

WHOLE = {
    "ResNet of transformers": (hf_resnet, images(9, name="pixel_values", size=12)),
    "ViT of transformers": (hf_vit, images(9, name="pixel_values")),
    "DINOv2 of transformers": (hf_dinov2, images(9, name="pixel_values")),
    "ResNet of torchvision": (torchvision_resnet, images(9, size=16)),
    "ViT of torchvision": (torchvision_vit, images(9)),
    "GPT-2 of transformers": (Gpt2, tokens(9)),
}


@pytest.mark.parametrize("metric", [False, True])
@pytest.mark.parametrize("kind", WHOLE)
def test_whole_models_agree_with_a_loop(kind, metric):
    build, batch = WHOLE[kind]
    agree(classifier(build), batch, size=4, metric=metric)


@pytest.mark.parametrize(
    ("build", "batch"), [(hf_vit, images(70, name="pixel_values")), (torchvision_resnet, images(70, size=16))]
)
def test_batch_size_and_row_order_change_nothing(build, batch):
    model = classifier(build)
    scope = model.scope("all")
    directions = random_directions(model, scope, 2)
    whole = project(model, scope, [batch], directions)
    order = torch.randperm(70, generator=torch.Generator().manual_seed(5))
    mixed = Batch({name: value[order] for name, value in batch.inputs.items()}, batch.labels[order])
    scale = whole.sqnorms.sqrt()[:, None]
    for given, wanted in ((batch, slice(None)), (mixed, order)):
        for size in (7, 64):
            found = project(model, scope, split(given, size), directions)
            torch.testing.assert_close(found.sqnorms, whole.sqnorms[wanted], rtol=1e-10, atol=0)
            torch.testing.assert_close(
                found.dots / scale[wanted], whole.dots[wanted] / scale[wanted], rtol=1e-10, atol=1e-10
            )


class DecoderAsClassifier(nn.Module):
    """T5 read at the decoder's first position."""

    def __init__(self) -> None:
        from transformers import T5Config, T5ForConditionalGeneration

        super().__init__()
        config = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2, dropout_rate=0.1)
        self.t5 = T5ForConditionalGeneration(config)
        self.out = nn.Linear(20, 3)

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor) -> Tensor:
        return self.out(self.t5(input_ids=input_ids, decoder_input_ids=decoder_input_ids).logits[:, 0])


def test_t5_decoder_agrees_and_its_position_bias_is_named():
    model = classifier(DecoderAsClassifier)
    ids = tokens(5).inputs["input_ids"]
    batch = Batch({"input_ids": ids, "decoder_input_ids": ids[:, :2].contiguous()}, tokens(5).labels)
    names = [name for name, _ in model.module.named_parameters()]
    roots = ("t5.decoder.block.1.", "t5.decoder.final_layer_norm.")
    last = Scope("last:1", tuple(name for name in names if name.startswith(roots)), ("t5.decoder.block.1",))
    directions = random_directions(model, last, 3)
    gradients = loop_gradients(model, last, batch)
    found = project(model, last, split(batch, 2), directions)
    close(found, expected(gradients, directions), gradients, directions)
    bias = tuple(name for name in names if "decoder" in name and "relative_attention_bias" in name)
    with pytest.raises(UserError, match=r"'t5\.decoder.*relative_attention_bias'.*\(2, 2\).*batch of 1 rows"):
        project(model, Scope("bias", bias, ("t5.decoder",)), [batch], {})
