"""One correction followed up to its flip, and the run without it, read for many mispredictions at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from influence_core.correction.setting import retention_rows
from influence_core.errors import RunFailedError
from influence_core.events import Progress
from influence_core.models.classifier import Parameters
from influence_core.runs.stopping import stop_requested
from influence_core.studies.cases import Case
from influence_core.studies.setting import Setting
from influence_core.study_checks import SPLIT
from influence_core.trajectory.perturbation import Perturbation


@dataclass(frozen=True)
class Course:
    """What became of one misprediction (DEFINITIONS, Correction)."""

    probability: np.ndarray  # [steps made + 1] float64, of the desired label, from step 0 to the flip or the last step
    flip: int | None  # the first step whose prediction is the desired label
    retention: float  # at the flip, else at the last step

    def as_arrays(self) -> dict[str, np.ndarray]:
        """Return it as arrays to keep."""
        flip = np.array([-1 if self.flip is None else self.flip])
        return {"probability": self.probability, "flip": flip, "retention": np.array([self.retention])}

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray]) -> "Course":
        """Return what `as_arrays` kept."""
        flip = int(arrays["flip"][0])
        return cls(arrays["probability"], None if flip < 0 else flip, float(arrays["retention"][0]))


class Retention:
    """The retention rows' predictions, compared with those before the first step."""

    def __init__(self, setting: Setting, examples: Sequence[Case]) -> None:
        self.setting = setting
        ids = {case.example: retention_rows(setting.workspace, [case.example]) for case in examples}
        every = sorted({each for own in ids.values() for each in own})  # 50 rows, and one more for each among them
        place = {each: number for number, each in enumerate(every)}
        self.places = {example: [place[each] for each in own] for example, own in ids.items()}
        rows = np.array([setting.workspace.locate(each)[1] for each in every], dtype=np.int64)
        self.batch = setting.batch(SPLIT, rows, np.zeros(len(rows), dtype=np.int64)) if len(rows) else None
        self.first = self._predictions(setting.parameters)

    def _predictions(self, parameters: Parameters) -> np.ndarray:
        if self.batch is None:
            return np.zeros(0, dtype=np.int64)
        with torch.no_grad():
            found: np.ndarray = self.setting.opened.classifier.logits(self.batch, parameters).argmax(1).cpu().numpy()
        return found

    def read(self, parameters: Parameters) -> dict[str, float]:
        """Return each example's share of unchanged predictions."""
        same = self._predictions(parameters) == self.first
        return {example: float(same[own].mean()) if own else 1.0 for example, own in self.places.items()}


class Targets:
    """The mispredictions read after each step."""

    def __init__(self, setting: Setting, examples: Sequence[Case]) -> None:
        self.setting = setting
        self.desired = np.array([case.desired for case in examples], dtype=np.int64)
        self.batch = setting.batch(SPLIT, np.array([case.row for case in examples]), self.desired)

    def read(self, parameters: Parameters, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the desired label's probability [n] float64 and whether it is predicted [n] bool, in eval mode.

        Raises `RunFailedError` where a probability is not finite.
        """
        with torch.no_grad():
            logits = self.setting.opened.classifier.logits(self.batch, parameters).double()
            probabilities = logits.softmax(1).gather(1, self.batch.labels[:, None])[:, 0].cpu().numpy()
            flipped = (logits.argmax(1) == self.batch.labels).cpu().numpy()
        if not np.isfinite(probabilities).all():
            raise RunFailedError(
                f"a correction diverged at step {t} (its loss is not finite): "
                f"lower the learning rate, {self.setting.step.optimizer.learning_rate:g}"
            )
        return probabilities, flipped


def corrected(
    setting: Setting,
    case: Case,
    perturbation: Perturbation,
    weight: float,
    steps: int,
    retention: Retention,
    result: Path,
) -> Course | None:
    """Train on L + ε·l_B up to the flip or for ``steps`` steps; None where a stop was asked for on the way.

    The same steps as `correction.run` makes. Of the retention rows only the last step is read, and the
    base is not computed again, so that a correction costs what it trains.
    """
    target, parameters, state = Targets(setting, [case]), setting.parameters, setting.state
    epsilon = torch.tensor([weight], dtype=setting.dtype, device=setting.device)
    seen: list[float] = []
    for t in range(steps + 1):
        probability, flipped = target.read(parameters, t)
        seen.append(float(probability[0]))
        if flipped[0] or t == steps:
            flip = t if flipped[0] else None
            return Course(np.array(seen), flip, retention.read(parameters)[case.example])
        if stop_requested(result):
            return None
        parameters, state = setting.step(parameters, state, epsilon, perturbation, t)
    raise AssertionError("the last step returns")


def uncorrected(
    setting: Setting, examples: Sequence[Case], steps: int, retention: Retention
) -> Iterator[Progress | dict[str, Course]]:
    """Train on L alone; yields progress, then each misprediction's course, over all steps.

    The control that costs nothing: ``flip`` is where it flips by itself, ``retention`` that at the last step.
    """
    targets, parameters, state = Targets(setting, examples), setting.parameters, setting.state
    read = [targets.read(parameters, 0)]
    nothing = torch.zeros(0, dtype=setting.dtype, device=setting.device)
    for t in range(steps):
        parameters, state = setting.step(parameters, state, nothing, None, t)
        read.append(targets.read(parameters, t + 1))
        yield Progress(phase="following the run without corrections", done=t + 1, total=steps, unit="steps")
    probabilities, flipped = (np.stack(each) for each in zip(*read, strict=True))  # [steps + 1, n]
    kept, found = retention.read(parameters), {}
    for number, case in enumerate(examples):
        at = np.flatnonzero(flipped[:, number])
        flip = int(at[0]) if len(at) else None
        found[case.example] = Course(probabilities[:, number].copy(), flip, kept[case.example])
    yield found
