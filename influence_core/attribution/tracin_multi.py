"""TracIn over several checkpoints of one training (paper, Eq. 2)."""

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from influence_core.attribution.base import Attributor, Cost, Query, Ready, Scores, SelfScores
from influence_core.attribution.tracin import TracIn
from influence_core.events import Progress
from influence_core.fingerprints import key_hash, tensors_fingerprint
from influence_core.settings import CheckpointsSettings, Method
from influence_core.specs import Attributed, PredictSpec

if TYPE_CHECKING:
    from influence_core.workspace import Checkpoint, Workspace


def epochs(workspace: "Workspace", checkpoint: str | None) -> "list[Checkpoint]":
    """Return the checkpoints of a checkpoint's own training, in its order: of its recipe, with their epoch.

    Left out are those whose weights were replaced since they were opened (a training run again into
    the same folder): they are of another training now.
    """
    recipe = workspace.checkpoint(checkpoint).notes.get("recipe")
    if recipe is None:
        return []
    found = [
        entry
        for entry in workspace.checkpoints()
        if "epoch" in entry.notes and key_hash({"recipe": entry.notes.get("recipe")}) == key_hash({"recipe": recipe})
    ]
    return sorted((entry for entry in found if intact(entry)), key=lambda entry: float(entry.notes["epoch"]))


def intact(entry: "Checkpoint") -> bool:
    """Whether a checkpoint's weights are still those that were opened; only newer files are read for it."""
    weights = Path(entry.path) / "model.safetensors"
    if not weights.is_file():
        return False
    opened = datetime.datetime.fromisoformat(entry.created).timestamp()
    return weights.stat().st_mtime <= opened or tensors_fingerprint(weights) == entry.fingerprint


def training_losses(workspace: "Workspace", checkpoint: str | None) -> list[float] | None:
    """Return the mean training loss at each of `epochs`; None where one was not predicted yet, or there are none."""
    found = [workspace.predictions("train", entry.name) for entry in epochs(workspace, checkpoint)]
    kept = [float(table["loss"].mean()) for table in found if table is not None]
    return kept if kept and len(kept) == len(found) else None


def steepest(losses: Sequence[float], count: int) -> list[int]:
    """Return the places, in order, of the checkpoints before which the training loss fell most.

    A checkpoint's fall is from the one before it; the first one has none before it and comes in
    only where there are fewer others than asked for.
    """
    falls = [-np.inf, *(before - after for before, after in pairwise(losses))]
    return sorted(int(place) for place in np.argsort(-np.array(falls), kind="stable")[:count])


class TracInMulti(Attributor):
    """score = Σ_i η_i ⟨g_z, g_x⟩_i, cosine = Σ_i η_i cos_i / Σ_i η_i over checkpoints i.

    It keeps nothing of its own: it adds up TracIn's tables at each checkpoint. Where one of the
    checkpoints records no learning rate all η_i are 1, and `Ready.notes` says so.
    """

    name: ClassVar[Method] = "tracin-multi"
    judges_itself: ClassVar[bool] = True
    single = TracIn()

    def unavailable(self, workspace: "Workspace", spec: Attributed) -> str | None:
        """See base."""
        own = CheckpointsSettings(**spec.settings)
        known = {entry.name for entry in workspace.checkpoints()}
        if unknown := sorted(set(own.names) - known):
            return f"there is no checkpoint {unknown[0]!r}: choose of {', '.join(sorted(known))}"
        if not own.names and len(epochs(workspace, spec.checkpoint)) < 2:
            name = workspace.checkpoint(spec.checkpoint).name
            return (
                f"it needs two or more checkpoints of one training that record their epoch, and {name} has no others "
                "of its training here: choose a checkpoint that has, or name some in the settings"
            )
        return None

    def chosen(self, workspace: "Workspace", spec: Attributed) -> list[str] | None:
        """Return the checkpoints to sum over, by name; None while training losses are missing."""
        own = CheckpointsSettings(**spec.settings)
        if own.names:
            return list(dict.fromkeys(own.names))
        losses = training_losses(workspace, spec.checkpoint)
        if losses is None:
            return None
        names = [entry.name for entry in epochs(workspace, spec.checkpoint)]
        return [names[place] for place in steepest(losses, own.count)]

    def ready(self, workspace: "Workspace", spec: Attributed, query: Query) -> Ready | None:
        """See base."""
        names = self.chosen(workspace, spec)
        if names is None:
            return None
        parts = [self.single.ready(workspace, _at(spec, name), query) for name in names]
        kept = [part for part in parts if part is not None]
        if len(kept) < len(names):
            return None
        rates, known = self._rates(workspace, spec, names)
        kept = [replace(part, notes={**part.notes, "eta": eta}) for part, eta in zip(kept, rates, strict=True)]
        return Ready(
            table={},
            query={},
            key={"method": self.name, "parts": [part.key for part in kept]},
            made=min(part.made for part in kept),
            notes={"checkpoints": names, "eta": rates, "eta_known": known},
            revision="/".join(part.revision for part in kept),
            parts=tuple(kept),
        )

    def scores(self, ready: Ready) -> Scores:
        """See base."""
        found = [self.single.scores(part) for part in ready.parts]
        rates = np.array(ready.notes["eta"], dtype=np.float64)
        labels = found[0].labels.copy()
        for other in found[1:]:
            labels[other.labels != labels] = -1
        cosines = np.stack([each.cosines for each in found], 1) @ rates / rates.sum()
        zero = np.logical_and.reduce([each.zero_norm for each in found])
        return Scores(sum_of(found), np.clip(cosines, -1, 1), zero, labels)

    def compute(
        self, workspace: "Workspace", spec: Attributed, queries: Sequence[Query], refresh: bool = False
    ) -> Iterator[Progress]:
        """Predict the training rows where that picks the checkpoints, then TracIn at each."""
        from influence_core.models.predict import run as predict

        own = CheckpointsSettings(**spec.settings)
        for entry in [] if own.names else epochs(workspace, spec.checkpoint):
            if workspace.predictions("train", entry.name) is None:
                asked = PredictSpec(workspace=workspace.name, checkpoint=entry.name, split="train")
                yield from (event for event in predict(asked, Path()) if isinstance(event, Progress))
        for name in self.chosen(workspace, spec) or []:
            for event in self.single.compute(workspace, _at(spec, name), queries, refresh):
                yield event.model_copy(update={"phase": f"{event.phase} at {name}"})

    def cost(self, workspace: "Workspace", spec: Attributed, queries: Sequence[Query], refresh: bool = False) -> Cost:
        """See base; while the choice is open, as many whole passes as checkpoints are asked for."""
        names = self.chosen(workspace, spec)
        if names is not None:
            costs = [self.single.cost(workspace, _at(spec, name), queries, refresh) for name in names]
            return sum(costs, start=Cost())
        own, n = CheckpointsSettings(**spec.settings), len(workspace.train)
        lacking = sum(
            workspace.predictions("train", entry.name) is None for entry in epochs(workspace, spec.checkpoint)
        )
        passes = min(own.count, len(epochs(workspace, spec.checkpoint)))
        count = len(queries)
        return Cost(forward=lacking * n, projections=((n, count),) * passes, vectors=count)

    def _rates(self, workspace: "Workspace", spec: Attributed, names: Sequence[str]) -> tuple[list[float], bool]:
        """Return η of each checkpoint and True, or ones and False where one is unknown (or all are zero)."""
        found = [self.single.rate(workspace, _at(spec, name)) for name in names]
        rates = [rate for rate in found if rate is not None]
        known = len(rates) == len(found) and sum(rates) > 0
        return (rates if known else [1.0] * len(names)), known

    def self_scores(self, workspace: "Workspace", spec: Attributed) -> SelfScores | None:
        """Return Σ_i η_i ‖g_x‖²_i, with the η of `scores`."""
        names = self.chosen(workspace, spec) or []
        found = [self.single.self_scores(workspace, _at(spec, name)) for name in names]
        kept = [each for each in found if each is not None]
        if not kept or len(kept) < len(found):
            return None
        own = [self.single.rate(workspace, _at(spec, name)) or 1.0 for name in names]  # what `kept` is times of
        rates, _ = self._rates(workspace, spec, names)
        labels = kept[0].labels.copy()
        for other in kept[1:]:
            labels[other.labels != labels] = -1
        total = sum((rate / was * each.scores for rate, was, each in zip(rates, own, kept, strict=True)), np.zeros(1))
        return SelfScores(total, labels, min(each.made for each in kept))

    def compute_self(self, workspace: "Workspace", spec: Attributed, refresh: bool = False) -> Iterator[Progress]:
        """Choose the checkpoints, then take the norms at each."""
        yield from self.compute(workspace, spec, [])
        for name in self.chosen(workspace, spec) or []:
            yield from self.single.compute_self(workspace, _at(spec, name), refresh)


def sum_of(found: Sequence[Scores]) -> np.ndarray:
    """Return the sum of scores, [N]; each part is already times its η."""
    total: np.ndarray = np.stack([each.scores for each in found]).sum(0)
    return total


def _at(spec: Attributed, name: str) -> Attributed:
    """Return the single-checkpoint spec of one checkpoint."""
    changes: dict[str, Any] = {"method": "tracin", "settings": {}, "checkpoint": name}
    return spec.model_copy(update=changes)
