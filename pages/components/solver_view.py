"""How the solves behind Hessian-based rankings went: residuals and curvature, or the offer to compute them."""

import plotly.graph_objects as go
import streamlit as st

from influence_core import charts
from influence_core.attribution.methods import METHODS
from influence_core.attribution.ranking import resolve
from influence_core.charts import Solve
from influence_core.estimates import estimate
from influence_core.settings import METHOD_NAMES
from influence_core.specs import RankSpec
from influence_core.workspace import Workspace
from pages.components import settings_form
from pages.components.guard import Context
from pages.components.running import follow_or_offer

SOLVERS = {"hif-cr": "Conjugate Residual", "hif-cg": "Conjugate Gradient"}


def read_solve(workspace: Workspace, spec: RankSpec) -> Solve | None:
    """Return the kept solve behind a ranking of one of `SOLVERS`, or None."""
    query = resolve(workspace, spec)
    ready = None if query is None or spec.method is None else METHODS[spec.method].ready(workspace, spec, query)
    if ready is None or spec.method is None:
        return None
    arrays = ready.query
    return Solve(
        name=SOLVERS[spec.method],
        residual=float(arrays["true_residuals"][0]),
        residuals=arrays["residuals"],
        curvatures=arrays["curvatures"],
        best=int(arrays["best"][0]),
        converged=bool(arrays["converged"][0]),
        negative=int(arrays["negative"][0]),
        breakdown=int(arrays["breakdown"][0]),
    )


def solver_view(context: Context, asked: RankSpec) -> None:
    """Show the solves for the test row of a spec, one solver beside the other, with the session's settings."""
    workspace, solves = context.workspace, []
    st.subheader("Solving H x = ∇l for this test row", anchor=False)
    for method, name in SOLVERS.items():
        base = {"example": asked.example, "target": asked.target, "by": asked.by}
        options = {**context.spec, **base, "method": method, "settings": settings_form.chosen(method)}
        spec = workspace.spec(RankSpec, options)
        solve = read_solve(workspace, spec)
        if solve is not None:
            solves.append(solve)
            continue
        words = estimate(workspace, spec).words
        what = f"rank for {spec.example} with {METHOD_NAMES[method]}"
        follow_or_offer(spec, f"Solve by {name}", words, what, key=f"solve_{method}", primary=False)
    if not solves:
        st.caption("Nothing is solved for this test row yet. A solve also gives the ranking of that method.")
        return
    _draw(charts.residual_history(solves), "residuals")
    for solve in solves:
        st.text(solve.words)
        if solve.breakdown >= 0:
            st.caption(f"After iteration {solve.breakdown} it broke down (rᵀHr ≈ 0) and MINRES went on.")
    for solve in solves:
        _draw(charts.curvatures(solve), f"curvatures_{solve.name}")


def _draw(figure: go.Figure, key: str) -> None:
    st.plotly_chart(figure, key=f"solver_{key}", config={"displayModeBar": False}, alt=charts.alt_text(figure))
