"""For how many steps the scores of one test row's ranking predict what training does: its trust horizon."""

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from influence_core.attribution.base import Query, Scores
from influence_core.attribution.methods import method_for
from influence_core.attribution.ranking import resolve, scores_of
from influence_core.attribution.ranking import run as rank
from influence_core.errors import RunFailedError, UserError
from influence_core.events import Correlation, Events, Fading, Progress, Result, through
from influence_core.fingerprints import key_hash
from influence_core.horizons import Course, Horizon
from influence_core.runs.stopping import stop_requested
from influence_core.settings import Method
from influence_core.specs import HorizonSpec
from influence_core.studies.keys import optimizer_key, readings_key, shared
from influence_core.studies.resumable import Budget, Repeat
from influence_core.studies.statistics import Band, band, fading
from influence_core.workspace import Workspace, now

if TYPE_CHECKING:
    from influence_core.studies.setting import Setting
    from influence_core.trajectory.trajectories import How

KIND = "horizon"


@dataclass(frozen=True)
class Ranked:
    """The ranking in question, with the scores of all training rows."""

    method: Method
    query: Query
    scores: Scores
    labels: np.ndarray  # [N] training labels that the scores speak of
    key: dict[str, Any]  # what the scores depend on


@dataclass(frozen=True)
class Chosen:
    """The training rows of one repeat: the random half, then the two ends."""

    rows: np.ndarray  # [X] row numbers
    ends: np.ndarray  # [X] bool: from the ranking's two ends
    labels: np.ndarray  # [X]
    predicted: np.ndarray  # [X] −ε · score, or −ε · cosine


@dataclass(frozen=True)
class Measured:
    """One repeat: measured loss shifts of the test row beside their prediction."""

    chosen: Chosen
    about: dict[str, Any]  # how it was made
    shifts: np.ndarray  # [steps + 1, X] δ(x, t) = l_z(θ_ε,t) − l_z(θ_0,t)
    divergence: np.ndarray  # [steps + 1] mean ‖θ_ε,t − θ_0,t‖


def ranked(workspace: Workspace, spec: HorizonSpec) -> Ranked | None:
    """Return the ranking if it follows from what is kept; None if it has to be computed first. No torch.

    Rows relabelled since keep the label that their score was made with, so that what is measured is
    what the score speaks of.
    """
    asked = spec.ranking
    query, method = resolve(workspace, asked), method_for(workspace, asked)
    if query is None or method.unavailable(workspace, asked) is not None:
        return None
    kept = method.ready(workspace, asked, query)
    if kept is None:
        return None
    scores = scores_of(method, kept, query)
    labels = np.where(scores.labels < 0, workspace.labels().values, scores.labels)
    return Ranked(method.name, query, scores, labels, kept.key)


def choose(spec: HorizonSpec, given: Ranked, repeat: int) -> Chosen:
    """Draw a repeat's rows: a quarter from each end of the ranking, the other half at random, by (seed, repeat)."""
    values = given.scores.cosines if spec.by == "cosine" else given.scores.scores
    count, quarter = len(values), spec.train_rows // 4
    if spec.train_rows > count:
        raise UserError(f"train_rows = {spec.train_rows} but there are {count} training rows: give at most {count}")
    parted = np.argpartition(-values, (quarter - 1, count - quarter))  # one parting, so that ties are not taken twice
    ends = np.concatenate([parted[:quarter], parted[count - quarter :]])
    ends = ends[np.argsort(-values[ends], kind="stable")]
    others = np.random.default_rng([spec.seed, repeat]).permutation(count)
    random = others[~np.isin(others, ends)][: spec.train_rows - len(ends)]
    rows = np.concatenate([random, ends])
    return Chosen(rows, np.arange(len(rows)) >= len(random), given.labels[rows], -spec.epsilon * values[rows])


def repeat_key(workspace: Workspace, spec: HorizonSpec, given: Ranked, chosen: Chosen, repeat: int) -> dict[str, Any]:
    """Return all that one repeat depends on (DEFINITIONS, Trust horizon); not ``trust``, which is read off it."""
    return {
        **readings_key(workspace, spec, given.query.example, given.query.target),
        "by": spec.by,
        "method": given.method,
        "scores": key_hash(given.key),
        "epsilon": spec.epsilon,
        "repeat": repeat,
        "rows": [str(each) for each in workspace.train["id"].iloc[chosen.rows]],
        "labels": chosen.labels.tolist(),
    }


def read(workspace: Workspace, spec: HorizonSpec, given: Ranked, repeat: int) -> tuple[Repeat, Chosen, Measured | None]:
    """Return a repeat's place, its rows, and what is kept of it."""
    chosen = choose(spec, given, repeat)
    place = Repeat(workspace, KIND, repeat_key(workspace, spec, given, chosen, repeat))
    arrays = place.read("trajectories")
    return place, chosen, None if arrays is None else Measured(chosen, place.about, **arrays)


def ready(workspace: Workspace, spec: HorizonSpec) -> Horizon | None:
    """Return the horizon by the repeats that are kept, of those asked for; None where there is none. No torch."""
    given = ranked(workspace, spec)
    if given is None:
        return None
    done: list[Measured] = []
    for repeat in range(spec.repeats):
        _, _, found = read(workspace, spec, given, repeat)
        if found is None:
            break
        done.append(found)
    return assemble(workspace, spec, given, done) if done else None


def assemble(workspace: Workspace, spec: HorizonSpec, given: Ranked, done: Sequence[Measured]) -> Horizon:
    """Compute R(t), its band and the horizon over all rows, and over either half."""
    courses = {
        "whole": course(done, np.ones(spec.train_rows, dtype=bool), spec.trust),
        "random": course(done, ~choose(spec, given, 0).ends, spec.trust),
        "ends": course(done, choose(spec, given, 0).ends, spec.trust),
    }
    return Horizon(
        **shared(workspace, spec, [each.about for each in done]),
        **courses,
        example=given.query.example,
        target=workspace.label_names[given.query.target],
        method=given.method,
        by=spec.by,
        epsilon=spec.epsilon,
        trust=spec.trust,
        repeats=len(done),
        repeats_asked=spec.repeats,
        band=band_of(done, slice(1, None)).kind if done else "",
        divergence=np.mean([each.divergence[1:] for each in done], 0).tolist() if done else [],
    )


def course(done: Sequence[Measured], which: np.ndarray, trust: float) -> Course:
    """Return R(t) over the rows ``which`` ([X] bool), pooled in each repeat, and what it says."""
    rows = int(which.sum())
    if not done:
        return Course(rows=rows, r=[], low=[], high=[], peak=None, horizon=None)
    here = band_of(done, slice(1, None), which)
    said = fading(here, trust)
    return Course(
        rows=rows,
        r=[number(value) for value in here.r],
        low=[number(value) for value in here.low],
        high=[number(value) for value in here.high],
        peak=None if said.peak is None else said.peak + 1,
        horizon=None if said.horizon is None else said.horizon + 1,  # the first place is step 1
    )


def band_of(done: Sequence[Measured], steps: slice, which: np.ndarray | slice = slice(None)) -> Band:
    """Return the band of R over some steps and rows."""
    shifts = [each.shifts[steps][:, which, None] for each in done]
    return band(shifts, [each.chosen.predicted[which, None] for each in done])


def number(value: float) -> float | None:
    """Return a number as JSON has it, null for one that is not finite."""
    return float(value) if math.isfinite(value) else None


@dataclass
class Study:
    """A horizon being measured."""

    spec: HorizonSpec
    workspace: Workspace
    given: Ranked
    learning_rate: float
    result: Path
    budget: Budget
    done: list[Measured] = field(default_factory=list)
    setting: "Setting | None" = None  # opened by the first repeat that is not kept
    how: "How" = "auto"  # until a repeat found one after another faster

    def repeat(self, number: int) -> Generator[Progress | Fading, None, bool]:
        """Take what is kept of a repeat, or measure it; returns whether it is done."""
        place, chosen, kept = read(self.workspace, self.spec, self.given, number)
        if kept is not None:
            self.done.append(kept)
            for t in range(1, self.spec.steps + 1):
                yield self._event(kept, t)
            return True
        found = yield from self._measure(chosen, number)
        if found is None:
            return False
        place.describe(found.about)
        place.write("trajectories", {"shifts": found.shifts, "divergence": found.divergence})
        self.budget.made()
        return True

    def _measure(self, chosen: Chosen, number: int) -> Generator[Progress | Fading, None, Measured | None]:
        """Train on L and on L + ε l_x for each row side by side; None where a stop was asked for on the way."""
        import torch

        from influence_core.studies.following import circumstances, followed, with_batches
        from influence_core.studies.setting import Setting, open_setting
        from influence_core.trajectory.trajectories import alike

        spec, started = self.spec, time.monotonic()
        if self.setting is None:
            self.setting = yield from through(open_setting(self.workspace, spec), Setting)
        setting = with_batches(self.setting, number)
        split, row = self.workspace.locate(spec.example)
        test = setting.batch(split, [row], np.array([self.given.query.target]))
        rows = alike(setting.step.rows, [[int(each)] for each in chosen.rows], [[int(each)] for each in chosen.labels])
        epsilons = torch.full((len(rows), 1), spec.epsilon, dtype=setting.dtype, device=setting.device)
        size = spec.steps + 1
        found = Measured(chosen, circumstances(setting), np.zeros((size, len(rows))), np.zeros(size))
        self.done.append(found)
        phase = f"following {len(rows)} training rows" + ("" if spec.repeats == 1 else f", repeat {len(self.done)}")
        for item in followed(setting, rows, epsilons, test, spec.steps, self.how):
            found.shifts[item.t], found.divergence[item.t] = item.shifts[:, 0], item.distances.mean()
            if item.t > 0:
                self.how = "sequential" if item.way == "sequential" else "auto"  # vmap stays guarded
                yield self._event(found, item.t)
            yield Progress(phase=phase, done=item.t, total=spec.steps, unit="steps")
            if item.t < spec.steps and stop_requested(self.result):
                self.done.pop()
                return None
        found.about.update(made=now(), seconds=time.monotonic() - started)
        return found

    def _event(self, found: Measured, t: int) -> Fading:
        """Return what the live chart draws: R over all rows at step t, and the band over the repeats so far."""
        own, here = (band_of(each, slice(t, t + 1)) for each in ([found], self.done))
        r, low, high = (number(values[0]) for values in (here.r, here.low, here.high))
        return Fading(
            repeat=len(self.done),
            repeats=self.spec.repeats,
            step=t,
            integrated_lr=t * self.learning_rate,
            divergence=float(found.divergence[t]),
            methods={self.given.method: Correlation(own=number(own.r[0]), r=r, low=low, high=high)},
        )


def run(spec: HorizonSpec, result: Path) -> Events:
    """Rank, then follow the drawn rows repeat by repeat; yields a `Fading` event per step, and the `Horizon`.

    A repeat is kept when it is done, so an interrupted measurement goes on with the next one; it ends
    early when asked to (`runs.stopping`) or when ``budget_minutes`` allow no further repeat.
    """
    workspace = Workspace.open(spec.workspace)
    yield from (event for event in rank(spec.ranking, result) if isinstance(event, Progress))
    given = ranked(workspace, spec)
    if given is None:  # between computing and reading
        raise RunFailedError("another run has replaced the ranking's products meanwhile: measure again")
    rate = float(optimizer_key(workspace, spec)["learning_rate"])
    study = Study(spec, workspace, given, rate, result, Budget(spec.budget_minutes))
    for repeat in range(spec.repeats):
        if not study.budget.begin() or (repeat and stop_requested(result)):
            break
        if not (yield from study.repeat(repeat)):
            break
    yield Result(value=assemble(workspace, spec, given, study.done).model_dump())
