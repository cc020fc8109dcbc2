"""The table of the retraining study: what became of each misprediction, and of accuracy, beside the control's."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from influence_core.studies.cases import Case
from influence_core.studies.intervals import mean, paired_share, wilson


@dataclass(frozen=True)
class Outcome:
    """What one set of test probabilities says."""

    probabilities: np.ndarray  # [T, C]
    truth: np.ndarray  # [T]

    @property
    def predictions(self) -> np.ndarray:
        """Class numbers, [T]."""
        found: np.ndarray = self.probabilities.argmax(1)
        return found

    @property
    def accuracy(self) -> float:
        """Share of right predictions."""
        return float((self.predictions == self.truth).mean())

    def flipped(self, case: Case) -> bool:
        """Whether the desired label is predicted."""
        return int(self.predictions[case.row]) == case.desired

    def probability(self, case: Case) -> float:
        """Probability of the desired label."""
        return float(self.probabilities[case.row, case.desired])

    def retention(self, before: "Outcome", rows: np.ndarray) -> float:
        """Share of the retention rows [n] predicted as before; 1 where there are none."""
        return float((self.predictions[rows] == before.predictions[rows]).mean()) if len(rows) else 1.0


@dataclass(frozen=True)
class Retrained:
    """One misprediction with the relabels that were meant for it, and what a training with them gave."""

    case: Case
    strategy: str
    relabelled: int  # training rows whose label differs from the control's for this misprediction's sake
    retained: np.ndarray  # [n] test rows that should keep their prediction
    outcome: Outcome


def row(each: Retrained, before: Outcome, control: Outcome, names: Sequence[str]) -> dict[str, Any]:
    """Return one line: ``before`` is the checkpoint, ``control`` the same training with no label changed."""
    at = {"before": before, "control": control, "after": each.outcome}
    return {
        "example": each.case.example,
        "strategy": each.strategy,
        "predicted": names[each.case.predicted],
        "desired": names[each.case.desired],
        "relabelled": each.relabelled,
        "flipped": each.outcome.flipped(each.case),
        "by_itself": control.flipped(each.case),
        "probability": {name: own.probability(each.case) for name, own in at.items()},
        "accuracy": {name: own.accuracy for name, own in at.items()},
        "retention": {name: own.retention(before, each.retained) for name, own in at.items() if name != "before"},
    }


def summary(
    strategy: str,
    done: Sequence[Retrained],
    skipped: Sequence[str],
    before: Outcome,
    control: Outcome,
    others: Sequence[Outcome],
) -> dict[str, Any]:
    """Return one strategy's line; intervals as `correction_table.cell_row`'s, over trainings for accuracy.

    ``others`` are controls with other seeds: ``by_seeds`` is how often these mispredictions flip in them.
    """
    cases = [each.case for each in done]
    flips = np.array([[each.outcome.flipped(each.case), control.flipped(each.case)] for each in done], dtype=bool)
    flips = flips.reshape(len(done), 2)
    chance = [other.flipped(case) for other in others for case in cases]
    own = {id(each.outcome): each.outcome.accuracy for each in done}  # one training may be of several mispredictions
    kept = [(each.outcome.retention(before, each.retained), control.retention(before, each.retained)) for each in done]
    moved = [(each.outcome.probability(each.case), control.probability(each.case)) for each in done]
    return {
        "strategy": strategy,
        "mispredictions": len(done),
        "skipped": dict(Counter(skipped)),
        "relabelled": mean(np.array([each.relabelled for each in done], dtype=float)).as_json(),
        "flipped": wilson(int(flips[:, 0].sum()), len(done)).as_json(),
        "by_itself": wilson(int(flips[:, 1].sum()), len(done)).as_json(),
        "by_seeds": wilson(sum(chance), len(chance)).as_json(),
        "against_control": paired_share(flips[:, 0], flips[:, 1]).as_json(),
        "probability": mean(np.array([after for after, _ in moved])).as_json(),
        "probability_change": mean(np.array([after - without for after, without in moved])).as_json(),
        "trainings": len(own),
        "accuracy": mean(np.array(list(own.values()))).as_json(),
        "accuracy_change": mean(np.array(list(own.values())) - control.accuracy).as_json(),
        "retention": mean(np.array([after for after, _ in kept])).as_json(),
        "control_retention": mean(np.array([without for _, without in kept])).as_json(),
    }


def accuracies(before: Outcome, control: Outcome, others: Mapping[int, Outcome]) -> dict[str, Any]:
    """Return test accuracies without relabels: of the checkpoint, of the control, and of it with other seeds."""
    return {
        "checkpoint": before.accuracy,
        "control": control.accuracy,
        "seeds": [{"seed": seed, "accuracy": own.accuracy} for seed, own in others.items()],
    }
