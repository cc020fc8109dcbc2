"""How long a run is going to take and what memory it needs, from rates measured on this machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from influence_core.attribution.abif import Abif, has_basis
from influence_core.attribution.base import Cost, Query
from influence_core.attribution.explaining import queries as explained
from influence_core.attribution.gradient import GradientMethod
from influence_core.attribution.methods import method_for
from influence_core.attribution.ranking import resolve
from influence_core.attribution.sample import sample_size
from influence_core.attribution.tracin_multi import TracInMulti
from influence_core.checks import ranking_spec
from influence_core.correction_costs import correction_study_cost, mislabelled_cost, retrain_cost
from influence_core.rates import FORWARD, rate
from influence_core.runs import registry
from influence_core.settings import CheckpointsSettings
from influence_core.sizes import MEMORY_BYTES, fills, optimizer_kind, scope_size, tensors_size, warms
from influence_core.specs import (
    RETENTION_ROWS,
    VALIDATION_ROWS,
    WARM_BATCHES,
    CorrectionSetSpec,
    CorrectionSpec,
    CorrectionStudySpec,
    DivergenceSpec,
    ExplainSpec,
    FadingSpec,
    ForecastSpec,
    HorizonSpec,
    IndexSpec,
    MislabelledSpec,
    PredictSpec,
    RankSpec,
    RetrainSpec,
    Split,
    SuspectsSpec,
    TracinErrorSpec,
    TrajectorySpec,
)
from influence_core.study_costs import TANGENT_COPIES, StudySpec, outputs, study_cost

if TYPE_CHECKING:
    from influence_core.workspace import Checkpoint, Workspace

# Measured on 2 CPU cores with MiniLM-L6, last two blocks (3.7 M parameters); all scale with the
# forward rate that `rates.record` measured for the checkpoint at hand.
PROJECT_ONE = 110.0  # rows a second, projected on one direction, the frozen part included
PROJECT_32 = 90.0  # rows a second, projected on 32 directions
TRAIN = 90.0  # rows a second, forward and backward
HESSIAN = 70.0  # rows a second of one Hessian-vector product (256 rows in 3.7 s)
START = 6.0  # seconds: torch and the checkpoint into a worker
NUMBER = 4  # bytes of a parameter
TANGENT = 3.0  # steps' worth of a step that carries ∇_ε of parameters and moments


@dataclass(frozen=True)
class Estimate:
    """A length of time and an amount of memory, with words for a button."""

    seconds: float
    bytes: int = 0  # of vectors held beside model and data

    @property
    def words(self) -> str:
        """Write it rounded ("about 20 s", "about 12 min, 1.5 GB", "about 3 h")."""
        if self.seconds < 90:
            said = f"about {max(5, 5 * round(self.seconds / 5))} s"
        elif self.seconds < 90 * 60:
            said = f"about {round(self.seconds / 60)} min"
        else:
            said = f"about {round(self.seconds / 3600)} h"
        return said if self.bytes < 1e8 else f"{said}, {self.bytes / 1e9:.1f} GB"


AnyEstimated = (
    PredictSpec
    | RankSpec
    | ExplainSpec
    | SuspectsSpec
    | IndexSpec
    | CorrectionSpec
    | CorrectionSetSpec
    | HorizonSpec
    | ForecastSpec
    | StudySpec
    | CorrectionStudySpec
    | MislabelledSpec
    | RetrainSpec
)


def estimate(workspace: "Workspace", spec: AnyEstimated) -> Estimate:
    """Estimate a run of this spec, counting only what is not kept yet; NumPy only."""
    cost, held = _cost(workspace, spec), 0
    if cost.vectors:
        held = cost.vectors * NUMBER * scope_size(workspace, spec.checkpoint, getattr(spec, "scope", None))
    return Estimate(START + seconds(cost) / (forward_rate(workspace, spec.checkpoint) / FORWARD), held)


def forward_rate(workspace: "Workspace", checkpoint: str | None) -> float:
    """Return how many rows a second pass through a checkpoint: measured for it or what it descends from, or guessed."""
    entries = {entry.name: entry for entry in workspace.checkpoints()}
    asked = workspace.checkpoint(checkpoint)
    entry: Checkpoint | None = asked
    line: list[str] = []
    while entry is not None:
        line.append(entry.fingerprint)
        entry = entries.get(entry.parent or "")
    return rate(line, tensors_size(Path(asked.path) / "model.safetensors"))


def seconds(cost: Cost) -> float:
    """Return how long a cost takes at the default speed."""
    spent = cost.forward / FORWARD + cost.hessian / HESSIAN + cost.trained / TRAIN
    return spent + sum(projecting(rows, directions) for rows, directions in cost.projections)


def projecting(rows: int, directions: int) -> float:
    """Seconds to project rows on directions at the default speed: a pass, and a little for each direction."""
    each = (1 / PROJECT_32 - 1 / PROJECT_ONE) / 31
    return rows * (1 / PROJECT_ONE + each * (directions - 1))


def _cost(workspace: "Workspace", spec: AnyEstimated) -> Cost:
    if isinstance(spec, PredictSpec):
        return _predicting(workspace, spec.split)
    if isinstance(spec, RankSpec):
        return _ranking(workspace, spec)
    if isinstance(spec, ExplainSpec):
        return _explaining(workspace, spec)
    if isinstance(spec, SuspectsSpec):
        return _suspecting(workspace, spec)
    if isinstance(spec, HorizonSpec):
        return _trusting(workspace, spec)
    if isinstance(spec, ForecastSpec):
        return _forecasting(workspace, spec)
    if isinstance(spec, FadingSpec | DivergenceSpec | TracinErrorSpec):
        found = study_cost(workspace, spec, TANGENT)
        return _warming(workspace, spec) + found if found.forward else found
    if isinstance(spec, CorrectionSetSpec):
        return _correcting_all(workspace, spec)
    if isinstance(spec, CorrectionStudySpec):
        return correction_study_cost(workspace, spec, _warming(workspace, spec))
    if isinstance(spec, MislabelledSpec):
        return mislabelled_cost(workspace, spec, _warming(workspace, spec))
    if isinstance(spec, RetrainSpec):
        return retrain_cost(workspace, spec)
    return _indexing(workspace, spec) if isinstance(spec, IndexSpec) else _correcting(workspace, spec)


def _predicting(workspace: "Workspace", split: Split) -> Cost:
    return Cost(forward=len(workspace.dataset.splits[split]))


def _ranking(workspace: "Workspace", spec: RankSpec) -> Cost:
    split, _ = workspace.locate(spec.example)
    query, cost = resolve(workspace, spec), Cost()
    if query is None:  # any target costs the same
        query, cost = Query(spec.example, 0), _predicting(workspace, split)
    return cost + method_for(workspace, spec).cost(workspace, spec, [query], spec.refresh)


def _explaining(workspace: "Workspace", spec: ExplainSpec) -> Cost:
    found = explained(workspace, spec)
    if found is None:
        return _predicting(workspace, spec.split)
    return method_for(workspace, spec).cost(workspace, spec, found)


def _suspecting(workspace: "Workspace", spec: SuspectsSpec) -> Cost:
    method = method_for(workspace, spec)
    if not spec.refresh and method.self_scores(workspace, spec) is not None:
        return Cost()
    if spec.refresh:
        return method.cost(workspace, spec, [], refresh=True)
    passes = CheckpointsSettings(**spec.settings).count if isinstance(method, TracInMulti) else 1
    passed = Cost(projections=((len(workspace.train), 1),) * passes)
    return passed + method.preparation(workspace, spec, 1) if isinstance(method, GradientMethod) else passed


def _indexing(workspace: "Workspace", spec: IndexSpec) -> Cost:
    rows = sample_size(workspace, spec.hessian_rows)
    settings = {"k": spec.k, "iterations": spec.iterations, "hessian_rows": rows, "seed": spec.seed}
    shared = {"workspace": spec.workspace, "checkpoint": spec.checkpoint, "scope": spec.scope}
    index = Abif().table(workspace, RankSpec(**shared, example="", method="abif", settings=settings))
    solved = index is not None and has_basis(index) and not spec.rebuild
    products = 0 if solved else spec.iterations
    return Cost(hessian=products * rows, projections=((len(workspace.train), spec.k),), vectors=spec.k + products)


def _correcting(workspace: "Workspace", spec: CorrectionSpec) -> Cost:
    split, _ = workspace.locate(spec.example)
    # both trajectories train on the batch and pass the perturbation's rows; the retention rows are read
    trajectories = 2 + (TANGENT if spec.predict else 0)
    steps = Cost(
        trained=(WARM_BATCHES * spec.batch_size if warms(workspace, spec) else 0)
        + round(spec.steps * trajectories * (spec.batch_size + spec.k)),
        forward=spec.steps * (RETENTION_ROWS + 2 + (0 if spec.max_validation_loss is None else VALIDATION_ROWS)),
        vectors=TANGENT_COPIES[optimizer_kind(workspace, spec)] if spec.predict else 0,
    )
    if fills(workspace, spec):
        steps += outputs(workspace, spec)
    ranking = Cost() if spec.strategy == "random" else _ranking(workspace, ranking_spec(workspace, spec))
    return ranking + _predicting(workspace, split) + steps


def _correcting_all(workspace: "Workspace", spec: CorrectionSetSpec) -> Cost:
    """Return the rankings of all, and the steps: one trajectory has every example's rows beside the batch."""
    alone = [spec.alone(example) for example in spec.examples]
    rankings = Cost()
    if spec.strategy != "random":
        asked = [ranking_spec(workspace, each) for each in alone]
        queries = [resolve(workspace, each) or Query(each.example, 0) for each in asked]  # one pass for all
        rankings = method_for(workspace, asked[0]).cost(workspace, asked[0], queries, False)
    more = len(alone) - 1
    rows = Cost(trained=2 * spec.steps * spec.k * more, forward=2 * spec.steps * more)
    return rankings + _correcting(workspace, alone[0].model_copy(update={"strategy": "random"})) + rows


def _trusting(workspace: "Workspace", spec: HorizonSpec) -> Cost:
    kept = registry.horizon_ready(workspace, spec)
    repeats, trajectories = spec.repeats - (kept.repeats if kept else 0), spec.train_rows + 1
    ranking = _ranking(workspace, spec.ranking)
    if not repeats:
        return ranking
    # every trajectory trains on the batch and a row; the test row is read
    steps = repeats * spec.steps * trajectories
    cost = Cost(trained=steps * (spec.batch_size + 1), forward=steps)
    return ranking + _warming(workspace, spec) + cost + outputs(workspace, spec)


def _forecasting(workspace: "Workspace", spec: ForecastSpec) -> Cost:
    if registry.forecast_ready(workspace, spec) is not None:
        return Cost()
    steps = spec.steps * (1 + TANGENT * len(spec.rows))
    held = TANGENT_COPIES[optimizer_kind(workspace, spec)]
    each = 2 * held * NUMBER * scope_size(workspace, spec.checkpoint, spec.scope)  # old and new ones side by side
    together = max(1, min(len(spec.rows), MEMORY_BYTES // each))
    cost = Cost(trained=round(steps * (spec.batch_size + 1)), vectors=held * together)
    return _warming(workspace, spec) + cost + outputs(workspace, spec)


def _warming(workspace: "Workspace", spec: TrajectorySpec) -> Cost:
    return Cost(trained=WARM_BATCHES * spec.batch_size if warms(workspace, spec) else 0)
