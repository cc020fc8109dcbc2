"""TracIn under Adam's diagonal preconditioner (paper, Sec. 5.2)."""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from influence_core.attribution.base import Cost, Query
from influence_core.attribution.gradient import Directions, GradientMethod, Metric, Pass
from influence_core.events import Progress, through
from influence_core.fingerprints import tensors_fingerprint
from influence_core.settings import AdamSettings, Method
from influence_core.sizes import warm_kept
from influence_core.specs import WARM_BATCHES, Attributed

if TYPE_CHECKING:
    from influence_core.attribution.projection import Projection
    from influence_core.workspace import Workspace


CONSTANTS = ("beta1", "beta2", "eps", "weight_decay", "decoupled", "undecayed")  # of Adam, that change v̂ or P


class TracInAdam(GradientMethod):
    """score = g_zᵀ P g_x with P = diag(1 / (√v̂ + ε)), both gradients times P^½; cosine in that metric.

    v̂ is Adam's bias-corrected second moment after one unperturbed step (DEFINITIONS, Scores), from
    the checkpoint's own state, one warmed over 100 batches, or zeros. With the form "twice" P² stands
    in P's place.
    """

    name: ClassVar[Method] = "tracin-adam"

    def unavailable(self, workspace: "Workspace", spec: Attributed) -> str | None:
        """See base."""
        checkpoint = workspace.checkpoint(spec.checkpoint)
        wanted = AdamSettings(**spec.settings)
        recorded = checkpoint.optimizer or {}
        if wanted.state == "checkpoint" and not (carries(recorded) and "state" in recorded):
            return f"checkpoint {checkpoint.name} carries no Adam state: choose the warmed one"
        if wanted.batch_size > len(workspace.train):
            return f"batch size {wanted.batch_size} with {len(workspace.train)} training rows: choose a smaller one"
        return None

    def depends_on(self, workspace: "Workspace", spec: Attributed) -> dict[str, Any]:
        """See base; Adam's constants, and which state it is, by content."""
        own, checkpoint = AdamSettings(**spec.settings), workspace.checkpoint(spec.checkpoint)
        recorded = checkpoint.optimizer or {}
        constants = {name: recorded[name] for name in CONSTANTS if name in recorded} if carries(recorded) else {}
        constants |= {"form": own.form} if own.form != "once" else {}
        if (state := source(recorded, own)) != "checkpoint":
            return {"state": state, "batch_size": own.batch_size, "seed": own.seed, **constants}
        return {"state": tensors_fingerprint(Path(checkpoint.path) / str(recorded["state"])), **constants}

    def directions(self, given: Pass, queries: Sequence[Query]) -> Generator[Progress, None, Directions]:
        """Return g_z; the metric is applied by the projection."""
        yield from ()
        metric = given.metric.values
        assert metric is not None
        values, _ = given.work.query_directions(queries)
        squares = sum((values[name].double().square() * metric[name].double()).flatten(1).sum(1) for name in values)
        assert not isinstance(squares, int)
        return Directions(values, squares.sqrt().cpu().numpy().astype(np.float32))

    def metric(self, work: "Projection", spec: Attributed) -> Generator[Progress, None, Metric]:
        """Return P, or its square."""
        from influence_core.trajectory.preconditioner import adam_metric
        from influence_core.trajectory.start import Start, optimizer_of, start_state
        from influence_core.trajectory.step import TrainingStep

        own = AdamSettings(**spec.settings)
        checkpoint = work.workspace.checkpoint(spec.checkpoint)
        rows = yield from work.train()
        optimizer = optimizer_of(checkpoint, "adam")
        step = TrainingStep(work.classifier, work.scope, optimizer, rows, own.batch_size, own.seed)
        parameters = work.classifier.parameters(work.scope)
        start = yield from through(start_state(work.workspace, checkpoint, step, parameters, own.state), Start)
        found = adam_metric(step, parameters, start.state)
        if own.form == "twice":
            found = {name: value.square() for name, value in found.items()}
        return Metric(found, {"state": start.source})

    def preparation(self, workspace: "Workspace", spec: Attributed, queries: int) -> Cost:
        """Return the batches that warm the state, unless it is kept."""
        own, recorded = AdamSettings(**spec.settings), workspace.checkpoint(spec.checkpoint).optimizer or {}
        if source(recorded, own) != "warm" or warm_kept(workspace, spec, own.batch_size, own.seed):
            return Cost(vectors=3)
        return Cost(trained=WARM_BATCHES * own.batch_size, vectors=3)


def carries(recorded: dict[str, Any]) -> bool:
    """Whether a checkpoint's recorded optimizer is an Adam."""
    return recorded.get("kind") == "adam"


def source(recorded: dict[str, Any], own: AdamSettings) -> str:
    """Return where the state comes from: checkpoint, warm or zeros."""
    return own.state or ("checkpoint" if carries(recorded) and "state" in recorded else "warm")
