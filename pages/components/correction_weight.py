"""How many rows a correction tunes on, and how much of the batch's weight they carry."""

import streamlit as st

from influence_core.charts import number
from influence_core.specs import HIGHEST_SHARE
from pages.components.correction_settings import BATCH, CONTROL, EVEN, RUN_SHARE, SHARE, K

Share = float | str  # in %, or EVEN
HIGHEST = round(100 * HIGHEST_SHARE)  # in %
LOWEST = 1  # in %


def weight(examples: int = 1) -> None:
    """Show k, b and the share: from no up-sampling to slightly more than half, or 0 as the control.

    Where k rows weigh more than that without up-sampling, as those of several examples may, less is offered.
    k rows are for each of so many ``examples``, the share is that of all of them.
    """
    rows, batch_size = st.columns(2)
    rows.number_input("Rows (k)", min_value=1, step=1, key=K, persist_state="session")
    batch_size.number_input("Batch size (b)", min_value=1, step=1, key=BATCH, persist_state="session")
    k, batch = st.session_state[K] * examples, st.session_state[BATCH]
    if examples > 1:
        st.caption(f"k for each of the {examples} rows: {k:,} together.")
    offered = shares(k, batch, st.session_state[RUN_SHARE])
    if st.session_state[SHARE] not in offered:  # of other sizes
        st.session_state[SHARE] = EVEN
    if _even(k, batch) >= HIGHEST:
        st.caption(
            f"{k:,} rows beside batches of {batch:,} carry {_words(EVEN, k, batch)} of the weight without any "
            f"up-sampling. The paper's sweeps end at slightly more than half, {HIGHEST} %: choose less here, lower k "
            "or raise b."
        )
    st.select_slider(
        "Share of the batch's weight",
        offered,
        format_func=lambda share: _words(share, k, batch),
        key=SHARE,
        disabled=st.session_state[CONTROL],
        persist_state="session",
        help="at no up-sampling, s₀ = k / (k + b), each chosen row counts as much as one row of the batch; the "
        "paper's sweeps go to slightly more than half (Sec. 6)",
    )
    with st.container(horizontal=True, horizontal_alignment="distribute"):
        for end in (offered[0], offered[-1]):
            st.caption(_end(end, st.session_state[RUN_SHARE]), width="content")
    st.toggle(
        "Control, 0 %: both runs are the same",
        key=CONTROL,
        persist_state="session",
        help="the chosen rows get no weight: what is seen then is the training on its own",
    )


def shares(k: int, batch: int, of_run: float | None = None) -> list[Share]:
    """Return the shares to choose from (in %), lowest first, with the one of a run that is filled in from."""
    even = _even(k, batch)
    steps = [share for share in range(LOWEST, HIGHEST + 1) if share > even or (share < even and even >= HIGHEST)]
    found = {*map(float, steps), *([] if of_run is None else [of_run])}
    return [*sorted(share for share in found if share < even), EVEN, *sorted(share for share in found if share >= even)]


def _even(k: int, batch: int) -> float:
    return 100 * k / (k + batch)


def _words(share: Share, k: int, batch: int) -> str:
    return f"{number(_even(k, batch))} %" if isinstance(share, str) else f"{share:g} %"


def _end(share: Share, of_run: float | None) -> str:
    """Say what an end of the slider is."""
    if isinstance(share, str):
        return "no up-sampling"
    if share == of_run:
        return "of the run"
    return "slightly more than half" if share == HIGHEST else f"{share:g} %"
