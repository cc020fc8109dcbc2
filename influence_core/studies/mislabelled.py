"""Truly mislabelled training rows: who finds them, and corrections by those among the proponents (paper, App. I)."""

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from influence_core.attribution.base import Query, Scores
from influence_core.attribution.explaining import run as explain
from influence_core.attribution.methods import method_for
from influence_core.attribution.ranking import largest, scores_of
from influence_core.data.dataset import words
from influence_core.errors import RunFailedError, UserError
from influence_core.events import Events, Progress, Result
from influence_core.runs.stopping import stop_requested
from influence_core.settings import Method
from influence_core.specs import Attributed, ExplainSpec, MislabelledSpec
from influence_core.studies.cases import Case, cases, partners, predicted
from influence_core.studies.correcting import Corrections
from influence_core.studies.correction_table import against
from influence_core.studies.courses import Course
from influence_core.studies.intervals import mean, wilson
from influence_core.studies.precision import judges, precision_rows
from influence_core.studies.resumable import Budget
from influence_core.studies.setting import setting_words
from influence_core.study_checks import SPLIT
from influence_core.workspace import Workspace

LOOKED = 10  # times as many mispredictions are looked through as are wanted
OWN, PERMUTED = "own", "permuted"


@dataclass(frozen=True)
class Blamed:
    """A misprediction with the truly mislabelled rows among its top proponents."""

    case: Case
    numbers: np.ndarray  # [m] training rows, m ≥ 1, best proponent first
    scores: Scores


def run(spec: MislabelledSpec, result: Path) -> Events:
    """Find mislabelled rows, then correct by them; yields progress, then both tables.

    A misprediction's B is the truly mislabelled among its top proponents, each with its gold label; the
    control gives it another's of the same prediction and true label. Corrections are kept, and an
    interrupted study goes on. Raises `UserError` where no gold labels are known.
    """
    workspace, started = Workspace.open(spec.workspace), time.monotonic()
    if "gold" not in workspace.train:
        raise UserError(f"{workspace.name} has no gold labels of its training rows: this study needs to know the truth")
    for split in ("train", SPLIT):
        yield from predicted(workspace, spec.checkpoint, result, split)
    gold = workspace.train["gold"].to_numpy(dtype=np.int64)
    wrong = workspace.labels().values != gold
    precision = yield from precision_rows(workspace, spec, judges(workspace, spec), wrong, result)
    drawn = cases(workspace, spec.checkpoint, spec.seed)[: LOOKED * spec.mispredictions]
    blamed, looked, share = yield from _blamed(workspace, spec, drawn, wrong, result)
    chosen = [each.case for each in blamed.values()]
    corrections = Corrections(spec, workspace, chosen, result, Budget(spec.budget_minutes))
    done: dict[str, dict[str, Course]] = {OWN: {}, PERMUTED: {}}
    given = {OWN: {each.example: each for each in chosen}, PERMUTED: partners(chosen, spec.seed)}
    if chosen:
        yield from corrections.follow_base()
        yield from _correct(spec, corrections, blamed, given, gold, done)
    yield Result(
        value={
            **setting_words(workspace, spec),
            "method": _method(workspace, spec),
            "by": spec.by,
            "look": spec.look,
            "share": spec.share,
            "steps": spec.steps,
            "mislabelled": int(wrong.sum()),
            "training_rows": len(wrong),
            "precision": precision,
            "mispredictions_looked_at": looked,
            "proponents_mislabelled": share,  # of the top proponents of those
            "corrections": [_row(kind, done[kind], given[kind], blamed, corrections.base) for kind in (OWN, PERMUTED)],
            "difference": against(done[OWN], done[PERMUTED]),
            "pairs": [_pair(workspace, each, corrections.base, done, given[PERMUTED]) for each in blamed.values()],
            "seconds": time.monotonic() - started,
        }
    )


def _method(workspace: Workspace, spec: MislabelledSpec) -> Method:
    return method_for(workspace, _ranking(spec)).name


def _ranking(spec: MislabelledSpec) -> Attributed:
    return Attributed(workspace=spec.workspace, checkpoint=spec.checkpoint, scope=spec.scope, method=spec.method)


def _blamed(
    workspace: Workspace, spec: MislabelledSpec, drawn: Sequence[Case], wrong: np.ndarray, result: Path
) -> Generator[Progress, None, tuple[dict[str, Blamed], int, float | None]]:
    """Return mispredictions with mislabelled top proponents by example, how many were looked at, and their share."""
    asked = _ranking(spec)
    method, shared = method_for(workspace, asked), asked.model_dump(include={"workspace", "checkpoint", "scope"})
    examples = tuple(case.example for case in drawn)
    if examples:
        wanted = ExplainSpec(**shared, method=method.name, split=SPLIT, examples=examples)
        yield from (event for event in explain(wanted, result) if isinstance(event, Progress))
    found: dict[str, Blamed] = {}
    shares: list[float] = []
    for case in drawn:
        query = Query(case.example, case.predicted)
        ready = method.ready(workspace, asked, query)
        if ready is None:
            raise RunFailedError(f"another run has replaced the {method.name} products meanwhile: start again")
        scores = scores_of(method, ready, query)
        top = largest(scores.cosines if spec.by == "cosine" else scores.scores, spec.look)
        if len(top):
            shares.append(float(wrong[top].mean()))
        if wrong[top].any():
            found[case.example] = Blamed(case, top[wrong[top]], scores)
        if len(found) == spec.mispredictions:
            break
    return found, len(shares), float(np.mean(shares)) if shares else None


def _correct(
    spec: MislabelledSpec,
    corrections: Corrections,
    blamed: Mapping[str, Blamed],
    given: Mapping[str, Mapping[str, Case]],
    gold: np.ndarray,
    done: Mapping[str, dict[str, Course]],
) -> Generator[Progress, None, None]:
    """Correct each misprediction by its own mislabelled proponents, and by another's."""
    total, count = sum(len(partner) for partner in given.values()), 0
    for case in corrections.cases:
        for kind, partner in given.items():
            if case.example not in partner:
                continue
            if (count and stop_requested(corrections.result)) or not corrections.budget.begin():
                return
            numbers = blamed[partner[case.example].example].numbers
            course = yield from corrections.course(case, numbers, gold[numbers], spec.share)
            if course is None:
                return
            done[kind][case.example] = course
            count += 1
            yield Progress(phase="correcting by mislabelled rows", done=count, total=total, unit="corrections")


def _influence(blamed: Mapping[str, Blamed], example: str, source: Case) -> float:
    """Return the mean cosine of one misprediction with the rows blamed for another, or for itself."""
    return float(blamed[example].scores.cosines[blamed[source.example].numbers].mean())


def _row(
    kind: str,
    done: Mapping[str, Course],
    source: Mapping[str, Case],
    blamed: Mapping[str, Blamed],
    base: Mapping[str, Course],
) -> dict[str, Any]:
    """Return one line of Table 2."""
    influences = np.array([_influence(blamed, example, source[example]) for example in done])
    flips = np.array([course.flip for course in done.values() if course.flip is not None], dtype=float)
    return {
        "proponents": kind,
        "mispredictions": len(done),
        "influence": mean(influences).as_json(),
        "influence_variance": float(influences.var(ddof=1)) if len(influences) > 1 else None,
        "success": wilson(len(flips), len(done)).as_json(),
        "steps": mean(flips).as_json(),
        "median_steps": float(np.median(flips)) if len(flips) else None,
        "retention": mean(np.array([course.retention for course in done.values()])).as_json(),
        "by_itself": wilson(sum(base[example].flip is not None for example in done), len(done)).as_json(),
        "without_partner": len(blamed) - len(source),
    }


def _pair(
    workspace: Workspace,
    each: Blamed,
    base: Mapping[str, Course],
    done: Mapping[str, Mapping[str, Course]],
    permuted: Mapping[str, Case],
) -> dict[str, Any]:
    """Return one line of Table 1: the misprediction with its truly mislabelled proponents."""
    names, frame, test = workspace.label_names, workspace.train, workspace.dataset.splits[SPLIT]
    labels, example = workspace.labels().values, each.case.example
    partner = permuted.get(example)
    return {
        "example": example,
        "text": words(test, each.case.row),
        "predicted": names[each.case.predicted],
        "desired": names[each.case.desired],
        "proponents": [
            {
                "id": str(frame["id"].iloc[row]),
                "text": words(frame, row),
                "label": names[int(labels[row])],
                "gold": names[int(frame["gold"].iloc[row])],
                "cosine": float(each.scores.cosines[row]),
            }
            for row in each.numbers.tolist()
        ],
        "permuted_from": None if partner is None else partner.example,
        "by_itself": base[example].flip,
        **{kind: {"flip": c.flip, "retention": c.retention} for kind in done if (c := done[kind].get(example))},
    }
