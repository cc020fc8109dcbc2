"""Which rows B is made of, and with which labels."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from influence_core.checks import candidates, check_count, check_ranked
from influence_core.rankings import Ranking
from influence_core.specs import CorrectionSpec
from influence_core.workspace import Workspace


@dataclass(frozen=True)
class Chosen:
    """The rows of B."""

    numbers: np.ndarray  # [k] training row numbers
    labels: np.ndarray  # [k] int64, the labels that l_B uses
    stale: int = 0  # training rows that the ranking scored by labels they no longer have
    proponents_of: str | None = None  # the other misprediction, under ``permuted``
    desired_share: float | None = None  # of chosen opponents: how many carry the desired label


@dataclass(frozen=True)
class Request:
    """What a strategy chooses from."""

    workspace: Workspace
    spec: CorrectionSpec
    predicted: int  # class number
    desired: int
    labels: np.ndarray  # [N] int64, the training labels as they stood
    ranking: Ranking | None  # at least k rows a side, where the strategy needs one
    changed: np.ndarray | None = None  # [N] bool, rows that annotators changed; where given, B is of these alone

    def numbers(self, kind: str) -> np.ndarray:
        """Return the numbers of the first k ranked rows, [k] int64."""
        assert self.ranking is not None
        check_ranked(self.spec, self.ranking, kind)
        rows = candidates(self.spec, self.ranking, kind)
        return np.array([self.workspace.locate(row.id)[1] for row in rows[: self.spec.k]], dtype=np.int64)

    def relabelled(self, numbers: np.ndarray) -> np.ndarray:
        """Return the labels [k] of rows that are set to the desired label, but where annotators have decided theirs."""
        return np.full(len(numbers), self.desired) if self.changed is None else self.labels[numbers]


class Strategy(ABC):
    """How a correction picks B (paper, Sec. 6; DEFINITIONS, Correction).

    Of rows that annotators changed alone (``changed``), up to k are picked, with the annotators' labels.

    ``needs_ranking`` says whether `choose` is given a ranking. Labels chosen here go into l_B alone;
    they are never label events.
    """

    name: ClassVar[str]
    needs_ranking: ClassVar[bool] = True

    @abstractmethod
    def choose(self, request: Request) -> Chosen:
        """Return k rows; raises `UserError` when there are fewer."""


class Proponents(Strategy):
    """The top k proponents, relabelled to the desired label."""

    name = "proponents"

    def choose(self, request: Request) -> Chosen:
        """See base."""
        numbers = request.numbers(Proponents.name)
        return Chosen(numbers, request.relabelled(numbers))


class Permuted(Proponents):
    """Another misprediction's proponents (`partners`): the control that keeps what proponents have in common."""

    name = "permuted"

    def choose(self, request: Request) -> Chosen:
        """See base; the ranking is the other's."""
        assert request.ranking is not None
        return replace(super().choose(request), proponents_of=request.ranking.example)


class Opponents(Strategy):
    """The top k opponents, with the labels they have.

    With more than two classes they need not carry the desired label; the share that does is noted (on CIFAR-10
    it was 54 % and tuning on them had no effect, Sec. 6).
    """

    name = "opponents"

    def choose(self, request: Request) -> Chosen:
        """See base."""
        numbers = request.numbers(self.name)
        labels = request.labels[numbers]
        return Chosen(numbers, labels, desired_share=float((labels == request.desired).mean()))


class Random(Strategy):
    """k seeded random rows labelled as the prediction, set to the desired label: the control."""

    name = "random"
    needs_ranking = False

    def choose(self, request: Request) -> Chosen:
        """See base."""
        spec = request.spec
        wanted = request.labels == request.predicted if request.changed is None else request.changed
        candidates, name = np.flatnonzero(wanted), request.workspace.label_names[request.predicted]
        check_count(spec, len(candidates), f"labelled {name}" if request.changed is None else "among the training rows")
        count = min(spec.k, len(candidates))
        drawn = np.sort(np.random.default_rng(spec.seed).choice(candidates, size=count, replace=False))
        return Chosen(drawn, request.relabelled(drawn))


STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy for strategy in (Proponents(), Opponents(), Random(), Permuted())
}
