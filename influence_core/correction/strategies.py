"""Which rows B is made of, and with which labels."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from influence_core.checks import check_count
from influence_core.rankings import Ranking
from influence_core.specs import CorrectionSpec
from influence_core.workspace import Workspace


@dataclass(frozen=True)
class Chosen:
    """The rows of B."""

    numbers: np.ndarray  # [k] training row numbers
    labels: np.ndarray  # [k] int64, the labels that l_B uses
    stale: int = 0  # training rows that the ranking scored by labels they no longer have


class Strategy(ABC):
    """How a correction picks B (paper, Sec. 6; DEFINITIONS, Correction).

    ``needs_ranking`` says whether `choose` is given a `Ranking` of at least k rows a side. Labels
    chosen here go into l_B alone; they are never label events.
    """

    name: ClassVar[str]
    needs_ranking: ClassVar[bool] = True

    @abstractmethod
    def choose(
        self,
        workspace: Workspace,
        spec: CorrectionSpec,
        predicted: int,
        desired: int,
        ranking: Ranking | None,
        labels: np.ndarray,
    ) -> Chosen:
        """Return k rows; ``labels`` [N] are the training labels as they stood.

        Raises `UserError` when there are fewer.
        """


def _numbers(workspace: Workspace, ids: list[str]) -> np.ndarray:
    return np.array([workspace.locate(example)[1] for example in ids], dtype=np.int64)


class Proponents(Strategy):
    """The top k proponents, relabelled to the desired label."""

    name = "proponents"

    def choose(
        self,
        workspace: Workspace,
        spec: CorrectionSpec,
        predicted: int,
        desired: int,
        ranking: Ranking | None,
        labels: np.ndarray,
    ) -> Chosen:
        """See base."""
        assert ranking is not None
        rows = ranking.proponents[: spec.k]
        check_count(spec, len(rows), self.name)
        return Chosen(_numbers(workspace, [row.id for row in rows]), np.full(spec.k, desired))


class Opponents(Strategy):
    """The top k opponents, with the labels they have."""

    name = "opponents"

    def choose(
        self,
        workspace: Workspace,
        spec: CorrectionSpec,
        predicted: int,
        desired: int,
        ranking: Ranking | None,
        labels: np.ndarray,
    ) -> Chosen:
        """See base."""
        assert ranking is not None
        rows = ranking.opponents[: spec.k]
        check_count(spec, len(rows), self.name)
        numbers = _numbers(workspace, [row.id for row in rows])
        return Chosen(numbers, labels[numbers])


class Random(Strategy):
    """k seeded random rows labelled as the prediction, set to the desired label: the control."""

    name = "random"
    needs_ranking = False

    def choose(
        self,
        workspace: Workspace,
        spec: CorrectionSpec,
        predicted: int,
        desired: int,
        ranking: Ranking | None,
        labels: np.ndarray,
    ) -> Chosen:
        """See base."""
        candidates = np.flatnonzero(labels == predicted)
        check_count(spec, len(candidates), f"labelled {workspace.label_names[predicted]}")
        drawn = np.random.default_rng(spec.seed).choice(candidates, size=spec.k, replace=False)
        return Chosen(np.sort(drawn), np.full(spec.k, desired))


STRATEGIES: dict[str, Strategy] = {strategy.name: strategy for strategy in (Proponents(), Opponents(), Random())}
