"""Training again with relabels: does the flip survive, and what does test accuracy do (paper, Sec. 6)?"""

import time
from collections import defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from influence_core.attribution.methods import method_for
from influence_core.correction.setting import retention_rows
from influence_core.correction.strategies import Chosen
from influence_core.errors import UserError
from influence_core.events import Events, Progress, Result
from influence_core.runs.stopping import stop_requested
from influence_core.specs import Attributed, CorrectionStudySpec, RetrainSpec
from influence_core.studies.cases import Case, cases, predicted
from influence_core.studies.choosing import Cell, Choice
from influence_core.studies.resumable import Budget
from influence_core.studies.retrain_table import Outcome, Retrained, accuracies, row, summary
from influence_core.studies.retraining import Retrainings
from influence_core.study_checks import SPLIT, check_enough
from influence_core.training.origins import origin_of
from influence_core.workspace import Workspace

CONTROL = "control"


@dataclass(frozen=True)
class Relabels:
    """Training rows with the labels that they are given for one misprediction."""

    case: Case
    numbers: np.ndarray  # [m] rows whose label changes, m ≥ 1
    labels: np.ndarray  # [m]


@dataclass(frozen=True)
class Asked:
    """One training: its relabels, of one misprediction or of all together."""

    strategy: str
    relabels: tuple[Relabels, ...]


@dataclass
class Study:
    """What has been trained so far."""

    spec: RetrainSpec
    workspace: Workspace
    trainings: Retrainings
    labels: np.ndarray  # [N] as they stand
    truth: np.ndarray  # [T]
    control: Outcome | None = None
    others: dict[int, Outcome] = field(default_factory=dict)  # by seed
    done: dict[str, list[Retrained]] = field(default_factory=lambda: defaultdict(list))
    conflicting: dict[str, int] = field(default_factory=dict)

    def outcome(
        self, labels: np.ndarray, seed: int, about: dict[str, Any], phase: str
    ) -> Generator[Progress, None, Outcome | None]:
        """Train once, or take what is kept; None where no further training is to begin or a stop was asked for."""
        if stop_requested(self.trainings.result) or not self.trainings.budget.begin():
            return None
        found = yield from self.trainings.trained(labels, seed, about, phase)
        return None if found is None else Outcome(found, self.truth)


def run(spec: RetrainSpec, result: Path) -> Events:
    """Train without relabels, again with other seeds, then with each misprediction's; yields progress, then the table.

    Labels are those that stand. Trainings are kept, so an interrupted study goes on with the next one, and
    what is done is a valid table. Raises `UserError` for a checkpoint whose training is not known.
    """
    workspace, started = Workspace.open(spec.workspace), time.monotonic()
    origin, strategies = origin_of(workspace, spec), strategies_of(workspace, spec)
    yield from predicted(workspace, spec.checkpoint, result)
    every = cases(workspace, spec.checkpoint, spec.seed)
    check_enough(workspace, len(every), spec.mispredictions)
    drawn, stand = every[: spec.mispredictions], workspace.labels()
    frame, before = workspace.dataset.splits[SPLIT], workspace.predict(SPLIT, spec.checkpoint)
    truth = (frame["gold"] if "gold" in frame else frame["label"]).to_numpy(dtype=np.int64)
    method = method_for(
        workspace, Attributed(**spec.model_dump(include={"workspace", "checkpoint", "scope", "method"}))
    )
    relabels, skipped = yield from _relabels(spec, workspace, drawn, strategies, method.name, stand.values, result)
    asked = [Asked(strategy, group) for strategy in strategies for group in _groups(relabels[strategy], spec.together)]
    if not spec.together:  # each misprediction in every way before the next, so that a part of it compares the ways
        place = {case.example: number for number, case in enumerate(drawn)}
        asked.sort(key=lambda each: place[each.relabels[0].case.example])
    study = Study(
        spec, workspace, Retrainings(workspace, origin, result, Budget(spec.budget_minutes)), stand.values, truth
    )
    yield from _train(study, asked, len(asked) + 1 + spec.repeats, origin.recipe.seed)
    columns = [f"p{number}" for number in range(len(workspace.label_names))]
    at_first = Outcome(before[columns].to_numpy(), truth)
    yield Result(
        value={
            "workspace": workspace.name,
            "checkpoint": workspace.checkpoint(spec.checkpoint).name,
            "start": "checkpoint" if origin.checkpoint else origin.shown,
            "recipe": origin.recipe.as_json(),
            "method": method.name,
            "by": spec.by,
            "k": spec.k,
            "together": spec.together,
            "training_rows": len(stand.values),
            "cursor": stand.cursor,  # of the label events counted
            "trainings": (study.control is not None)
            + len(study.others)
            + sum(len({id(each.outcome) for each in own}) for own in study.done.values()),
            "trainings_asked": len(asked) + 1 + spec.repeats,
            **_table(study, strategies, skipped, at_first),
            "seconds": time.monotonic() - started,
        }
    )


def strategies_of(workspace: Workspace, spec: RetrainSpec) -> tuple[str, ...]:
    """Return the ways to relabel; raises `UserError` for gold labels that nobody knows."""
    known = "gold" in workspace.train
    if "gold" in spec.strategies and not known:
        raise UserError(f"{workspace.name} has no gold labels of its training rows: give strategy proponents alone")
    return tuple(dict.fromkeys(spec.strategies)) or (("proponents", "gold") if known else ("proponents",))


def _relabels(
    spec: RetrainSpec,
    workspace: Workspace,
    drawn: Sequence[Case],
    strategies: Sequence[str],
    method: Any,
    stand: np.ndarray,
    result: Path,
) -> Generator[Progress, None, tuple[dict[str, list[Relabels]], dict[str, list[str]]]]:
    """Return by strategy the labels that change for each misprediction, and why others are left out."""
    shared = spec.model_dump(include={"workspace", "checkpoint", "scope", "k", "seed"})
    picks = CorrectionStudySpec(**shared, methods=(method,), orders=(spec.by,), points=1, batch_size=1)
    choice, cell = Choice(picks, result), Cell("proponents", method, spec.by)
    yield from choice.explained(workspace, drawn, [cell])
    found: dict[str, list[Relabels]] = {strategy: [] for strategy in strategies}
    skipped: dict[str, list[str]] = {strategy: [] for strategy in strategies}
    for case in drawn:
        chosen = yield from choice.rows(case, cell)
        for strategy in strategies:
            if not isinstance(chosen, Chosen):
                skipped[strategy].append(chosen)
                continue
            labels = chosen.labels
            if strategy == "gold":
                labels = workspace.train["gold"].to_numpy(dtype=np.int64)[chosen.numbers]
            changes = labels != stand[chosen.numbers]
            if changes.any():
                found[strategy].append(Relabels(case, chosen.numbers[changes], labels[changes]))
            else:
                skipped[strategy].append("none of its top proponents would get another label")
    return found, skipped


def _groups(relabels: Sequence[Relabels], together: bool) -> list[tuple[Relabels, ...]]:
    if together:
        return [tuple(relabels)] if relabels else []
    return [(each,) for each in relabels]


def labels_with(relabels: Sequence[Relabels], labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Return labels [N] with the relabels in place, and how many rows were to get several: those keep their own."""
    wanted: dict[int, set[int]] = defaultdict(set)
    for each in relabels:
        for number, label in zip(each.numbers.tolist(), each.labels.tolist(), strict=True):
            wanted[number].add(label)
    changed = labels.copy()
    for number, own in wanted.items():
        if len(own) == 1:
            changed[number] = next(iter(own))
    return changed, sum(len(own) > 1 for own in wanted.values())


def _train(study: Study, asked: Sequence[Asked], total: int, seed: int) -> Generator[Progress, None, None]:
    """Make the trainings in turn, as far as they are allowed to go."""
    count = 0

    def counted() -> Progress:
        return Progress(phase="training again", done=count, total=total, unit="trainings")

    for number in range(study.spec.repeats + 1):
        about = {"strategy": CONTROL, "k": 0}
        phase = "without relabels" + (f", seed {seed + number}" if number else "")
        found = yield from study.outcome(study.labels, seed + number, about, phase)
        if found is None:
            return
        if number:
            study.others[seed + number] = found
        else:
            study.control = found
        count += 1
        yield counted()
    for each in asked:
        labels, conflicting = labels_with(each.relabels, study.labels)
        about = {"strategy": each.strategy, "k": study.spec.k, "examples": [own.case.example for own in each.relabels]}
        phase = f"with the relabels of {'all' if study.spec.together else each.relabels[0].case.example}"
        found = yield from study.outcome(labels, seed, about, f"{phase} ({each.strategy})")
        if found is None:
            return
        study.conflicting[each.strategy] = conflicting
        everyone = [own.case.example for own in each.relabels]
        for own in each.relabels:
            kept = retention_rows(study.workspace, everyone)
            rows = np.array([study.workspace.locate(example)[1] for example in kept], dtype=np.int64)
            relabelled = int((labels[own.numbers] != study.labels[own.numbers]).sum())
            study.done[each.strategy].append(Retrained(own.case, each.strategy, relabelled, rows, found))
        count += 1
        yield counted()


def _table(study: Study, strategies: Sequence[str], skipped: dict[str, list[str]], before: Outcome) -> dict[str, Any]:
    control = study.control
    if control is None:  # interrupted before anything can be compared
        return {"accuracy": {"checkpoint": before.accuracy, "control": None, "seeds": []}, "summary": [], "rows": []}
    names = study.workspace.label_names
    return {
        "accuracy": accuracies(before, control, study.others),
        "summary": [
            {
                **summary(each, study.done[each], skipped[each], before, control, list(study.others.values())),
                "conflicting": study.conflicting.get(each, 0),  # rows wanted with several labels at once, left alone
            }
            for each in strategies
        ],
        "rows": [row(each, before, control, names) for own in strategies for each in study.done[own]],
    }
