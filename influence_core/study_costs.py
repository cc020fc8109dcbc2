"""What the studies on trajectories have left to compute, in the units of `attribution.base.Cost`; NumPy only."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from influence_core.artefacts import base_key
from influence_core.attribution.abif import Abif
from influence_core.attribution.base import Cost, Query
from influence_core.attribution.gradient import GradientMethod
from influence_core.attribution.methods import METHODS
from influence_core.attribution.tracin_multi import TracInMulti
from influence_core.home import read_json
from influence_core.settings import CheckpointsSettings, IndexSettings, Method
from influence_core.sizes import asks_few, optimizer_kind, outputs_kept, rows_asked, scope_size, tensors_size
from influence_core.specs import (
    DEFAULT_RATE,
    DivergenceSpec,
    FadingSpec,
    Scoped,
    TracinErrorSpec,
    TrajectorySpec,
)

if TYPE_CHECKING:
    from influence_core.workspace import Workspace

StudySpec = FadingSpec | DivergenceSpec | TracinErrorSpec
# In forward passes of one row through the whole model; measured with MiniLM-L6 and scope last:1, whose share is 1/6.
BACKWARD = 3  # passes through the scope, to train on a row behind the frozen part
OVERHEAD = 0.2  # of each row trained on, 0.1 of each row read, whatever the scope
PADDING = 1.75  # a random batch of texts beside rows sorted by length, as the forward rate is measured
BOTH_WAYS = 3  # steps' worth of a first step, which is made one by one and by vmap; charged to every repeat
DOUBLE = 2  # float64 beside float32
BOUND_PRODUCTS = 20  # Hessian-vector products a step and ε, for Theorem 3's constants
DEFAULT_K = 32
TANGENT_COPIES = {"adam": 8, "sgd": 4}  # parameters' worth: two sets of tangents, ∇l_B, Eq. 2's sum
ARRAYS = {"fading": "trajectories", "divergence": "series", "tracin-error": "errors"}  # artefact → arrays of a repeat
BLOCKS = ("num_hidden_layers", "num_layers", "num_decoder_layers")


def study_cost(workspace: "Workspace", spec: StudySpec, tangent: float) -> Cost:
    """Return what a study costs but for warming its optimizer; repeats that are kept cost nothing.

    ``tangent`` is how many steps' worth a step is that carries ∇_ε θ.
    """
    if isinstance(spec, FadingSpec):
        left = _left(spec, kept(workspace, spec, train=spec.train_rows, test=spec.test_rows))
        trajectories = spec.train_rows + 2  # the base, and one with ε = 0
        passes = _passes(workspace, spec, trajectories, 1, reads=spec.test_rows)
        scored = [_scoring(workspace, spec, name, left) for name in spec.methods or _usual()]
        return sum(scored, _measuring(workspace, spec, left, passes, trajectories))
    count = len(spec.epsilons)
    if isinstance(spec, DivergenceSpec):
        there = [kept(workspace, spec, train=spec.rows, epsilon=weight) for weight in (*spec.epsilons, 0.0)]
        left = _left(spec, min(there[:-1]))
        floors = max(0, _left(spec, there[-1]) - left)  # of repeats that were kept without one
        products = BOUND_PRODUCTS * spec.steps * count * (spec.batch_size + spec.rows) if spec.bounds else 0
        trajectories = count + 2  # the base, and one with ε = 0
        passes, floor = (_passes(workspace, spec, each, spec.rows) for each in (trajectories, 2))
        measured = _measuring(workspace, spec, left, passes, trajectories)
        return Cost(hessian=left * products) + measured + _measuring(workspace, spec, floors, floor, 2)
    left = _left(spec, kept(workspace, spec, train=spec.rows) // len(spec.dtypes))
    times = sum(DOUBLE if dtype == "float64" else 1 for dtype in spec.dtypes)
    passes = times * _passes(workspace, spec, round(count + 1 + tangent), spec.rows)
    return _measuring(workspace, spec, left, passes, DOUBLE * (count + 1 + TANGENT_COPIES["sgd"]))


def _left(spec: StudySpec, kept: int) -> int:
    return max(0, spec.repeats - kept)


def kept(workspace: "Workspace", spec: StudySpec, epsilon: float | None = None, **rows: int) -> int:
    """Return how many parts of a study are kept, by settings and numbers of rows: of this seed, so its first ones.

    Of one ``epsilon`` where it is given.
    """
    wanted = {**base_key(workspace, spec.checkpoint, spec.scope), "state": spec.optimizer_state}
    wanted |= {name: getattr(spec, name) for name in ("steps", "seed", "batch_size", "dropout")}
    if not isinstance(spec, TracinErrorSpec):
        wanted["dtype"] = spec.dtype
    wanted |= {} if epsilon is None else {"epsilon": epsilon}
    found = 0
    for folder, key in workspace.artefacts.find(spec.kind, **wanted):
        sizes = all(len(key.get(name, ())) == count for name, count in rows.items())
        there = (folder / f"{ARRAYS[spec.kind]}.safetensors").exists()
        found += sizes and there and _same(workspace, spec, key)
    return found


def scope_share(workspace: "Workspace", checkpoint: str | None, scope: str | None) -> float:
    """Return which share of a forward pass lies in a scope: by blocks where the configuration counts them."""
    name, folder = scope or workspace.scope, Path(workspace.checkpoint(checkpoint).path)
    if name == "all":
        return 1.0
    file = folder / "config.json"
    config: dict[str, Any] = read_json(file) if file.exists() else {}
    blocks = sum(int(config[each]) for each in BLOCKS if isinstance(config.get(each), int))
    if name.startswith("last:") and blocks:
        return min(1.0, int(name.removeprefix("last:")) / blocks)
    return min(1.0, scope_size(workspace, checkpoint, name) / max(1, tensors_size(folder / "model.safetensors")))


def _passes(workspace: "Workspace", spec: TrajectorySpec, trajectories: int, rows: int, reads: int = 0) -> int:
    """Return the forward passes' worth of one repeat: each step, each trajectory trains on B_t and some rows."""
    return round((spec.steps + BOTH_WAYS) * trajectories * step_passes(workspace, spec, rows, reads))


def step_passes(workspace: "Workspace", spec: TrajectorySpec, rows: int, reads: int = 0) -> float:
    """Return the forward passes' worth of one step on B_t and some rows, with test rows read after it."""
    share = scope_share(workspace, spec.checkpoint, spec.scope)
    padding = PADDING if workspace.dataset.modality == "text" else 1.0
    return padding * ((BACKWARD * share + OVERHEAD) * (spec.batch_size + rows) + (share + OVERHEAD / 2) * reads)


def _measuring(workspace: "Workspace", spec: StudySpec, repeats: int, passes: int, trajectories: int) -> Cost:
    """Return the cost of repeats, the frozen part's outputs included where they are not there."""
    if repeats == 0:
        return Cost()
    made = outputs(workspace, spec)
    if isinstance(spec, FadingSpec) and asks_few(workspace, spec):
        made = Cost(forward=made.forward * rows_asked(workspace, spec) // len(workspace.train))
    return made + Cost(forward=repeats * passes, vectors=trajectories * copies(workspace, spec))


def outputs(workspace: "Workspace", spec: Scoped) -> Cost:
    """Return what the frozen part's outputs of training rows cost; nothing where they are known to be there."""
    if outputs_kept(workspace, spec.checkpoint, spec.scope):
        return Cost()
    return Cost(forward=round(len(workspace.train) * (1 - scope_share(workspace, spec.checkpoint, spec.scope))))


def _scoring(workspace: "Workspace", spec: FadingSpec, name: Method, repeats: int) -> Cost:
    """Return what a method's scores of all repeats that are left cost."""
    if repeats == 0:
        return Cost()
    asked, method, both = spec.of_method(name), METHODS[name], (spec.train_rows, spec.test_rows)
    if isinstance(method, Abif):
        k = IndexSettings(**asked.settings).k or DEFAULT_K
        return Cost(projections=((sum(both), k),) * repeats)
    if isinstance(method, TracInMulti):
        chosen = CheckpointsSettings(**asked.settings)
        passes = repeats * (len(chosen.names) or chosen.count)
        return Cost(projections=(both,) * passes, trained=passes * both[1])
    if not isinstance(method, GradientMethod) or name == "ekfac":  # out of a table of all rows
        queries = [Query(each, 0) for each in workspace.dataset.splits["test"]["id"].astype(str)[: both[1]]]
        return method.cost(workspace, asked, queries)
    prepared = method.preparation(workspace, asked, repeats * both[1])
    return prepared + Cost(projections=(both,) * repeats, trained=repeats * both[1])


def _usual() -> Sequence[Method]:
    return [method.name for method in METHODS.values() if method.name not in ("abif", "ekfac")]


def copies(workspace: "Workspace", spec: TrajectorySpec) -> int:
    """Return how many numbers a trajectory carries per parameter."""
    kind, own = _optimizer(workspace, spec)
    return 3 if kind == "adam" else 2 if own.get("momentum") else 1


def _optimizer(workspace: "Workspace", spec: TrajectorySpec) -> tuple[str, dict[str, Any]]:
    """Return the kind of optimizer that trains, and what the checkpoint records of that kind."""
    recorded = workspace.checkpoint(spec.checkpoint).optimizer or {}
    kind = optimizer_kind(workspace, spec)
    return kind, recorded if recorded.get("kind") == kind else {}


def _same(workspace: "Workspace", spec: StudySpec, key: dict[str, Any]) -> bool:
    """Whether a kept part was trained with the optimizer, the rate and the ε that are asked for."""
    if isinstance(spec, FadingSpec):
        weights = key["epsilon"] == spec.epsilon
    elif isinstance(spec, DivergenceSpec):
        weights = key["epsilon"] in spec.epsilons
    else:
        weights = key["epsilons"] == list(spec.epsilons)
    return weights and optimizer_kept(workspace, spec, key)


def optimizer_kept(workspace: "Workspace", spec: TrajectorySpec, key: dict[str, Any]) -> bool:
    """Whether a kept part was trained with the optimizer and the rate that are asked for."""
    kind, optimizer = _optimizer(workspace, spec)[0], key["optimizer"]
    rate = spec.learning_rate or DEFAULT_RATE[kind]
    return (optimizer["kind"], optimizer["learning_rate"]) == (kind, rate)
