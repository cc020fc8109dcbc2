"""How many rows a correction tunes on, and how much of the batch's weight they carry."""

import streamlit as st

from pages.components.correction_settings import BATCH, EVEN, SHARE, K


def weight() -> None:
    """Show k, b and the share."""
    rows, batch_size = st.columns(2)
    rows.number_input("Rows (k)", min_value=1, step=1, key=K, persist_state="session")
    batch_size.number_input("Batch size (b)", min_value=1, step=1, key=BATCH, persist_state="session")
    st.toggle(
        "No up-sampling, k / (k + b)",
        key=EVEN,
        persist_state="session",
        help="each chosen row counts as much as one row of the batch",
    )
    even = st.session_state[EVEN]
    if even:
        k, batch = st.session_state[K], st.session_state[BATCH]
        st.session_state[SHARE] = min(95, round(100 * k / (k + batch)))
    st.slider(
        "Share of the batch's weight",
        min_value=0,
        max_value=95,
        format="%d %%",
        key=SHARE,
        disabled=even,
        persist_state="session",
        help="0 % is the control: both runs are the same. Sweeps in the paper go to slightly more than half.",
    )
