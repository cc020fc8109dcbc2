"""Corrections of many mispredictions from one start, each kept, so that none is made twice."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from influence_core.events import Progress, through
from influence_core.fingerprints import key_hash
from influence_core.specs import TrajectorySpec
from influence_core.studies.cases import Case
from influence_core.studies.courses import Course, Retention, corrected, uncorrected
from influence_core.studies.following import circumstances
from influence_core.studies.resumable import Budget, Repeat
from influence_core.studies.setting import Setting, open_setting, setting_key
from influence_core.trajectory.perturbation import Perturbation
from influence_core.workspace import Workspace

KIND = "correction"


@dataclass
class Corrections:
    """Corrects mispredictions by given rows; nothing heavy is opened where all that is asked for is kept."""

    spec: TrajectorySpec
    workspace: Workspace
    cases: Sequence[Case]
    result: Path
    budget: Budget
    base: dict[str, Course] = field(default_factory=dict)  # by example, without a correction
    _setting: Setting | None = None
    _retention: Retention | None = None

    def kept(self, case: Case) -> Repeat:
        """Return the folder of one misprediction, among the workspace's artefacts."""
        own = {"example": case.example, "desired": case.desired}
        return Repeat(self.workspace, KIND, {**setting_key(self.workspace, self.spec), **own})

    def _opened(self) -> Generator[Progress, None, tuple[Setting, Retention]]:
        if self._setting is None or self._retention is None:
            self._setting = yield from through(open_setting(self.workspace, self.spec), Setting)
            self._retention = Retention(self._setting, self.cases)
        return self._setting, self._retention

    def follow_base(self) -> Generator[Progress, None, None]:
        """Read where each misprediction flips by itself: one trajectory for all that are not kept."""
        for case in self.cases:
            if (arrays := self.kept(case).read("base")) is not None:
                self.base[case.example] = Course.of_arrays(arrays)
        missing = [case for case in self.cases if case.example not in self.base]
        if missing:
            setting, retention = yield from self._opened()
            found = yield from through(uncorrected(setting, missing, self.spec.steps, retention), dict)
            for case in missing:
                kept = self.kept(case)
                kept.describe(circumstances(setting))
                kept.write("base", found[case.example].as_arrays())
            self.base.update(found)

    def course(
        self, case: Case, numbers: np.ndarray, labels: np.ndarray, share: float
    ) -> Generator[Progress, None, Course | None]:
        """Correct one misprediction by rows [k] with labels [k], or take what is kept; None where a stop was asked for.

        ``share`` is that of B in the batch's weight, ε / (1 + ε).
        """
        kept = self.kept(case)
        name = f"course-{key_hash({'rows': numbers.tolist(), 'labels': labels.tolist(), 'share': share})}"
        if (arrays := kept.read(name)) is not None:
            return Course.of_arrays(arrays)
        setting, retention = yield from self._opened()
        perturbation = Perturbation.mean(setting.step.rows.batch(numbers, labels))
        weight = share / (1 - share)
        found = corrected(setting, case, perturbation, weight, self.spec.steps, retention, self.result)
        if found is not None:
            kept.write(name, found.as_arrays())
            self.budget.made()
        return found
