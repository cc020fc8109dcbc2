"""Where the rows to relabel come from: the ranking of the selected test row, or the suspects."""

import streamlit as st

from pages.components import state
from pages.components.running import selected_run

SOURCE = "source"  # in the URL as well
RANKING = "A ranking"
SUSPECTS = "Suspects"


def pick_source() -> str:
    """Return which rows to go through: a ranking's, or the suspects (also where the run in the URL found them)."""
    default = SUSPECTS if selected_run("suspects") is not None else RANKING
    chosen = st.segmented_control(
        "Rows from",
        (RANKING, SUSPECTS),
        default=default,
        key=SOURCE,
        required=True,
        bind="query-params",
        on_change=leave,
    )
    return chosen or default


def leave() -> None:
    """Leave the queue of suspects and its row."""
    st.session_state.pop(state.SUSPECTS, None)
    state.select(row=None)
