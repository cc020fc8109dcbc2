"""What a correction reads after each step: the corrected row, the retention rows, and what influence predicted."""

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from influence_core.correction.halves import nearest_half
from influence_core.correction.predicting import predictions, slopes_of
from influence_core.correction.setting import Setting
from influence_core.events import Step
from influence_core.models.classifier import Batch, Parameters
from influence_core.models.loading import rows_of
from influence_core.models.predict import logits_and_features
from influence_core.models.prefix import Opened
from influence_core.models.suffix import Suffix
from influence_core.specs import Split
from influence_core.trajectory.lockstep import Lockstep
from influence_core.trajectory.optimizers import OptimizerState
from influence_core.trajectory.tangent import Tangents
from influence_core.validation import validation_rows


def few_rows(setting: Setting, opened: Opened, split: Split, rows: list[int], labels: list[int] | None = None) -> Batch:
    """Return a few rows for the classifier that trains, from behind the frozen prefix where there is one."""
    plain = rows_of(setting.workspace, opened.whole, split).batch(rows, labels)
    suffix = opened.classifier
    if not isinstance(suffix, Suffix):
        return plain
    return suffix.collate([output.numpy() for output in suffix.prefix(plain)], plain.labels.cpu().numpy())


def evaluated(parameters: Parameters, state: OptimizerState) -> Parameters:
    """Return what a forward pass in eval mode depends on: parameters, and running statistics where they moved."""
    return {**parameters, **state.buffers}


class Retained:
    """Reads after each step the rows whose predictions should stay, and the validation loss where it may end a run.

    The first reading is of step 0, which the later ones are compared with: nothing differs there, so its forward
    pass waits until the second, and a run's first point is there the earlier. That pass also says which half of
    the rows is near those ``corrected``, by the model's features before the correction.
    """

    def __init__(
        self,
        setting: Setting,
        opened: Opened,
        ids: list[str],
        corrected: Sequence[Batch],
        examples: Collection[str],
    ) -> None:
        self.setting, self.opened, self.ids, self.corrected = setting, opened, ids, corrected
        self.start: Parameters | None = None
        self.validation: Batch | None = None
        if setting.spec.max_validation_loss is not None:
            self.validation = few_rows(setting, opened, "validation", validation_rows(setting.workspace, examples))

    @cached_property
    def batch(self) -> Batch | None:
        """The rows; None where there are none."""
        numbers = [self.setting.workspace.locate(example)[1] for example in self.ids]
        return few_rows(self.setting, self.opened, "test", numbers) if numbers else None

    @cached_property
    def first(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Of the first reading the predictions [n], and which rows are near [n], where there are two or more."""
        assert self.start is not None
        if self.batch is None or len(self.ids) < 2:
            return self._predictions(self.start), None
        classifier, batches = self.opened.classifier, (self.batch, *self.corrected)
        with torch.no_grad():
            read = [logits_and_features(classifier, batch, self.start) for batch in batches]
        rows, *corrected = (features.double().cpu().numpy() for _, features in read)
        return read[0][0].argmax(1).cpu().numpy(), nearest_half(rows, np.concatenate(corrected))

    @property
    def near_ids(self) -> list[str] | None:
        """The half of the rows most similar to those corrected; None where there are not two, or none was read again.

        It computes nothing, as it is asked for while a run ends, however it ends.
        """
        near = self.first[1] if "first" in vars(self) else None
        return None if near is None else [example for example, own in zip(self.ids, near, strict=True) if own]

    def _predictions(self, parameters: Parameters) -> np.ndarray:
        if self.batch is None:
            return np.zeros(0, dtype=np.int64)
        with torch.no_grad():
            return self.opened.classifier.logits(self.batch, parameters).argmax(1).cpu().numpy()

    def read(self, parameters: Parameters) -> dict[str, Any]:
        """Return the fields of a `Step` that are about these rows."""
        if self.start is None:
            self.start, differs = parameters, np.zeros(len(self.ids), dtype=bool)
        else:
            differs = self._predictions(parameters) != self.first[0]
        changed = [example for example, other in zip(self.ids, differs, strict=True) if other]
        return {
            "retention": 1 - len(changed) / max(1, len(self.ids)),
            "changed": changed,
            "validation_loss": self._validation_loss(parameters),
            **self._halves(differs),
        }

    def _validation_loss(self, parameters: Parameters) -> float | None:
        if self.validation is None:
            return None
        with torch.no_grad():
            return float(self.opened.classifier.losses(self.validation, parameters).double().mean())

    def _halves(self, differs: np.ndarray) -> dict[str, float]:
        """Return retention of the near rows and of the others, from which differ [n]."""
        if len(differs) < 2:
            return {}
        if not differs.any():  # as at step 0, whose pass is not made yet
            return {"near_retention": 1.0, "far_retention": 1.0}
        _, near = self.first
        assert near is not None
        return {"near_retention": float(1 - differs[near].mean()), "far_retention": float(1 - differs[~near].mean())}


class Reader:
    """Reads the corrected row and the retention rows after each step."""

    def __init__(self, setting: Setting, opened: Opened, epsilon: float) -> None:
        self.setting, self.opened, self.epsilon = setting, opened, epsilon
        self.target = few_rows(setting, opened, setting.split, [setting.row], [setting.desired])
        self.retained = Retained(setting, opened, setting.retention_ids, [self.target], [setting.spec.example])

    def _target(self, parameters: Parameters) -> tuple[float, float, str]:
        """Return loss (as the classifier defines it) and probability of the desired label, and the prediction."""
        classifier, desired = self.opened.classifier, self.setting.desired
        with torch.no_grad():
            logits: Tensor = classifier.logits(self.target, parameters).double()
            loss = classifier.losses_of(logits, self.target.labels)
        name = self.setting.workspace.label_names[int(logits[0].argmax())]
        return float(loss), float(logits[0].softmax(0)[desired]), name

    def read(self, item: Lockstep, tangents: Tangents | None = None) -> Step:
        """Return what a step shows, with what influence predicts where the base trajectory's tangents are given."""
        own = evaluated(item.parameters, item.optimizer_state)
        loss, probability, prediction = self._target(own)
        base = evaluated(item.base_parameters, item.base_optimizer_state)
        base_loss, base_probability, base_prediction = self._target(base)
        return Step(
            step=item.t,
            loss=loss,
            probability=probability,
            prediction=prediction,
            base_loss=base_loss,
            base_probability=base_probability,
            base_prediction=base_prediction,
            divergence=item.divergence,
            integrated_lr=item.integrated_lr,
            **self.retained.read(own),
            **self._predicted(item, tangents, base_loss, base_probability),
        )

    def _predicted(
        self, item: Lockstep, tangents: Tangents | None, base_loss: float, base_probability: float
    ) -> dict[str, float | None]:
        if tangents is None:
            return {}
        slopes = slopes_of(self.opened.classifier, self.target, item.base_parameters, tangents)
        return predictions(self.epsilon, slopes, base_loss, base_probability)
