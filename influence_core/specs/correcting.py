"""The spec of a correction."""

import operator
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from influence_core.specs.base import Attributed, Order, Strategy

MOST_TOGETHER = 200  # examples of one run
MOST_STEPS = 1000
GROUPS_KEY = r"[0-9a-f]{16}"  # what names a kept table of groups


def _unsaid(value: float | str | None) -> bool:
    return value is None


def _in_eval(value: str) -> bool:
    return value == "eval"


def _kept(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(GROUPS_KEY, value):
        raise ValueError(f"groups {value[:40]!r} is no key of kept groups: give the key that keep_groups returned")
    return value


class Correcting(Attributed):
    """What corrections of one misprediction and of several have in common: B, the training, and when to stop.

    The weight of B is given as ``epsilon`` or as ``share`` s = ε / (1 + ε); neither means the
    share k / (k + batch_size), "no up-sampling". The run ends ``after_flip`` steps after the flip, where
    retention falls below ``min_retention`` or the validation loss rises above ``max_validation_loss``
    if these are given, or after ``steps``. Where ``only_annotated`` leaves fewer than k rows, B is smaller.
    """

    strategy: Strategy = "proponents"
    by: Order = "cosine"
    desired: str = "gold"
    target: str = "predicted"
    k: Annotated[int, Field(ge=1)] = 12
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    epsilon: Annotated[float, Field(ge=0, le=1e6)] | None = None
    share: Annotated[float, Field(ge=0, lt=1)] | None = None
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] = 50
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    optimizer: Literal["checkpoint", "sgd", "adam"] = "checkpoint"
    optimizer_state: Literal["checkpoint", "warm", "zeros"] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    after_flip: Annotated[int, Field(ge=0)] = 0
    # what follows is unsaid where it is off, as in older manifests
    min_retention: Annotated[float | None, Field(gt=0, le=1, exclude_if=_unsaid)] = None
    max_validation_loss: Annotated[float | None, Field(gt=0, exclude_if=_unsaid)] = None  # nats, mean over rows
    only_annotated: Annotated[bool, Field(exclude_if=operator.not_)] = False  # B: rows whose label annotators changed
    annotated_loss: Annotated[bool, Field(exclude_if=operator.not_)] = False  # L too has the annotators' labels
    dropout: Annotated[bool, Field(exclude_if=operator.truth)] = True
    batchnorm: Annotated[Literal["eval", "train"], Field(exclude_if=_in_eval)] = "eval"
    # also say at each step what influence predicts (Eq. 6, Eq. 2)
    predict: Annotated[bool, Field(exclude_if=operator.not_)] = False

    @model_validator(mode="after")
    def _one_weight(self) -> Self:
        if self.epsilon is not None and self.share is not None:
            raise ValueError(f"give epsilon ({self.epsilon}) or share ({self.share}), not both")
        if self.predict and self.batchnorm == "train":
            raise ValueError("predict with batchnorm = train: what influence predicts is not read there, give one")
        return self

    @property
    def weight(self) -> float:
        """The weight ε of l_B in L + ε·l_B, for k rows."""
        return self.weight_of(self.k)

    def weight_of(self, rows: int) -> float:
        """Return the weight ε of l_B for so many rows."""
        if self.epsilon is not None:
            return self.epsilon
        share = rows / (rows + self.batch_size) if self.share is None else self.share
        return share / (1 - share)


class CorrectionSpec(Correcting):
    """Fine-tune a few steps on L + ε·l_B and watch one misprediction (paper, Sec. 6)."""

    kind: Literal["correct"] = "correct"
    example: str


class CorrectionSetSpec(Correcting):
    """Correct several mispredictions together: one perturbation with a group of rows for each (Q > 1).

    The strategy picks k rows for each example. ``group_by`` says what a group l_{B_q} is: the rows of one
    example, of all, of one confusion cell (prediction and desired label), of one annotator, or ``given``: of
    what a table says of each training row, such as a slice or the source of a data mixture; ``groups`` is its
    key (`influence_core.groups`). The groups' weights sum to ``epsilon``, or to s / (1 − s) of ``share``, in
    proportion to their rows, with ``even_groups`` in equal parts, unless ``epsilons`` gives each its own;
    without any, every row counts as one of the batch. The run ends when all have flipped (``after_flip``
    steps later), or by the other rules of a correction.
    """

    kind: Literal["correct-set"] = "correct-set"
    examples: Annotated[tuple[str, ...], Field(min_length=2, max_length=MOST_TOGETHER)]
    group_by: Literal["example", "all", "cell", "annotator", "given"] = "example"
    groups: Annotated[str | None, AfterValidator(_kept), Field(exclude_if=_unsaid)] = None
    epsilons: tuple[Annotated[float, Field(ge=0, le=1e6)], ...] = ()
    even_groups: Annotated[bool, Field(exclude_if=operator.not_)] = False

    @model_validator(mode="after")
    def _a_set(self) -> Self:
        if again := sorted({example for example in self.examples if self.examples.count(example) > 1}):
            raise ValueError(f"example {again[0]!r} is given twice: give each once")
        if self.epsilons and not (self.epsilon is None and self.share is None):
            raise ValueError("give epsilons, or epsilon or share for all groups together, not both")
        if self.epsilons and self.even_groups:
            raise ValueError("give epsilons, or even_groups, which makes them equal, not both")
        if (self.group_by == "given") != (self.groups is not None):
            raise ValueError("group_by = given and groups (which table gives them) go together: give both, or neither")
        if self.predict:
            raise ValueError("predict follows one example: leave it out for several")
        return self

    def alone(self, example: str) -> CorrectionSpec:
        """Return the same correction of one of the examples by itself, from which its rows are chosen."""
        shared = {name: getattr(self, name) for name in Correcting.model_fields}
        return CorrectionSpec(**shared, example=example)


AnyCorrection = CorrectionSpec | CorrectionSetSpec
