"""Specs of predictions, indexes and rankings."""

import operator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from influence_core.specs.base import Attributed, Order, Scoped, Spec, Split


class PredictSpec(Spec):
    """Predict one split of a workspace with one of its checkpoints."""

    kind: Literal["predict"] = "predict"
    split: Split = "test"


class Solved(Scoped):
    """A spec whose work begins with the Hessian's eigenpairs."""

    k: Annotated[int, Field(ge=1, le=512)] = 32
    iterations: Annotated[int, Field(ge=1, le=2048)] = 64

    @model_validator(mode="after")
    def _enough_iterations(self) -> Self:
        if self.k > self.iterations:
            raise ValueError(f"k = {self.k} needs at least as many iterations, got {self.iterations}: raise iterations")
        return self


class IndexSpec(Solved):
    """Build the ABIF index: eigenpairs of the Hessian, then every training row's products."""

    kind: Literal["index"] = "index"
    hessian_rows: Annotated[int, Field(ge=1)] | None = None  # None: 256, or all rows where there are fewer
    seed: Annotated[int, Field(ge=0)] = 0
    rebuild: bool = False  # start over, with the labels that stand now


class RankSpec(Attributed):
    """Rank the training rows for one test row."""

    kind: Literal["rank"] = "rank"
    example: str
    target: str = "predicted"  # predicted, gold, or a label's name
    by: Order = "cosine"
    top: Annotated[int, Field(ge=1, le=100_000)] = 50
    refresh: bool = False  # re-project training rows relabelled since the products were made
    only_annotated: Annotated[bool, Field(exclude_if=operator.not_)] = False  # rows whose label annotators changed


class ExplainSpec(Attributed):
    """Compute what the rankings of many test rows need, many at a time: by default of all mispredictions."""

    kind: Literal["explain"] = "explain"
    split: Split = "test"
    examples: tuple[str, ...] = ()  # empty: every misprediction of the split
    target: str = "predicted"


class SuspectsSpec(Attributed):
    """Rank the training rows by their influence on themselves (DEFINITIONS, Self-influence)."""

    kind: Literal["suspects"] = "suspects"
    top: Annotated[int, Field(ge=1, le=100_000)] = 50
    refresh: bool = False  # re-project training rows relabelled since the products were made
