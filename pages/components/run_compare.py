"""Two corrections of the table of runs on the same charts: one is chosen, then the other."""

import streamlit as st

from influence_core.errors import UserError
from influence_core.runs.directory import RunDirectory
from influence_core.runs.state import RunState
from influence_core.specs import AnyCorrection
from pages.components import data
from pages.components.correction_comparison import comparable
from pages.components.discarding import is_discarded

KINDS = ("correct", "correct-set")
_FIRST = "runs_compare_first"  # id of the run that was chosen
_PAIR = "runs_compare_pair"  # ids of both, once


def compare_button(found: RunState) -> None:
    """Offer to compare a finished correction with another; nothing for other runs."""
    if found.kind not in KINDS or found.state != "finished" or is_discarded(RunDirectory.open(found.id)):
        return
    chosen = st.session_state.get(_FIRST)
    label, tip = "Compare", "on the same charts as another correction of the same rows"
    if chosen == found.id:
        label, tip = "Chosen", "press again to choose none"
    elif chosen is not None:
        tip = f"with run {chosen[:8]}"
    st.button(
        label,
        key=f"pick_{found.id}",
        icon=":material/compare_arrows:",
        help=tip,
        type="primary" if chosen == found.id else "secondary",
        on_click=_pick,
        args=(found.id,),
    )


def show_first() -> None:
    """Say which run was chosen, and what to do next."""
    if (chosen := st.session_state.get(_FIRST)) is not None:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.info(
                f"Run {chosen[:8]} is chosen: press Compare at another correction of the same rows.", width="stretch"
            )
            st.button("Choose none", key="runs_compare_none", icon=":material/close:", on_click=_pick, args=(chosen,))


def pair() -> tuple[str, str] | None:
    """Return, once, the run on whose page two are to be compared, and the other.

    Raises `UserError` for two that do not correct the same rows to the same labels.
    """
    ids = st.session_state.pop(_PAIR, None)
    if ids is None:
        return None
    first, second = ids
    run = RunDirectory.open(first)
    spec = run.spec()
    assert isinstance(spec, AnyCorrection)
    if second not in comparable(data.workspace(spec.workspace), run, spec):
        raise UserError(
            f"runs {first[:8]} and {second[:8]} do not correct the same rows to the same labels: choose two that do"
        )
    return str(first), str(second)


def _pick(run_id: str) -> None:
    chosen = st.session_state.pop(_FIRST, None)
    if chosen is None:
        st.session_state[_FIRST] = run_id
    elif chosen != run_id:
        st.session_state[_PAIR] = (chosen, run_id)
