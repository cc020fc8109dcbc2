"""What the studies of corrections and the study of retraining have left to compute, at most; NumPy only."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from influence_core.artefacts import base_key
from influence_core.attribution.base import Cost, Query
from influence_core.attribution.gradient import GradientMethod
from influence_core.attribution.methods import METHODS, method_for
from influence_core.attribution.tracin_multi import TracInMulti
from influence_core.home import read_json
from influence_core.settings import CheckpointsSettings, Method
from influence_core.specs import (
    RETENTION_ROWS,
    CorrectionStudySpec,
    MislabelledSpec,
    RetrainSpec,
    Scoped,
    Split,
)
from influence_core.specs.correction_studies import TRIES
from influence_core.study_costs import BACKWARD, OVERHEAD, copies, optimizer_kept, scope_share, step_passes
from influence_core.training.origins import origin_of

if TYPE_CHECKING:
    from influence_core.workspace import Workspace

LOOKED = 10  # times as many mispredictions are looked through as are wanted (`studies.mislabelled`)
Corrections = CorrectionStudySpec | MislabelledSpec


def correction_study_cost(workspace: "Workspace", spec: CorrectionStudySpec, warming: Cost) -> Cost:
    """Return what a study of corrections costs where none flips before its last step.

    ``warming`` is what its optimizer's state costs, which is made where a correction is left to make.
    """
    methods = list(dict.fromkeys(spec.methods)) or [_usual(workspace, spec)]
    ranked = [strategy for strategy in spec.strategies if strategy != "random"]
    ways = len(methods) * len(spec.orders) * len(ranked) + ("random" in spec.strategies)
    found = _predicting(workspace, spec, "test")
    if ranked:
        rows = spec.mispredictions * (2 if "permuted" in ranked else 1)  # at most as many others lend theirs
        found += _sum(_explaining(workspace, spec, name, rows) for name in methods)
    tuned = TRIES * spec.tuning if spec.tune else 0
    asked = spec.mispredictions * ways * len(spec.sweep) + tuned
    return found + _corrections(workspace, spec, asked, spec.k, warming)


def mislabelled_cost(workspace: "Workspace", spec: MislabelledSpec, warming: Cost) -> Cost:
    """Return what the study of mislabelled rows costs: self-influence, rankings, and two corrections of each."""
    judges: Iterable[Method] = spec.methods or [method.name for method in METHODS.values()]
    found = _predicting(workspace, spec, "train") + _predicting(workspace, spec, "test")
    found += _sum(_judging(workspace, spec, name) for name in judges)
    found += _explaining(workspace, spec, spec.method or _usual(workspace, spec), LOOKED * spec.mispredictions)
    return found + _corrections(workspace, spec, 2 * spec.mispredictions, spec.look, warming)


def retrain_cost(workspace: "Workspace", spec: RetrainSpec) -> Cost:
    """Return what the trainings cost that are not kept. Raises what `origin_of` raises."""
    recipe, rows = origin_of(workspace, spec).recipe, len(workspace.train)
    found = _predicting(workspace, spec, "test")
    found += _explaining(workspace, spec, spec.method or _usual(workspace, spec), spec.mispredictions)
    left = trainings_left(workspace, spec)
    if not left:
        return found
    share, test = scope_share(workspace, spec.checkpoint, recipe.scope), len(workspace.dataset.splits["test"])
    before = 1 - share if recipe.augmentation != "none" else 0.0  # the frozen part as well, each time
    trained = recipe.total(-(-rows // recipe.batch_size)) * min(recipe.batch_size, rows)
    each = (BACKWARD * share + OVERHEAD + before) * trained + (share + OVERHEAD / 2 + before) * test
    outputs = 0.0 if before else (1 - share) * (rows + test)
    return found + Cost(forward=round(left * each + outputs), vectors=4 if recipe.optimizer == "adam" else 2)


def trainings_left(workspace: "Workspace", spec: RetrainSpec) -> int:
    """Return how many trainings are not kept, at most: of relabels it is not known yet whether they are the same."""
    origin, labels = origin_of(workspace, spec), workspace.labels().values.tolist()
    strategies = spec.strategies or (("proponents", "gold") if "gold" in workspace.train else ("proponents",))
    seeds = range(origin.recipe.seed, origin.recipe.seed + spec.repeats + 1)
    controls = sum(
        not (workspace.artefacts.path(spec.kind, origin.key(workspace, labels, seed)) / "about.json").exists()
        for seed in seeds
    )
    own = origin.key(workspace, labels, seeds[0])
    stand = own.pop("labels")
    made = 0
    for folder, key in workspace.artefacts.find(spec.kind, **own):
        if key["labels"] == stand or not (folder / "about.json").exists():
            continue
        about = read_json(folder / "about.json")
        made += about.get("strategy") in strategies and about.get("k") == spec.k
    asked = len(set(strategies)) * (1 if spec.together else spec.mispredictions)
    return controls + max(0, asked - made)


def _corrections(workspace: "Workspace", spec: Corrections, asked: int, rows: int, warming: Cost) -> Cost:
    """Return the cost of those of so many corrections that are not kept, with the base's where one is left."""
    left = max(0, asked - corrections_kept(workspace, spec))
    if not left:
        return Cost()
    share = scope_share(workspace, spec.checkpoint, spec.scope)
    reads = (share + OVERHEAD / 2) * RETENTION_ROWS  # once a correction
    one = spec.steps * step_passes(workspace, spec, rows, reads=1) + reads
    base = spec.steps * step_passes(workspace, spec, 0, reads=spec.mispredictions) + 2 * reads
    outputs = (1 - share) * len(workspace.train)
    return warming + Cost(forward=round(left * one + base + outputs), vectors=2 * copies(workspace, spec))


def corrections_kept(workspace: "Workspace", spec: Corrections) -> int:
    """Return how many corrections are kept of these settings, whatever picked their rows."""
    wanted = {**base_key(workspace, spec.checkpoint, spec.scope), "state": spec.optimizer_state}
    wanted |= {name: getattr(spec, name) for name in ("steps", "seed", "batch_size", "dropout", "dtype")}
    return sum(
        len(list(folder.glob("course-*.safetensors")))
        for folder, key in workspace.artefacts.find("correction", **wanted)
        if optimizer_kept(workspace, spec, key)
    )


def _predicting(workspace: "Workspace", spec: Scoped, split: Split) -> Cost:
    known = workspace.predictions(split, spec.checkpoint) is not None
    return Cost() if known else Cost(forward=len(workspace.dataset.splits[split]))


def _usual(workspace: "Workspace", spec: Scoped) -> Method:
    return method_for(workspace, spec.of_method(None)).name


def _explaining(workspace: "Workspace", spec: Corrections | RetrainSpec, name: Method, count: int) -> Cost:
    """Return what the rankings of so many mispredictions cost, in the order in which a study draws them."""
    return METHODS[name].cost(workspace, spec.of_method(name), drawn(workspace, spec.checkpoint, spec.seed, count))


def drawn(workspace: "Workspace", checkpoint: str | None, seed: int, count: int) -> list[Query]:
    """Return the first mispredictions as `studies.cases` draws them; any test rows while none is predicted."""
    frame, predictions = workspace.dataset.splits["test"], workspace.predictions("test", checkpoint)
    if predictions is None:
        return [Query(str(each), 0) for each in frame["id"][:count]]
    truth = (frame["gold"] if "gold" in frame else frame["label"]).to_numpy(dtype=np.int64)
    found = predictions["prediction"].to_numpy(dtype=np.int64)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(found != truth))[:count]
    return [Query(str(frame["id"].iloc[row]), int(found[row])) for row in order]


def _judging(workspace: "Workspace", spec: MislabelledSpec, name: Method) -> Cost:
    """Return what a method's self-influence costs; nothing where it gives none here."""
    method, asked = METHODS[name], spec.of_method(name)
    if not method.judges_itself or method.unavailable(workspace, asked) or method.self_scores(workspace, asked):
        return Cost()
    passes = CheckpointsSettings().count if isinstance(method, TracInMulti) else 1
    passed = Cost(projections=((len(workspace.train), 1),) * passes)
    return passed + method.preparation(workspace, asked, 1) if isinstance(method, GradientMethod) else passed


def _sum(costs: Iterable[Cost]) -> Cost:
    return sum(costs, Cost())
