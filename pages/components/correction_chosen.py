"""What a correction's strategy notes of its rows, before a run and after it."""

from typing import Any

import streamlit as st

from influence_core.reports.chosen import chosen_words, few_desired
from pages.components.text import plain


def show_chosen(noted: dict[str, Any]) -> None:
    """Say it, as a warning where most of the chosen opponents lack the desired label (`reports.chosen`)."""
    if (said := chosen_words(noted)) is None:
        return
    if few_desired(noted):
        st.warning(plain(said), icon=":material/balance:")
    else:
        st.caption(plain(said))
