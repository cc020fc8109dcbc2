"""Corrections of many mispredictions by every strategy: success, retention, steps (paper, Sec. 6, Fig. 3 and 11)."""

import time
from collections import defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from influence_core.attribution.methods import method_for
from influence_core.correction.strategies import Chosen
from influence_core.events import Events, Progress, Result
from influence_core.runs.stopping import stop_requested
from influence_core.settings import Method
from influence_core.specs import Attributed, CorrectionStudySpec
from influence_core.studies.cases import Case, cases, predicted
from influence_core.studies.choosing import CONTROL, Cell, Choice, cells
from influence_core.studies.correcting import Corrections
from influence_core.studies.correction_table import cell_row, piece_row
from influence_core.studies.courses import Course
from influence_core.studies.intervals import mean
from influence_core.studies.resumable import Budget
from influence_core.studies.scoring import usable
from influence_core.studies.setting import setting_words
from influence_core.studies.tuning import Tuned, tune
from influence_core.study_checks import check_enough
from influence_core.workspace import Workspace

Way = tuple[Cell, float]  # with its share


@dataclass
class Study:
    """What has been read so far."""

    spec: CorrectionStudySpec  # with the learning rate
    corrections: Corrections
    choice: Choice
    done: dict[Way, dict[str, Course]] = field(default_factory=lambda: defaultdict(dict))
    skipped: dict[Way, list[str]] = field(default_factory=lambda: defaultdict(list))  # why
    desired: dict[Way, list[float]] = field(default_factory=lambda: defaultdict(list))  # `Chosen.desired_share`

    def piece(self, case: Case, cell: Cell, share: float) -> Generator[Progress, None, bool]:
        """Correct one misprediction in one way, or take what is kept of it; False where a stop was asked for."""
        chosen = yield from self.choice.rows(case, cell)
        if not isinstance(chosen, Chosen):
            self.skipped[cell, share].append(chosen)
            return True
        found = yield from self.corrections.course(case, chosen.numbers, chosen.labels, share)
        if found is None:
            return False
        self.done[cell, share][case.example] = found
        if chosen.desired_share is not None:
            self.desired[cell, share].append(chosen.desired_share)
        return True


def run(spec: CorrectionStudySpec, result: Path) -> Events:
    """Correct misprediction by misprediction, each in every way; yields progress, then the table.

    All share mispredictions, batches and random streams, so the cells are paired. Each correction ends
    at its flip and is kept, so an interrupted study goes on with the next one, and what is done is a
    valid table: the study ends early when asked to (`runs.stopping`) or when ``budget_minutes`` allow
    no further correction. Raises `UserError` for more mispredictions than there are.
    """
    workspace, started = Workspace.open(spec.workspace), time.monotonic()
    methods = ranked_by(workspace, spec)
    yield from predicted(workspace, spec.checkpoint, result)
    every = cases(workspace, spec.checkpoint, spec.seed)
    check_enough(workspace, len(every), spec.mispredictions, spec.tuning if spec.tune else 0)
    drawn, others = every[: spec.mispredictions], every[spec.mispredictions :][: spec.tuning]
    choice, budget = Choice(spec, result), Budget(spec.budget_minutes)
    tuned: Tuned | None = None
    if spec.tune:
        tuned = yield from tuned_rate(spec, workspace, others, choice, budget)
        if tuned is None:
            yield Result(value=_shared(spec, workspace, None, started))  # interrupted
            return
        spec = spec.model_copy(update={"learning_rate": tuned.rate, "tune": False})
    ways = [(cell, share) for cell in cells(spec, methods) for share in spec.sweep]
    yield from choice.explained(workspace, drawn, cells(spec, methods))
    study = Study(spec, Corrections(spec, workspace, drawn, result, budget), choice)
    yield from study.corrections.follow_base()
    yield from _pieces(study, ways)
    yield Result(value={**_shared(spec, workspace, tuned, started), **table(study, ways)})


def ranked_by(workspace: Workspace, spec: CorrectionStudySpec) -> list[Method]:
    """Return the methods that rank; raises `UserError` for one that cannot be used here."""
    if not spec.methods:
        asked = Attributed(workspace=spec.workspace, checkpoint=spec.checkpoint, scope=spec.scope)
        return [method_for(workspace, asked).name]
    usable(workspace, spec, [name for name in spec.methods if name != "abif"])  # its index may do without a basis
    return list(dict.fromkeys(spec.methods))


def _pieces(study: Study, ways: Sequence[Way]) -> Generator[Progress, None, None]:
    total, count, given = len(study.corrections.cases) * len(ways), 0, study.corrections
    for case in given.cases:
        for cell, share in ways:
            if (count and stop_requested(given.result)) or not given.budget.begin():
                return
            if not (yield from study.piece(case, cell, share)):
                return
            count += 1
            yield Progress(phase="correcting", done=count, total=total, unit="corrections")


def tuned_rate(
    spec: CorrectionStudySpec, workspace: Workspace, others: Sequence[Case], choice: Choice, budget: Budget
) -> Generator[Progress, None, Tuned | None]:
    """Choose the learning rate on other mispredictions (`tuning.tune`), at the first share; None where interrupted."""

    def successes(rate: float) -> Generator[Progress, None, int | None]:
        at = spec.model_copy(update={"learning_rate": rate, "tune": False})
        study = Study(at, Corrections(at, workspace, others, choice.result, budget), choice)
        way = (CONTROL, spec.sweep[0])
        for number, case in enumerate(others, start=1):
            if not budget.begin() or not (yield from study.piece(case, *way)):
                return None
            phase = f"trying the learning rate {rate:.2g}"
            yield Progress(phase=phase, done=number, total=len(others), unit="corrections")
        return sum(course.flip is not None for course in study.done[way].values())

    start = setting_words(workspace, spec)["learning_rate"]
    return (yield from tune(successes, start, [case.example for case in others]))


def table(study: Study, ways: Sequence[Way]) -> dict[str, Any]:
    """Return a row per cell (`correction_table.cell_row`), per misprediction and per correction."""
    given, names = study.corrections, study.corrections.workspace.label_names

    def controls(cell: Cell, share: float) -> dict[str, dict[str, Course]]:
        of = {"random": CONTROL, "permuted": Cell("permuted", cell.method, cell.by)}
        return {name: study.done[own, share] for name, own in of.items() if own != cell and study.done[own, share]}

    return {
        "cells": [
            {
                **cell_row(*way, study.done[way], given.base, study.skipped[way], controls(*way)),
                "desired_share": mean(np.array(study.desired[way])).value,  # of opponents: with the desired label
            }
            for way in ways
        ],
        "corrections": sum(len(study.done[way]) + len(study.skipped[way]) for way in ways),
        "corrections_asked": len(given.cases) * len(ways),
        "mispredictions": [
            {
                "example": case.example,
                "predicted": names[case.predicted],
                "desired": names[case.desired],
                "by_itself": given.base[case.example].flip,
                "base_retention": given.base[case.example].retention,
            }
            for case in given.cases
        ],
        "pieces": [piece_row(example, *way, course) for way in ways for example, course in study.done[way].items()],
    }


def _shared(spec: CorrectionStudySpec, workspace: Workspace, tuned: Tuned | None, started: float) -> dict[str, Any]:
    return {
        **setting_words(workspace, spec),
        "k": spec.k,
        "steps": spec.steps,
        "shares": list(spec.sweep),
        "tuned": None if tuned is None else tuned.as_json(),
        "cells": [],
        "corrections": 0,
        "seconds": time.monotonic() - started,
    }
