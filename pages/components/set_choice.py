"""From a list of mispredictions to a correction of several of them together."""

import pandas as pd
import streamlit as st

from influence_core.specs import MOST_TOGETHER
from pages.components import state

COUNT = "together_count"


def set_choice(found: pd.DataFrame) -> None:
    """Offer to correct the first so many of the listed wrong rows together; nothing where there are not two."""
    truth = found["gold"] if "gold" in found else found["label"]  # what a correction aims at
    wrong = found[found["prediction"] != truth]["id"].tolist()
    if len(wrong) < 2:
        return
    most = min(MOST_TOGETHER, len(wrong))
    if not 2 <= st.session_state.get(COUNT, 0) <= most:
        st.session_state[COUNT] = min(5, most)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        count = st.number_input(
            "Correct the first … together", min_value=2, max_value=most, step=1, key=COUNT, width=220
        )
        st.button(
            f"Correct {count} together",
            key="correct_together",
            icon=":material/join_inner:",
            on_click=_take,
            args=(wrong[:count],),
            help="one run with a group of training rows for each of them, in the order of the list",
        )
    if st.session_state.pop(_GO, False):
        st.switch_page("pages/correct.py", query_params=state.url())


_GO = "together_go"


def _take(ids: list[str]) -> None:
    state.select(**{state.SET: state.as_set(ids), state.RUN: None})
    st.session_state[_GO] = True
