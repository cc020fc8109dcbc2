"""TracIn at one checkpoint (paper, Eq. 2 with a single term): products of loss gradients."""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from influence_core.attribution.base import Query
from influence_core.attribution.gradient import Directions, GradientMethod, Pass
from influence_core.events import Progress
from influence_core.settings import Method
from influence_core.specs import Attributed

if TYPE_CHECKING:
    from influence_core.workspace import Workspace


class TracIn(GradientMethod):
    """d_z = g_z, so score = η · ⟨g_z, g_x⟩ with the checkpoint's own learning rate η.

    That is the mean rate since the checkpoint before it where the training recorded one (Eq. 2).
    """

    name: ClassVar[Method] = "tracin"

    def rate(self, workspace: "Workspace", spec: Attributed) -> float | None:
        """See base; a rate of 0 says nothing of the steps before it (the end of a schedule, logged or not)."""
        optimizer: dict[str, Any] = workspace.checkpoint(spec.checkpoint).optimizer or {}
        return optimizer.get("mean_learning_rate") or optimizer.get("learning_rate") or None

    def directions(self, given: Pass, queries: Sequence[Query]) -> Generator[Progress, None, Directions]:
        """See base."""
        yield from ()
        return Directions(*given.work.query_directions(queries))
