"""Where a model family keeps its parts, and the scopes that follow from it."""

from dataclasses import dataclass

from torch import nn

from influence_core.errors import UserError
from influence_core.models.classifier import Scope

PIXELS = "pixel_values"
TORCHVISION_RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc")


@dataclass(frozen=True)
class Layout:
    """The modules of a classifier in the order that data passes them, by name as in ``named_modules``."""

    stem: tuple[str, ...]  # before the blocks: embeddings, the first convolution, T5's encoder
    blocks: tuple[str, ...]  # blocks, stages or decoder blocks
    head: tuple[str, ...]  # after the blocks
    entry: str  # the argument of forward by which the hidden states after the stem can be given
    ragged: bool = False  # hidden states are [T, d] with a T for each row, else of one shape
    chained: bool = True  # a block maps one tensor to one (T5's pass on position biases as well)

    def scope(self, module: nn.Module, name: str) -> Scope:
        """Return the scope ``head``, ``last:n`` (n last blocks and the head) or ``all`` (DEFINITIONS, Scope).

        Raises:
            UserError: another name, or more blocks than the model has.
        """
        if name == "all":
            return Scope(name, tuple(parameter for parameter, _ in module.named_parameters()), ("",))
        if name != "head" and not name.startswith("last:"):
            raise UserError(f"scope {name!r} is not one of head, last:n, all: choose one")
        count = 0 if name == "head" else int(name.removeprefix("last:"))
        if count > len(self.blocks):
            raise UserError(
                f"scope {name} asks for {count} blocks, the model has {len(self.blocks)}: use last:{len(self.blocks)}"
            )
        roots = self.blocks[len(self.blocks) - count :] + self.head
        owned = tuple(
            parameter
            for parameter, _ in module.named_parameters()
            if any(parameter.startswith(f"{root}.") for root in roots)
        )
        return Scope(name, owned, roots)


def layout_of(module: nn.Module) -> Layout | None:
    """Return a module's layout, or None for a family that is not known here."""
    kind = getattr(getattr(module, "config", None), "model_type", None)
    if kind in ("bert", "roberta"):
        head = ("bert.pooler", "dropout", "classifier") if kind == "bert" else ("classifier",)
        blocks = _listed(module, f"{kind}.encoder.layer")
        return Layout((f"{kind}.embeddings",), blocks, head, "inputs_embeds", ragged=True)
    if kind == "distilbert":
        head = ("pre_classifier", "dropout", "classifier")
        blocks = _listed(module, "distilbert.transformer.layer")
        return Layout(("distilbert.embeddings",), blocks, head, "inputs_embeds", ragged=True)
    if kind == "vit":
        return Layout(("vit.embeddings",), _listed(module, "vit.layers"), ("vit.layernorm", "classifier"), PIXELS)
    if kind == "resnet":
        blocks = _listed(module, "resnet.encoder.stages")
        return Layout(("resnet.embedder",), blocks, ("resnet.pooler", "classifier"), PIXELS)
    if kind == "t5":
        # lm_head and decoder.embed_tokens are the encoder's table again: trained with scope all only.
        # decoder.dropout acts before the blocks as well as after them, and so is frozen with what is before.
        blocks = _listed(module, "decoder.block")
        stem, head = ("shared", "encoder"), ("decoder.final_layer_norm",)
        return Layout(stem, blocks, head, "encoder_outputs", ragged=True, chained=False)
    if all(hasattr(module, name) for name in TORCHVISION_RESNET):
        names = TORCHVISION_RESNET
        return Layout(names[:4], names[4:8], names[8:], "x")
    return None


def _listed(module: nn.Module, name: str) -> tuple[str, ...]:
    """Return the names of a module list's entries."""
    return tuple(f"{name}.{child}" for child, _ in module.get_submodule(name).named_children())
