"""How the predictive power of scores fades while training goes on (paper, Sec. 5.2, Fig. 2, 4-10)."""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from influence_core.attribution.base import Query
from influence_core.attribution.methods import METHODS
from influence_core.attribution.tracin import TracIn
from influence_core.attribution.tracin_adam import TracInAdam
from influence_core.events import Correlation, Events, Fading, Progress, Result, through
from influence_core.fingerprints import key_hash
from influence_core.runs.stopping import stop_requested
from influence_core.settings import Method
from influence_core.sizes import asks_few
from influence_core.specs import Attributed, FadingSpec
from influence_core.studies.following import circumstances, followed
from influence_core.studies.readings import number, numbers
from influence_core.studies.resumable import Budget, Repeat
from influence_core.studies.scoring import score, scores_key, usable
from influence_core.studies.setting import Drawn, Setting, draw, open_setting, optimizer_for, setting_key, setting_words
from influence_core.studies.statistics import TRUST, VERDICT_REPEATS, agreement, band, pooled
from influence_core.studies.statistics import fading as fading_of
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.trajectory.trajectories import How, alike
from influence_core.workspace import Workspace

KIND = "fading"


@dataclass(frozen=True)
class Measured:
    """One repeat: loss shifts on its trajectories, and what each method predicted of them."""

    drawn: Drawn
    about: dict[str, Any]  # how it was made
    shifts: np.ndarray  # [steps + 1, X, Z] δ(z, x, t) = l_z(θ_ε,t) − l_z(θ_0,t)
    divergence: np.ndarray  # [steps + 1, X] ‖θ_ε,t − θ_0,t‖
    noise: np.ndarray  # [steps + 1, Z] the shift of a trajectory with ε = 0
    predicted: dict[str, np.ndarray]  # {method: [X, Z]}, −ε · score
    apart: np.ndarray | None = None  # [steps + 1] ‖θ − θ_0‖ of the trajectory with ε = 0; kept repeats may lack it


@dataclass
class Study:
    """A fading study under way."""

    spec: FadingSpec
    workspace: Workspace
    optimizer: OptimizerSpec
    methods: list[Method]
    result: Path
    budget: Budget
    done: list[Measured] = field(default_factory=list)
    setting: Setting | None = None  # opened by the first repeat that is not kept
    few: bool = False  # so few rows are asked for that only their outputs of the frozen part are made
    how: How = "auto"  # until a repeat found one after another faster

    def repeat(self, number: int) -> Generator[Progress | Fading, None, Measured | None]:
        """Score and measure one repeat, or take what is kept of it; None where a stop was asked for on the way."""
        spec, workspace = self.spec, self.workspace
        drawn = draw(workspace, spec.seed, number, spec.train_rows, spec.test_rows)
        kept = Repeat(workspace, KIND, repeat_key(workspace, spec, drawn))
        arrays = kept.read("trajectories")
        predicted: dict[str, np.ndarray] = {}
        for method in self.methods:
            scores = yield from self._scores(kept, method, drawn)
            predicted[method] = -spec.epsilon * scores
            if arrays is None and stop_requested(self.result):  # scores are kept: going on does not make them again
                return None
        if arrays is not None:
            found = Measured(drawn, kept.about, predicted=predicted, **arrays)
            self.done.append(found)
            for t in range(1, spec.steps + 1):
                yield self._event(found, t)
            return found
        partial = yield from self._measure(drawn, predicted)
        if partial is None:
            return None
        kept.describe(partial.about)
        made = {"shifts": partial.shifts, "divergence": partial.divergence, "noise": partial.noise}
        kept.write("trajectories", made if partial.apart is None else made | {"apart": partial.apart})
        self.budget.made()
        return partial

    def _scores(self, kept: Repeat, method: Method, drawn: Drawn) -> Generator[Progress, None, np.ndarray]:
        """Return the scores [X, Z]; the η of TracIn is the trajectories' own, so that its slope at step 1 is near 1.

        Under Adam it is near 1 − β1: momentum passes the rest on over the steps that follow.
        """
        wanted = self._asked(method)
        name = f"scores-{method}-{key_hash(scores_key(self.workspace, wanted))}"
        arrays = kept.read(name)
        if arrays is None:
            examples = drawn.ids(self.workspace)["test"]
            queries = [Query(*pair) for pair in zip(examples, drawn.targets.tolist(), strict=True)]
            scores = yield from score(self.workspace, wanted, drawn.train, queries, few=self.few)
            arrays = {"scores": scores.astype(np.float64)}
            kept.write(name, arrays)
            self.budget.made()
        own_rate = method in (TracIn.name, TracInAdam.name)
        return arrays["scores"] * (self.optimizer.learning_rate if own_rate else 1.0)

    def _asked(self, method: Method) -> Attributed:
        """Return the request for a method's scores; P is that of the Adam state that the trajectories start from.

        Unless the study's settings say otherwise.
        """
        spec, wanted = self.spec, self.spec.of_method(method)
        if method != TracInAdam.name or self.optimizer.kind != "adam":
            return wanted
        own: dict[str, Any] = {"batch_size": spec.batch_size, "seed": spec.seed}
        if spec.optimizer_state is not None:
            own["state"] = spec.optimizer_state
        return wanted.model_copy(update={"settings": own | wanted.settings})

    def _measure(
        self, drawn: Drawn, predicted: dict[str, np.ndarray]
    ) -> Generator[Progress | Fading, None, Measured | None]:
        """Train on L and on L + ε l_x for each x side by side, reading l_z after each step."""
        spec = self.spec
        if self.setting is None:
            self.setting = yield from through(open_setting(self.workspace, spec, few=self.few), Setting)
        setting = self.setting
        test = setting.batch("test", drawn.test, drawn.targets)
        rows = alike(setting.step.rows, [[int(each)] for each in drawn.train], [[int(each)] for each in drawn.labels])
        about = circumstances(setting)
        size, z = spec.steps + 1, len(drawn.test)
        apart = np.zeros(size)
        found = Measured(
            drawn,
            about,
            np.zeros((size, len(rows), z)),
            np.zeros((size, len(rows))),
            np.zeros((size, z)),
            predicted,
            apart,
        )
        self.done.append(found)
        perturbations, weights = [*rows, rows[0]], [[spec.epsilon]] * len(rows) + [[0.0]]
        epsilons = torch.tensor(weights, dtype=setting.dtype, device=setting.device)
        phase = f"repeat {len(self.done)} of {spec.repeats}: {len(rows) + 2} trajectories"
        for read in followed(setting, perturbations, epsilons, test, spec.steps, self.how):
            found.shifts[read.t], found.noise[read.t] = read.shifts[:-1], read.shifts[-1]
            found.divergence[read.t], apart[read.t] = read.distances[:-1], read.distances[-1]
            about["way"] = read.way
            if read.t > 0:
                self.how = "sequential" if read.way == "sequential" else "auto"  # vmap stays guarded
                yield self._event(found, read.t)
            yield Progress(phase=phase, done=read.t, total=spec.steps, unit="steps")
            if read.t < spec.steps and stop_requested(self.result):
                self.done.pop()
                return None
        return found

    def _event(self, found: Measured, t: int) -> Fading:
        """Return what the live chart draws: this repeat at step t, and the band over the repeats so far."""
        upto = np.s_[t : t + 1]
        methods = {}
        for name in self.methods:
            own = pooled(found.shifts[upto], found.predicted[name])[0]
            here = band([each.shifts[upto] for each in self.done], [each.predicted[name] for each in self.done])
            methods[name] = Correlation(
                own=number(own), r=number(here.r[0]), low=number(here.low[0]), high=number(here.high[0])
            )
        return Fading(
            repeat=len(self.done),
            repeats=self.spec.repeats,
            step=t,
            integrated_lr=t * self.optimizer.learning_rate,
            divergence=float(found.divergence[t].mean()),
            noise=None if found.apart is None else float(found.apart[t]),
            methods=methods,
        )


def run(spec: FadingSpec, result: Path) -> Events:
    """Measure repeat by repeat; yields progress, a `Fading` event per step of each repeat, then the table.

    A repeat's trajectories and each method's scores are kept, so an interrupted study goes on with
    the next repeat, more repeats or methods cost only themselves, and what is done is a valid table:
    the study ends early when asked to (`runs.stopping`) or when ``budget_minutes`` allow no further one.
    """
    workspace, started = Workspace.open(spec.workspace), time.monotonic()
    methods, left_out = usable(workspace, spec, spec.methods)
    few = asks_few(workspace, spec)  # before scoring, which may keep a warmed state
    study = Study(
        spec, workspace, optimizer_for(workspace, spec), methods, result, Budget(spec.budget_minutes), few=few
    )
    for place in range(spec.repeats):
        if not study.budget.begin() or (place and stop_requested(result)):
            break
        if (yield from study.repeat(place)) is None:
            break
    yield Result(value={**table(study), "left_out": left_out, "seconds": time.monotonic() - started})


def repeat_key(workspace: Workspace, spec: FadingSpec, drawn: Drawn) -> dict[str, Any]:
    """Return all that one repeat's trajectories depend on."""
    labels = {"labels": drawn.labels.tolist(), "targets": drawn.targets.tolist()}
    return {**setting_key(workspace, spec), "epsilon": spec.epsilon, **drawn.ids(workspace), **labels}


def table(study: Study) -> dict[str, Any]:
    """Return the study's table: a row per method (`method_row`), and what all of them share."""
    spec, done = study.spec, study.done
    rate = study.optimizer.learning_rate
    return {
        "methods": [method_row(name, spec, done) for name in study.methods] if done else [],
        "repeats": len(done),
        "repeats_asked": spec.repeats,
        "train_rows": spec.train_rows,
        "test_rows": spec.test_rows,
        "epsilon": spec.epsilon,
        **setting_words(study.workspace, spec),
        "states": sorted({str(each.about["state"]) for each in done}),
        "integrated_lr": [t * rate for t in range(1, spec.steps + 1)],
        "divergence": np.mean([each.divergence[1:].mean(1) for each in done], 0).tolist() if done else [],
        "noise": max((float(np.abs(each.noise).max()) for each in done), default=None),
        "noise_divergence": noise_divergence(done),
        "rows": [each.drawn.ids(study.workspace) for each in done],
    }


def method_row(name: Method, spec: FadingSpec, done: Sequence[Measured]) -> dict[str, Any]:
    """Return one method's curves over steps 1 … T and what they say; null where a number is not defined.

    ``peak``, ``faded_at`` and ``horizon`` are steps (DEFINITIONS, Trajectories; ``horizon`` is the trust
    horizon), ``verdict`` needs 5 repeats. A control's says where its band contains zero, and no more: the
    largest of T values may leave zero by chance.
    """
    pairs = [(each.shifts[1:], each.predicted[name]) for each in done]
    each = [agreement(*pair) for pair in pairs]
    here = band([shifts for shifts, _ in pairs], [predicted for _, predicted in pairs])
    said = fading_of(here)
    faded, enough = said.faded, len(done) >= VERDICT_REPEATS
    verdict = f"faded by step {faded + 1}" if faded is not None else f"not faded within {spec.steps} steps"
    if said.peak is None or here.contains_zero.all():
        verdict = "no predictive power at any step"
    elif here.high[said.peak] < 0:
        verdict = "predicts the opposite of what happens"
    elif faded is None and here.high[-1] < 0:
        verdict = f"predicts the opposite of what happens by step {spec.steps}"
    if METHODS[name].control:
        verdict = f"a control: its band contains zero at {here.contains_zero.sum()} of {spec.steps} steps"
    own = {"settings": spec.settings[name]} if spec.settings.get(name) else {}
    return {
        "method": name,
        **own,
        "steps": list(range(1, spec.steps + 1)),
        "r": numbers(here.r),
        "low": numbers(here.low),
        "high": numbers(here.high),
        "spearman": numbers(_mean([one.spearman for one in each])),
        "per_row": numbers(_mean([one.per_row for one in each])),
        "slope": numbers(_mean([one.slope for one in each])),
        "distance": numbers(here.distance),
        "peak": None if said.peak is None else said.peak + 1,
        "faded_at": None if faded is None else faded + 1,
        "horizon": None if said.horizon is None else said.horizon + 1,
        "trust": TRUST,
        "band": here.kind,
        "verdict": verdict if enough else None,
    }


def noise_divergence(done: Sequence[Measured]) -> list[float] | None:
    """Return the largest ‖θ − θ_0‖ at ε = 0 of the repeats that have it, [steps]; None where none has."""
    apart = [each.apart for each in done if each.apart is not None]
    return np.max(apart, 0)[1:].tolist() if apart else None


def _mean(values: Sequence[np.ndarray]) -> np.ndarray:
    found: np.ndarray = np.mean(np.stack(values), 0)
    return found
