"""TracIn under Adam's diagonal preconditioner (paper, Sec. 5.2)."""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from influence_core.attribution.base import Cost, Query
from influence_core.attribution.gradient import Directions, GradientMethod
from influence_core.events import Progress, through
from influence_core.settings import AdamSettings, Method
from influence_core.specs import WARM_BATCHES, Attributed

if TYPE_CHECKING:
    from influence_core.attribution.projection import Projection
    from influence_core.models.classifier import Parameters
    from influence_core.workspace import Workspace


class TracInAdam(GradientMethod):
    """score = g_zᵀ P g_x with P = diag(1 / (√v̂ + ε)), both gradients times P^½; cosine in that metric.

    v̂ is Adam's bias-corrected second moment after one unperturbed step (DEFINITIONS, Scores), from
    the checkpoint's own state or one warmed over 100 batches.
    """

    name: ClassVar[Method] = "tracin-adam"

    def unavailable(self, workspace: "Workspace", spec: Attributed) -> str | None:
        """See base."""
        checkpoint = workspace.checkpoint(spec.checkpoint)
        wanted = AdamSettings(**spec.settings)
        if wanted.state == "checkpoint" and not carries_adam(workspace, spec):
            return f"checkpoint {checkpoint.name} carries no Adam state: choose the warmed one"
        if wanted.batch_size > len(workspace.train):
            return f"batch size {wanted.batch_size} with {len(workspace.train)} training rows: choose a smaller one"
        return None

    def directions(
        self, work: "Projection", spec: Attributed, queries: Sequence[Query], metric: "Parameters | None"
    ) -> Generator[Progress, None, Directions]:
        """Return g_z; the metric is applied by the projection."""
        yield from ()
        assert metric is not None
        values, _ = work.query_directions(queries)
        squares = sum((values[name].double().square() * metric[name].double()).flatten(1).sum(1) for name in values)
        assert not isinstance(squares, int)
        return Directions(values, squares.sqrt().cpu().numpy().astype(np.float32))

    def metric(self, work: "Projection", spec: Attributed) -> "Generator[Progress, None, Parameters | None]":
        """Return P."""
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
        return adam_metric(step, parameters, start.state)

    def preparation(self, workspace: "Workspace", spec: Attributed, queries: int) -> Cost:
        """Return the batches that warm the state, unless it is kept."""
        own = AdamSettings(**spec.settings)
        if own.state != "warm" and carries_adam(workspace, spec):
            return Cost(vectors=3)
        wanted = {"checkpoint": workspace.checkpoint(spec.checkpoint).fingerprint, "batch_size": own.batch_size}
        kept = any((path / "state.safetensors").exists() for path, _ in workspace.artefacts.find("warm", **wanted))
        return Cost(trained=0 if kept else WARM_BATCHES * own.batch_size, vectors=3)


def carries_adam(workspace: "Workspace", spec: Attributed) -> bool:
    """Whether the checkpoint carries an Adam state."""
    recorded = workspace.checkpoint(spec.checkpoint).optimizer or {}
    return recorded.get("kind") == "adam" and "state" in recorded
