"""A fading run while it waits or measures: where it stands, the curves as they grow, pause and cancel."""

import time

import streamlit as st

from influence_core.charts import divergence_so_far, noise_so_far, rows_so_far
from influence_core.runs import client
from influence_core.runs.directory import RunDirectory
from influence_core.runs.state import RunState
from influence_core.runs.stopping import request_stop, stop_requested
from influence_core.specs import FadingSpec
from pages.components.errors import shown_errors
from pages.components.fading_reading import FadingReading
from pages.components.fading_view import draw
from pages.components.fading_words import mixed_words
from pages.components.run_words import elapsed
from pages.components.text import plain

REFRESH = 3.0  # seconds between two looks; a step of all trajectories takes longer
_READING = "fading_reading"


def reading_of(run: RunDirectory, spec: FadingSpec) -> FadingReading:
    """Return all that this session has read of a run, with what is new; a reload reads from the start."""
    kept = st.session_state.get(_READING)
    if not isinstance(kept, FadingReading) or kept.run_id != run.id:
        kept = st.session_state[_READING] = FadingReading(run.id, spec.repeats, spec.steps)
    kept.read(run, time.monotonic())
    return kept


@st.fragment(run_every=REFRESH)
def live_fading(run_id: str, spec: FadingSpec) -> None:
    """Follow a run until it is over; then the whole page runs once more, without this fragment and its timer."""
    run = RunDirectory.open(run_id)
    found = run.state()
    if found.is_over:
        st.rerun()
    reading = reading_of(run, spec)
    _progress(run, found, reading)
    if reading.events:
        draw_events(run, spec, reading)
    else:
        st.caption("The curves begin with the first step, when the scores and the optimizer are ready.")


def draw_events(run: RunDirectory, spec: FadingSpec, reading: FadingReading) -> None:
    """Draw what a run has measured so far, its unfinished repeat included."""
    last = reading.events[-1]
    mixed = mixed_words(last.repeat, last.step, spec.steps)
    table, apart = rows_so_far(reading.events), divergence_so_far(reading.events)
    done = last.repeat if last.step == spec.steps else max(1, last.repeat - 1)  # the one under way makes no verdict
    draw(table, apart, spec.steps, done, run.id, noise=noise_so_far(reading.events), notes=[mixed])


def _progress(run: RunDirectory, found: RunState, reading: FadingReading) -> None:
    pausing = stop_requested(run.result)
    words = reading.words()
    if found.state == "pending":
        words = f"waiting, number {found.position} in the queue"
    elif found.cancelling:
        words = f"cancelling · {words}"
    elif pausing:
        words = f"pausing after this step · {words}"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.progress(reading.share, text=plain(words), width="stretch")
        st.button(
            "Pause",
            key=f"pause_{run.id}",
            icon=":material/pause:",
            type="primary",
            disabled=pausing or found.cancelling or found.state == "pending",
            help="ends after the step it is at; finished repeats are kept, the one under way starts again later",
            on_click=request_stop,
            args=(run.result,),
        )
        if st.button(
            "Cancel",
            key=f"cancel_fading_{run.id}",
            icon=":material/cancel:",
            disabled=found.cancelling,
            help="ends it now; finished repeats are kept all the same",
        ):
            with shown_errors():
                client.cancel(run.id)
            st.rerun()
    spent = f"{elapsed(found.seconds)} so far · " if found.seconds is not None else ""
    st.caption(f"{spent}The run goes on if you close this tab; this address leads back to it.")
    if found.message:
        st.text(found.message)
