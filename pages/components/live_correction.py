"""A correction while it waits or runs: phase, charts that grow, stop and cancel."""

import time
from collections.abc import Callable

import streamlit as st

from influence_core.runs import client
from influence_core.runs.directory import RunDirectory
from influence_core.runs.state import RunState, now
from influence_core.runs.stopping import request_stop, stop_requested
from influence_core.specs import Correcting, CorrectionSpec
from influence_core.workspace import Workspace
from pages.components.correction_charts import draw, show_changed
from pages.components.errors import shown_errors
from pages.components.run_reading import RunReading
from pages.components.run_words import elapsed
from pages.components.text import plain

REFRESH = 1.0  # seconds between two looks
EAGER, SOON = 0.25, 10.0  # seconds between two looks, while the first point of a run so young is awaited
_READING = "correct_reading"


def reading_of(run: RunDirectory, *, new: bool = True) -> RunReading:
    """Return all that this session has read of a run, with what is ``new``; a reload reads from the start."""
    kept = st.session_state.get(_READING)
    if not isinstance(kept, RunReading) or kept.run_id != run.id:
        kept = st.session_state[_READING] = RunReading(run.id)
    if new:
        kept.read(run, time.monotonic())
    return kept


def follow(run: RunDirectory, spec: Correcting, show: Callable[[RunReading], None]) -> None:
    """Follow a run until it is over: progress, and what ``show`` draws of its steps so far.

    Then, and where it is to be looked at more or less often, the whole page runs once more with another timer.
    """
    every = pace(run.state(), reading_of(run))

    def look() -> None:
        drawn = reading_of(run, new=False).last_step is not None  # so the first point is on screen before a rerun
        found, reading = run.state(), reading_of(run)
        if found.is_over or (drawn and every == EAGER):
            st.rerun()
        progress(run, found, reading, spec.steps)
        if reading.last_step is None:
            st.caption("The charts fill in from step 0, when rows and optimizer are ready.")
        if reading.last_step is not None or found.state == "running":
            show(reading)  # empty charts as well: the browser loads what draws them while the run prepares
        if reading.last_step is None and pace(found, reading) != every:
            st.rerun()

    st.fragment(look, run_every=every)()


def pace(found: RunState, reading: RunReading) -> float:
    """Return the seconds between two looks: few while the first point may come at any moment."""
    young = 0 <= (now() - (found.started or found.created)).total_seconds() < SOON
    return EAGER if young and reading.last_step is None else REFRESH


def live_correction(workspace: Workspace, run: RunDirectory, spec: CorrectionSpec, desired: str) -> None:
    """Follow the run of one correction."""

    def show(reading: RunReading) -> None:
        draw(run.id, reading.steps, desired)
        if reading.steps:
            show_changed(workspace, spec, run, reading.steps[-1])

    follow(run, spec, show)


def progress(run: RunDirectory, found: RunState, reading: RunReading, steps: int) -> None:
    """Show where a correction of at most so many steps is, with stop and cancel."""
    stopping = stop_requested(run.result)
    if found.state == "pending":
        words, share = f"waiting, number {found.position} in the queue", 0.0
    else:
        words, share = reading.words(steps), reading.share(steps)
    if found.cancelling:
        words = f"cancelling · {words}"
    elif stopping:
        words = f"stopping, then comparing on the whole test set · {words}"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.progress(share, text=plain(words), width="stretch")
        st.button(
            "Stop",
            key=f"stop_{run.id}",
            icon=":material/stop_circle:",
            type="primary",
            disabled=stopping or found.cancelling or found.state == "pending",
            help="ends at the next step; what it reached is compared on the whole test set and can be kept",
            on_click=request_stop,
            args=(run.result,),
        )
        if st.button(
            "Cancel",
            key=f"cancel_correction_{run.id}",
            icon=":material/cancel:",
            disabled=found.cancelling,
            help="ends it now, without a comparison",
        ):
            with shown_errors():
                client.cancel(run.id)
            st.rerun()
    spent = f"{elapsed(found.seconds)} so far · " if found.seconds is not None else ""
    st.caption(f"{spent}The run goes on if you close this tab; this address leads back to it.")
    if found.message:
        st.text(found.message)
