"""Runs: everything that waits, runs or ran; open, cancel, again."""

import streamlit as st

from influence_core.runs.directory import RunDirectory
from pages.components import run_compare, run_table, running
from pages.components.errors import shown_errors
from pages.components.guard import guard_any
from pages.components.run_words import KINDS
from pages.components.running import WORDS
from pages.components.study_results import STUDIES, study_result

REFRESH = 2.0  # seconds between two looks while a run waits or runs
STATES = "runs_states"
KIND = "runs_kinds"
DISCARDED = "runs_discarded"


def filters() -> None:
    """Show the filters; nothing chosen means all."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.pills(
            "State",
            list(WORDS),
            selection_mode="multi",
            format_func=lambda name: WORDS[name].capitalize(),
            key=STATES,
            persist_state="session",
        )
        st.pills(
            "Kind",
            list(KINDS),
            selection_mode="multi",
            format_func=KINDS.__getitem__,
            key=KIND,
            persist_state="session",
        )
        st.toggle("Show discarded", key=DISCARDED, persist_state="session")


def clear() -> None:
    """Take all filters off."""
    st.session_state[STATES] = []
    st.session_state[KIND] = []
    st.session_state[DISCARDED] = True


def table(refreshing: bool) -> None:
    """Show the runs that pass the filters; in a refreshing table the end of the last live run redraws the page."""
    with shown_errors():
        runs = RunDirectory.list_runs()
        live = sum(not run.is_over for run in runs)
        if refreshing and not live:
            st.rerun()  # once: the page then has no timer
        chosen = run_table.shown_runs(
            runs, st.session_state[STATES] or [], st.session_state[KIND] or [], bool(st.session_state[DISCARDED])
        )
        if not runs:
            st.info("No runs yet: rankings, indexes and corrections appear here as soon as one is started.")
        elif not chosen:
            st.info(f"None of the {len(runs):,} runs match these filters.")
            st.button("Clear filters", on_click=clear, key="runs_clear", icon=":material/filter_alt_off:")
        else:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.caption(f"{len(chosen):,} of {len(runs):,} runs · {live:,} waiting or running", width="content")
                st.button("Refresh", icon=":material/refresh:", key="runs_refresh", type="tertiary")
            run_compare.show_first()
            run_table.run_table(chosen)
    if (run_id := run_table.opening()) is not None:
        with shown_errors():
            run_table.open_run(run_id)
    with shown_errors():
        if (pair := run_compare.pair()) is not None:
            first, second = pair
            run_table.open_run(first, beside=[second])


@st.fragment(run_every=REFRESH)
def live_table() -> None:
    """Show the table and look again every few seconds."""
    table(refreshing=True)


def main() -> None:
    """Lay out the page."""
    guard_any("Runs")
    if (study := running.selected_run(*STUDIES)) is not None:
        study_result(study)
    filters()
    if any(not run.is_over for run in RunDirectory.list_runs()):
        live_table()
    else:
        table(refreshing=False)


main()
