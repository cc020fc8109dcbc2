"""Small models for the layer rules, each a Classifier of three classes, in float64."""

from collections.abc import Callable

import torch
from models import seeded
from torch import Tensor, nn

from influence_core.models.classifier import Batch, Classifier

CLASSES = 3
SIZE = 8  # pixels a side


def classifier(build: Callable[[], nn.Module], *, seed: int = 0) -> Classifier:
    """A module with every parameter and running statistic off its special value."""

    def moved() -> nn.Module:
        module = build()
        for value in module.parameters():
            value.data += 0.2 * torch.randn_like(value)
        for name, value in module.named_buffers():
            if name.endswith("running_mean"):
                value += 0.3 * torch.randn_like(value)
            if name.endswith("running_var"):
                value *= 0.5 + torch.rand_like(value)
        return module

    return Classifier(seeded(moved, seed=seed), [f"class {index}" for index in range(CLASSES)])


def images(count: int, *, channels: int = 3, size: int = SIZE, name: str = "x", seed: int = 0) -> Batch:
    """Gaussian images {name: [count, channels, size, size]} with random labels."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(count, channels, size, size, generator=generator, dtype=torch.float64)
    return Batch({name: pixels}, torch.randint(0, CLASSES, (count,), generator=generator))


class Layered(nn.Module):
    """Layers on an image, then tanh, then the mean over positions to the classes."""

    def __init__(self, channels: int, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.layers(x)).flatten(2).mean(2))


def hf_resnet() -> nn.Module:
    """Transformers' ResNet: two stages of basic blocks, the second with a stride."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 2], layer_type="basic", num_labels=CLASSES)
    return ResNetForImageClassification(config)


def hf_vit() -> nn.Module:
    """Transformers' ViT: two blocks on four patches and a class token."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        image_size=SIZE,
        patch_size=4,
        num_labels=CLASSES,
        attn_implementation="eager",
    )
    return ViTForImageClassification(config)


def hf_dinov2() -> nn.Module:
    """Transformers' DINOv2: a ViT with layer scale."""
    from transformers import Dinov2Config, Dinov2ForImageClassification

    config = Dinov2Config(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=SIZE,
        patch_size=4,
        num_labels=CLASSES,
        attn_implementation="eager",
        layerscale_value=0.7,
        use_mask_token=False,
    )
    return Dinov2ForImageClassification(config)


def torchvision_resnet() -> nn.Module:
    """Torchvision's ResNet with one basic block a stage, made narrow."""
    from torchvision.models.resnet import BasicBlock, ResNet

    class Narrow(ResNet):
        def __init__(self) -> None:
            super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=CLASSES)
            self.conv1 = nn.Conv2d(3, 4, 7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(4)
            self.inplanes = 4
            for stage, (width, stride) in enumerate([(4, 1), (6, 2), (8, 2), (10, 2)], start=1):
                setattr(self, f"layer{stage}", self._make_layer(BasicBlock, width, 1, stride))
            self.fc = nn.Linear(10, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    return Narrow()


def torchvision_vit() -> nn.Module:
    """Torchvision's ViT: MultiheadAttention, class token and positions held by two modules with children."""
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        image_size=SIZE,
        patch_size=4,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=12,
        num_classes=CLASSES,
    )


class Gpt2(nn.Module):
    """GPT-2's blocks, read at the last token; positions come with the batch."""

    def __init__(self) -> None:
        from transformers import GPT2Config, GPT2Model

        super().__init__()
        config = GPT2Config(
            vocab_size=20, n_positions=8, n_embd=8, n_layer=2, n_head=2, attn_implementation="eager", use_cache=False
        )
        self.body = GPT2Model(config)
        self.out = nn.Linear(8, CLASSES)

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        return self.out(self.body(input_ids=input_ids, position_ids=position_ids).last_hidden_state[:, -1])


def tokens(count: int, *, length: int = 6, vocabulary: int = 20, seed: int = 0) -> Batch:
    """Random token ids and their positions, each [count, length]."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, vocabulary, (count, length), generator=generator)
    positions = torch.arange(length).expand(count, -1).contiguous()
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    return Batch({"input_ids": ids, "position_ids": positions}, labels)
