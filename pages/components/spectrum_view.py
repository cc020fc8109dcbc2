"""The Spectrum side of Influence: the Hessian's kept eigenvalues, what they mean for a solver, and the solves."""

import streamlit as st

from influence_core import charts
from influence_core.charts import number
from influence_core.specs import RankSpec
from influence_core.spectrum import Spectrum, spectrum
from pages.components import settings_form
from pages.components.guard import Context
from pages.components.offering import offer_index
from pages.components.ranking_words import scope_words
from pages.components.solver_view import solver_view
from pages.components.text import ago, plain, signed


def spectrum_side(context: Context, asked: RankSpec) -> None:
    """Show the spectrum of the ABIF index of the session's settings, or offer to build it; then the solves."""
    workspace = context.workspace
    base = {"example": asked.example, "target": asked.target, "by": asked.by, "method": "abif"}
    options = {**context.spec, **base, "settings": settings_form.chosen("abif")}
    spec = workspace.spec(RankSpec, options)
    found = spectrum(workspace, spec)
    if found is None:
        which = "with these settings " if spec.settings else ""
        why = f"The spectrum comes with the ABIF index, and there is none {which}for this checkpoint yet."
        offer_index(context, spec, why)
    else:
        _show(found)
    solver_view(context, asked)


def _show(found: Spectrum) -> None:
    key = found.key
    l2 = f" · l2 {number(found.l2)}" if found.l2 else ""
    st.caption(
        plain(
            f"Hessian of the mean loss over {key['hessian_rows']:,} training rows · {scope_words(key['scope'])} · "
            f"{key['iterations']:,} Lanczos iterations, seed {key['seed']}{l2} · built {ago(found.made)}"
        )
    )
    figure = charts.spectrum(found.values, found.residuals)
    st.plotly_chart(figure, key="spectrum", config={"displayModeBar": False}, alt=charts.alt_text(figure))
    figures = {
        "Negative": (f"{found.negative} of {len(found.values)}", "of the kept eigenvalues"),
        "Smallest": (signed(found.smallest), "of the kept eigenvalues; H's own is at most that"),
        "Largest residual": (number(float(found.residuals.max())), "Ritz residual ‖Hv − λv‖ of an eigenpair"),
        "‖QᵀQ − I‖": (number(found.orthogonality), "how far the Lanczos basis is from orthonormal; 0 is best"),
    }
    with st.container(horizontal=True, gap="medium"):
        for label, (value, text) in figures.items():
            st.metric(label, value, help=text, width="content")
    st.markdown(plain(meaning(found)))


def meaning(found: Spectrum) -> str:
    """Say what the signs mean for Conjugate Gradient and for damping."""
    count = len(found.values)
    if not found.negative:
        return (
            f"None of the {count} kept eigenvalues is negative: as far as these show, Conjugate Gradient would do "
            "without damping."
        )
    needed = number(-found.smallest)
    return (
        f"Conjugate Gradient needs every eigenvalue to be positive and would fail here. Damping makes H positive only "
        f"above {needed}; then it outweighs {found.hidden} of the {count - found.negative} positive eigenvalues kept "
        "here, and all that are smaller, so it hides most directions. ABIF and Conjugate Residual take the signs as "
        "they are."
    )
