"""Hessian-based influence functions (paper, Eq. 5): the inverse Hessian times the query's gradient."""

from abc import abstractmethod
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from influence_core.attribution import gradient
from influence_core.attribution.base import Arrays, Attributor, Cost, Query, SelfScores
from influence_core.attribution.gradient import Directions, GradientMethod, Pass
from influence_core.attribution.sample import decay_key, sample_size
from influence_core.curvature.memory import VECTORS
from influence_core.events import Progress
from influence_core.settings import Method, SolverSettings
from influence_core.sizes import scope_size
from influence_core.specs import Attributed

if TYPE_CHECKING:
    from torch import Tensor

    from influence_core.curvature.hvp import HessianOperator
    from influence_core.curvature.solution import Solution
    from influence_core.workspace import Workspace


SOLVER = max(VECTORS.values())  # vectors that a solver holds for each right-hand side


def solved_together(parameters: int) -> int:
    """Return how many right-hand sides of so many parameters are solved at once, at least 1."""
    return max(1, gradient.GROUP_BYTES // (4 * parameters * SOLVER))


class HessianBased(GradientMethod):
    """d_z solves (H + damping · I) d_z = g_z, so score = ⟨d_z, g_x⟩; many queries in one blocked solve.

    Each query's file also keeps the solve (`curvature.solution.Solution`): ``residuals`` [iterations + 1]
    relative to ‖g_z‖, ``curvatures`` [iterations] of the search directions, and, [1] each,
    ``true_residuals``, ``best``, ``converged``, ``negative`` and ``breakdown``.
    """

    judges_itself: ClassVar[bool] = False  # it would be a solve for every training row

    @abstractmethod
    def solve(self, operator: "HessianOperator", b: "Tensor", own: SolverSettings) -> "Iterator[Progress | Solution]":
        """Solve for b [Q, P]."""

    def depends_on(self, workspace: "Workspace", spec: Attributed) -> dict[str, Any]:
        """See base; the Hessian sample by its size, and the l2 that is in it."""
        own = SolverSettings(**spec.settings)
        rows = sample_size(workspace, own.hessian_rows)
        return {**own.model_dump(), "hessian_rows": rows, "l2": 0.0, **decay_key(workspace, spec.checkpoint)}

    def directions(self, given: Pass, queries: Sequence[Query]) -> Generator[Progress, None, Directions]:
        """See base; H has the labels that the table was made with."""
        import torch

        from influence_core.attribution.hessian import sampled_hessian
        from influence_core.curvature.flat import directions_from_flat
        from influence_core.curvature.solution import Solution

        own, work = SolverSettings(**given.spec.settings), given.work
        gradients, _ = work.query_directions(queries)
        x = torch.cat([gradients.pop(name).flatten(1) for name in work.scope.parameters], 1)  # [Q, P], g_z first
        sampled = yield from sampled_hessian(work, given.spec.checkpoint, own.hessian_rows, own.seed, given.cursor)
        kept, size = list[Arrays](), solved_together(work.size)
        for start in range(0, len(queries), size):
            rows = slice(start, min(start + size, len(queries)))
            found: Solution | None = None
            for event in self.solve(sampled.operator, x[rows], own):
                if isinstance(event, Solution):
                    found = event
                else:
                    place = f" for test rows {start + 1} to {rows.stop} of {len(queries)}" if len(queries) > 1 else ""
                    yield event.model_copy(update={"phase": event.phase + place})
            assert found is not None
            x[rows] = found.x
            kept += [_kept(found, place) for place in range(len(found.x))]
        norms = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64).cpu().numpy().astype(np.float32)
        return Directions(directions_from_flat(x, work.classifier.parameters(work.scope)), norms, kept)

    def notes(self, arrays: Arrays) -> dict[str, Any]:
        """Return how the solve went."""
        return {
            "iterations": int(arrays["best"][0]),
            "residual": float(arrays["true_residuals"][0]),
            "converged": bool(arrays["converged"][0]),
            "negative_at": int(arrays["negative"][0]),
            "breakdown_at": int(arrays["breakdown"][0]),
        }

    def preparation(self, workspace: "Workspace", spec: Attributed, queries: int) -> Cost:
        """Return the Hessian products, and the vectors that a solve holds beside the directions."""
        own, parameters = SolverSettings(**spec.settings), scope_size(workspace, spec.checkpoint, spec.scope)
        held = min(queries, self.group(parameters, len(workspace.train))) + SOLVER * min(
            queries, solved_together(parameters)
        )
        return Cost(hessian=own.iterations * queries * sample_size(workspace, own.hessian_rows), vectors=held)

    def self_scores(self, workspace: "Workspace", spec: Attributed) -> SelfScores | None:
        """Refuse, as the base does."""
        return Attributor.self_scores(self, workspace, spec)

    def compute_self(self, workspace: "Workspace", spec: Attributed, refresh: bool = False) -> Iterator[Progress]:
        """Refuse as well."""
        return Attributor.compute_self(self, workspace, spec, refresh)


class HifCr(HessianBased):
    """By Conjugate Residual (paper, App. F), which needs no positive H."""

    name: ClassVar[Method] = "hif-cr"

    def solve(self, operator: "HessianOperator", b: "Tensor", own: SolverSettings) -> "Iterator[Progress | Solution]":
        """See base."""
        from influence_core.curvature.conjugate_residual import conjugate_residual

        return conjugate_residual(
            operator.matmat, b, damping=own.damping, iterations=own.iterations, tolerance=own.tolerance
        )


class HifCg(HessianBased):
    """By Conjugate Gradient, which an indefinite H breaks: the curvatures that it met say so."""

    name: ClassVar[Method] = "hif-cg"

    def solve(self, operator: "HessianOperator", b: "Tensor", own: SolverSettings) -> "Iterator[Progress | Solution]":
        """See base."""
        from influence_core.curvature.conjugate_gradient import conjugate_gradient

        return conjugate_gradient(
            operator.matmat, b, damping=own.damping, iterations=own.iterations, tolerance=own.tolerance
        )


def _kept(found: "Solution", place: int) -> Arrays:
    """Return one query's part of a solve as arrays for its file."""
    arrays = {
        "residuals": found.residuals[:, place].double().cpu().numpy(),
        "curvatures": found.curvatures[:, place].double().cpu().numpy(),
    }
    for name in ("true_residuals", "best", "converged", "negative", "breakdown"):
        value: Tensor = getattr(found, name)[place]
        arrays[name] = value.reshape(1).cpu().numpy().astype(np.float64 if value.is_floating_point() else np.int64)
    return arrays
