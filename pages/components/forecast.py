"""In a row's card: what training on this row as well is predicted to do to the test row's loss, when asked."""

import streamlit as st

from influence_core import charts
from influence_core.estimates import estimate
from influence_core.runs import registry
from influence_core.specs import ForecastSpec, RankSpec
from pages.components.errors import shown_errors
from pages.components.guard import Context
from pages.components.running import follow_or_offer, selected_run
from pages.components.text import plain

_OPEN = "forecast_open"  # (test row, training row) whose forecast is shown
_ADOPTED = "forecast_adopted"  # the run whose row was opened


def forecast(context: Context, asked: RankSpec, row: str, key: str) -> None:
    """Show the button that opens a row's forecast, and, of the one that is open, the curves or the offer of a run."""
    place = (asked.example, row)
    _adopt()
    opened = st.session_state.get(_OPEN) == place
    icon = ":material/expand_less:" if opened else ":material/timeline:"
    label = "What a step on this row would do"
    st.button(label, key=f"forecast_{key}_{row}", icon=icon, type="tertiary", on_click=_toggle, args=(place,))
    if opened:
        with shown_errors():
            _show(context, asked, row)


def _show(context: Context, asked: RankSpec, row: str) -> None:
    workspace = context.workspace
    spec = _spec(context, asked, row)
    found = registry.forecast_ready(workspace, spec)
    if found is None:
        st.caption(
            f"Trains {spec.steps} steps from here, once, and predicts along the way how the loss of this test row "
            "would differ if this row stood in every batch."
        )
        words = estimate(workspace, spec).words
        follow_or_offer(spec, "Forecast", words, f"forecast of {row} for {spec.example}", key="forecast", primary=False)
        return
    figure = charts.forecast(found)
    st.plotly_chart(figure, key="forecast_chart", config={"displayModeBar": False}, alt=charts.alt_text(figure))
    st.caption(
        plain(
            f"The row, labelled {found.labels[0]}, counts as one more row of each batch of {found.batch_size} "
            f"(ε = {charts.number(found.epsilon)}). Below zero, it lowers the loss of “{found.target}”. Eq. 6 follows "
            "the row's effect through all later steps; Eq. 2, TracIn, adds up gradients and knows of no later step."
        )
    )


def _spec(context: Context, asked: RankSpec, row: str) -> ForecastSpec:
    options = {"example": asked.example, "target": asked.target, "scope": asked.scope, "rows": (row,)}
    size = min(int(ForecastSpec.model_fields["batch_size"].default), len(context.workspace.train))
    own = {"batch_size": size, "epsilon": 1 / size}  # as one more row of each batch
    return context.workspace.spec(ForecastSpec, {**context.spec, **options, **own})


def _toggle(place: tuple[str, str]) -> None:
    st.session_state[_OPEN] = None if st.session_state.get(_OPEN) == place else place


def _adopt() -> None:
    """Open the row of a forecast that an address brought back, once a run."""
    run = selected_run("forecast")
    spec = None if run is None else run.spec()
    if run is None or not isinstance(spec, ForecastSpec) or st.session_state.get(_ADOPTED) == run.id:
        return
    st.session_state[_ADOPTED] = run.id
    st.session_state[_OPEN] = (spec.example, spec.rows[0])
