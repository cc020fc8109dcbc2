"""Whole trainings with other labels, each kept, so that none is made twice."""

import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from influence_core.events import Progress, through
from influence_core.fingerprints import companions_fingerprint
from influence_core.models import prefix
from influence_core.models.classifier import Rows
from influence_core.models.predict import Predictions, predict
from influence_core.models.prefix import Opened, behind_prefix
from influence_core.runs.stopping import stop_requested
from influence_core.studies.resumable import Budget, Repeat
from influence_core.study_checks import SPLIT
from influence_core.training.bases import write_start
from influence_core.training.loop import train
from influence_core.training.origins import Origin
from influence_core.training.run import classifier_of
from influence_core.workspace import Workspace

KIND = "retrain"
PROBABILITIES = "probabilities"


@dataclass(frozen=True)
class Beginning:
    """A classifier of its own, opened where it is trained, with all values that it begins with."""

    opened: Opened
    values: dict[str, torch.Tensor]
    train: Rows
    test: Rows


@dataclass
class Retrainings:
    """Trains by one recipe from one start; nothing heavy is opened where all that is asked for is kept."""

    workspace: Workspace
    origin: Origin
    result: Path
    budget: Budget
    _beginnings: dict[int, Beginning] = field(default_factory=dict)  # of one seed: the last that was needed

    def kept(self, labels: np.ndarray, seed: int) -> Repeat:
        """Return the folder of one training, among the workspace's artefacts."""
        return Repeat(self.workspace, KIND, self.origin.key(self.workspace, labels.tolist(), seed))

    def trained(
        self, labels: np.ndarray, seed: int, about: dict[str, Any], phase: str
    ) -> Generator[Progress, None, np.ndarray | None]:
        """Train on labels [N] and return the test rows' probabilities [T, C], or take what is kept.

        None where a stop was asked for on the way. Raises `RunFailedError` where the loss is no finite number.
        """
        kept = self.kept(labels, seed)
        if (arrays := kept.read(PROBABILITIES)) is not None:
            return arrays[PROBABILITIES]
        begun, started = (yield from self._beginning(seed)), time.monotonic()
        begun.opened.whole.module.load_state_dict(begun.values)
        rows = Rows(begun.opened.classifier, begun.train.items, labels)
        for event in train(begun.opened.classifier, rows, replace(self.origin.recipe, seed=seed)):
            if isinstance(event, Progress):
                if stop_requested(self.result):
                    return None
                yield event.model_copy(update={"phase": f"{phase}: {event.phase}"})
        classifier = begun.opened.classifier
        found = yield from through(predict(classifier, begun.test, phase=f"{phase}: predicting"), Predictions)
        circumstances = {"threads": torch.get_num_threads(), "torch": torch.__version__}
        kept.describe({**about, "seconds": time.monotonic() - started, **circumstances})
        kept.write(PROBABILITIES, {PROBABILITIES: found.probabilities})
        self.budget.made()
        return found.probabilities

    def _beginning(self, seed: int) -> Generator[Progress, None, Beginning]:
        key = 0 if self.origin.checkpoint else seed  # a new head is drawn from the seed
        if key not in self._beginnings:
            self._beginnings.clear()
            self._beginnings[key] = yield from through(self._begin(seed), Beginning)
        return self._beginnings[key]

    def _begin(self, seed: int) -> Iterator[Progress | Beginning]:
        """Yield progress of the frozen part's outputs, where the recipe trains only what is behind it, then the start.

        Images that are cropped at random have no outputs to keep.
        """
        recipe, names = self.origin.recipe, self.workspace.label_names
        with ExitStack() as stack:
            folder = Path(self.origin.start)
            if not self.origin.checkpoint:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "start"
                write_start(replace(recipe, base=self.origin.start, seed=seed), None, names, folder)
            whole = classifier_of(recipe, folder, names)
            whole.companions = companions_fingerprint(folder)
        scope = whole.scope(recipe.scope)
        opened = (
            behind_prefix(self.workspace, whole, scope)
            if recipe.augmentation == "none"
            else Opened(whole, scope, whole, "its inputs are changed at random")
        )
        train_rows = yield from through(prefix.rows(self.workspace, opened, "train"), Rows)
        test_rows = yield from through(prefix.rows(self.workspace, opened, SPLIT), Rows)
        values = {name: value.detach().clone() for name, value in whole.module.state_dict().items()}
        yield Beginning(opened, values, train_rows, test_rows)
