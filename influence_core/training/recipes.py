"""Training recipes: hyper-parameters from which a checkpoint follows, the paper's (App. J) and the demos'. No torch."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from influence_core.errors import UserError
from influence_core.preparation import Kind, Preparation
from influence_core.specs import Split

Schedule = Literal["none", "linear", "cosine", "warmup-cosine"]
Augmentation = Literal["none", "crop-flip"]


@dataclass(frozen=True)
class Recipe:
    """What a training does; with its data, base and machine it fixes the weights bit by bit.

    ``base`` is a hub name, or an architecture of `bases.SCRATCH` that starts at random. Raises
    `UserError` for a value that no training can have.
    """

    name: str
    learning_rate: float  # the schedule's largest
    batch_size: int
    base: str = ""
    data: str = ""  # hub name, or a demo's
    kind: Kind = "text"
    epochs: int | None = None  # or
    steps: int | None = None
    scope: str = "all"
    optimizer: Literal["adam", "sgd"] = "adam"
    momentum: float = 0.0  # SGD only
    weight_decay: float = 0.0  # l2 added to the gradient, unless
    decoupled: bool = False  # parameters shrink by η·weight_decay (AdamW)
    schedule: Schedule = "none"
    augmentation: Augmentation = "none"
    max_length: int | None = None  # tokens
    prefix: str = ""  # before every text
    label_words: tuple[str, ...] = ()  # seq2seq, in order of the classes
    test: str | None = None  # the data's own name of the split that is held out, where it is not "test"
    evaluated: Split = "validation"  # where accuracy is measured and checkpoints are chosen
    keep_epochs: tuple[int, ...] = ()  # written as OUT/epoch-<n> as well
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no training can have."""
        if (self.epochs is None) == (self.steps is None):
            raise UserError(f"recipe {self.name}: give epochs or steps, one of the two")
        for field in ("learning_rate", "batch_size", "epochs", "steps"):
            value = getattr(self, field)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UserError(f"recipe {self.name}: {field} = {value}, give more than 0")
        if self.decoupled and self.optimizer == "sgd":
            raise UserError(f"recipe {self.name}: decoupled decay goes with adam, for sgd give coupled weight_decay")

    @property
    def preparation(self) -> Preparation:
        """How its inputs are prepared, as the checkpoint's manifest records it."""
        return Preparation(max_length=self.max_length, prefix=self.prefix, label_words=self.label_words)

    def as_json(self) -> dict[str, Any]:
        """Return all fields, as JSON gives them back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def total(self, per_epoch: int) -> int:
        """Return the number of steps, where an epoch has so many batches."""
        return self.steps if self.steps is not None else (self.epochs or 0) * per_epoch

    def rate(self, step: int, per_epoch: int) -> float:
        """Return η of a step, counted from 0. Warm-up is linear over the first epoch."""
        total, warm = self.total(per_epoch), per_epoch if self.schedule == "warmup-cosine" else 0
        if self.schedule == "none":
            return self.learning_rate
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        share = (step - warm) / max(1, total - warm)
        if self.schedule == "linear":
            return self.learning_rate * (1 - share)
        return self.learning_rate * (1 + math.cos(math.pi * share)) / 2


_ALL = (
    Recipe(  # paper, Table 4; J.1 chooses by validation accuracy every 500 steps
        name="bert-sst2",
        data="stanfordnlp/sst2",
        test="validation",  # the hub's test rows have no labels
        evaluated="test",
        base="google-bert/bert-base-uncased",
        batch_size=128,
        steps=35_000,
        learning_rate=1e-5,
        weight_decay=5e-6,
    ),
    Recipe(  # paper, Table 5
        name="t5-sst2",
        data="stanfordnlp/sst2",
        test="validation",
        evaluated="test",
        base="google-t5/t5-small",
        kind="seq2seq",
        batch_size=16,
        max_length=128,
        epochs=4,
        learning_rate=1e-4,
        prefix="sst2 sentence: ",
        label_words=("negative", "positive"),
        keep_epochs=(4,),  # J.1's choice
    ),
    Recipe(  # paper, Table 3
        name="resnet-cifar10",
        data="uoft-cs/cifar10",
        kind="image",
        evaluated="test",
        augmentation="crop-flip",
        base="resnet18-cifar",
        optimizer="sgd",
        batch_size=128,
        epochs=200,
        learning_rate=0.1,
        schedule="cosine",
        weight_decay=1e-4,
        keep_epochs=(10,),  # J.2's choice
    ),
    Recipe(  # paper, Table 6
        name="vit-cifar10",
        data="uoft-cs/cifar10",
        kind="image",
        evaluated="test",
        augmentation="crop-flip",
        base="google/vit-base-patch16-224",
        optimizer="sgd",
        batch_size=128,
        epochs=300,
        learning_rate=1e-3,
        schedule="warmup-cosine",
    ),
    Recipe(
        name="fashion-mnist-resnet",
        data="demo:fashion-mnist",
        kind="image",
        base="small-resnet",
        batch_size=64,
        epochs=20,
        learning_rate=2e-3,
        weight_decay=0.05,
        decoupled=True,
        schedule="cosine",
        augmentation="crop-flip",
    ),
    Recipe(
        name="fashion-mnist-vit",
        data="demo:fashion-mnist",
        kind="image",
        base="small-vit",
        batch_size=64,
        epochs=15,
        learning_rate=1e-3,
        weight_decay=0.05,
        decoupled=True,
        schedule="warmup-cosine",
    ),
)
RECIPES = {recipe.name: recipe for recipe in _ALL}


def find(name: str) -> Recipe:
    """Return a recipe by name."""
    if name not in RECIPES:
        raise UserError(f"there is no recipe {name!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]
