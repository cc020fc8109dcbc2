"""Which rows B is made of, and with which labels."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from influence_core.errors import UserError
from influence_core.rankings import Ranking
from influence_core.specs import CorrectionSpec
from influence_core.workspace import Workspace


@dataclass(frozen=True)
class Chosen:
    """The rows of B."""

    numbers: np.ndarray  # [k] training row numbers
    labels: np.ndarray  # [k] int64, the labels that l_B uses


class Strategy(ABC):
    """How a correction picks B (paper, Sec. 6; DEFINITIONS, Correction).

    ``needs_ranking`` says whether `choose` is given a `Ranking` of at least k rows a side. Labels
    chosen here go into l_B alone; they are never label events.
    """

    name: ClassVar[str]
    needs_ranking: ClassVar[bool] = True

    @abstractmethod
    def choose(
        self, workspace: Workspace, spec: CorrectionSpec, predicted: int, desired: int, ranking: Ranking | None
    ) -> Chosen:
        """Return k rows; raises `UserError` when there are fewer."""


def _numbers(workspace: Workspace, ids: list[str]) -> np.ndarray:
    return np.array([workspace.locate(example)[1] for example in ids], dtype=np.int64)


class Proponents(Strategy):
    """The top k proponents, relabelled to the desired label."""

    name = "proponents"

    def choose(
        self, workspace: Workspace, spec: CorrectionSpec, predicted: int, desired: int, ranking: Ranking | None
    ) -> Chosen:
        """See base."""
        assert ranking is not None
        rows = ranking.proponents[: spec.k]
        if len(rows) < spec.k:
            raise UserError(f"k = {spec.k} but only {len(rows)} training rows are proponents: lower k to {len(rows)}")
        return Chosen(_numbers(workspace, [row.id for row in rows]), np.full(spec.k, desired))


class Opponents(Strategy):
    """The top k opponents, with the labels they have."""

    name = "opponents"

    def choose(
        self, workspace: Workspace, spec: CorrectionSpec, predicted: int, desired: int, ranking: Ranking | None
    ) -> Chosen:
        """See base."""
        assert ranking is not None
        rows = ranking.opponents[: spec.k]
        if len(rows) < spec.k:
            raise UserError(f"k = {spec.k} but only {len(rows)} training rows are opponents: lower k to {len(rows)}")
        labels = np.array([workspace.label_index(row.label) for row in rows])
        return Chosen(_numbers(workspace, [row.id for row in rows]), labels)


class Random(Strategy):
    """k seeded random rows labelled as the prediction, set to the desired label: the control."""

    name = "random"
    needs_ranking = False

    def choose(
        self, workspace: Workspace, spec: CorrectionSpec, predicted: int, desired: int, ranking: Ranking | None
    ) -> Chosen:
        """See base."""
        candidates = np.flatnonzero(workspace.labels().values == predicted)
        if len(candidates) < spec.k:
            raise UserError(
                f"k = {spec.k} but only {len(candidates)} training rows are labelled "
                f"{workspace.label_names[predicted]}: lower k to {len(candidates)}"
            )
        drawn = np.random.default_rng(spec.seed).choice(candidates, size=spec.k, replace=False)
        return Chosen(np.sort(drawn), np.full(spec.k, desired))


STRATEGIES: dict[str, Strategy] = {strategy.name: strategy for strategy in (Proponents(), Opponents(), Random())}
