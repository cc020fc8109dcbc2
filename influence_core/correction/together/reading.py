"""What a correction of several mispredictions reads after each step."""

from collections.abc import Sequence

import numpy as np
import torch

from influence_core.correction.reading import Retained, evaluated, few_rows
from influence_core.correction.together.setting import Together
from influence_core.events import Reading, SetStep
from influence_core.models.classifier import Parameters
from influence_core.models.prefix import Opened
from influence_core.trajectory.lockstep import Lockstep


class SetReader:
    """Reads the corrected rows, a batch a split, and the retention rows after each step."""

    def __init__(self, together: Together, opened: Opened) -> None:
        self.together, self.opened = together, opened
        self.desired = np.array([member.desired for member in together.members])
        first = together.members[0]
        self.batches = []
        for split in dict.fromkeys(member.split for member in together.members):
            places = [place for place, member in enumerate(together.members) if member.split == split]
            rows = [together.members[place].row for place in places]
            batch = few_rows(first, opened, split, rows, self.desired[places].tolist())
            self.batches.append((places, batch))
        corrected = [batch for _, batch in self.batches]
        self.retained = Retained(first, opened, together.retention_ids, corrected, together.spec.examples)

    def _read(self, parameters: Parameters) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return losses and probabilities of the desired labels, and the predicted class numbers, [n] each."""
        n = len(self.desired)
        losses, probabilities, predicted = np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.int64)
        classifier = self.opened.classifier
        with torch.no_grad():
            for places, batch in self.batches:
                logits = classifier.logits(batch, parameters).double()
                losses[places] = classifier.losses_of(logits, batch.labels).cpu().numpy()
                shares = logits.softmax(1).cpu().numpy()
                probabilities[places] = shares[np.arange(len(places)), self.desired[places]]
                predicted[places] = logits.argmax(1).cpu().numpy()
        return losses, probabilities, predicted

    def read(self, item: Lockstep) -> SetStep:
        """Return what a step shows."""
        own = evaluated(item.parameters, item.optimizer_state)
        losses, probabilities, predicted = self._read(own)
        base = evaluated(item.base_parameters, item.base_optimizer_state)
        _, base_probabilities, base_predicted = self._read(base)
        names = self.together.workspace.label_names
        return SetStep(
            step=item.t,
            flipped=int((predicted == self.desired).sum()),
            examples=[
                Reading(
                    example=member.spec.example,
                    loss=float(losses[place]),
                    probability=float(probabilities[place]),
                    prediction=names[int(predicted[place])],
                    base_probability=float(base_probabilities[place]),
                    base_prediction=names[int(base_predicted[place])],
                )
                for place, member in enumerate(self.together.members)
            ],
            divergence=item.divergence,
            integrated_lr=item.integrated_lr,
            **self.retained.read(own),
        )


def first_flips(steps: Sequence[SetStep], desired: Sequence[str]) -> list[tuple[int | None, int | None]]:
    """Return of each example the first step at which it is predicted as desired, in the run and without correction."""

    def first(place: int, field: str) -> int | None:
        want = desired[place]
        return next((step.step for step in steps if getattr(step.examples[place], field) == want), None)

    return [(first(place, "prediction"), first(place, "base_prediction")) for place in range(len(desired))]
