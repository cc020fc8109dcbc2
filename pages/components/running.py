"""Runs on a page: start one, follow it with progress and cancel, find the one that belongs here."""

import time
from collections.abc import Callable
from typing import Literal

import streamlit as st

from influence_core.errors import UserError
from influence_core.events import Result
from influence_core.runs import client
from influence_core.runs.directory import RunDirectory
from influence_core.runs.registry import AnyRunSpec
from influence_core.runs.state import RunState
from pages.components import state
from pages.components.errors import show_error, shown_errors
from pages.components.text import duration, plain

REFRESH = 1.0  # seconds between two looks at a live run
_PACE = "pace"  # session: run id -> (phase, done, when first seen)
_SECONDS_SEEN, _SHARE_SEEN = 5.0, 0.01  # how much has to be seen of a phase before its end is foretold

WORDS = {
    "pending": "waiting",
    "running": "running",
    "finished": "finished",
    "failed": "failed",
    "killed": "cancelled",
    "crashed": "crashed",
}


def start(spec: AnyRunSpec, what: str) -> None:
    """Hand a run to the engine, select it (``?run=``) and run the page again; errors are shown."""
    with shown_errors():
        with st.spinner("Handing it to the engine…"):
            run_id = client.submit(spec, what=what, who=state.annotator())
        state.select(run=run_id)
        st.rerun()


def run_for(spec: AnyRunSpec) -> RunDirectory | None:
    """Return the run of exactly this spec: the selected one, or one that waits or runs anywhere."""
    chosen = selected_run()
    if chosen is not None and chosen.spec() == spec:
        return chosen
    for found in RunDirectory.list_runs():
        if not found.is_over:
            run = RunDirectory.open(found.id)
            if run.spec() == spec:
                return run
    return None


def selected_run(*kinds: str) -> RunDirectory | None:
    """Return the run named by the URL, if there is one and it is of these kinds (any if none are given)."""
    run_id = state.selected(state.RUN)
    if run_id is None:
        return None
    try:
        run = RunDirectory.open(run_id)
    except UserError as error:
        show_error(str(error))
        state.select(run=None)
        return None
    return run if not kinds or run.record().kind in kinds else None


def result_of(run: RunDirectory) -> dict[str, object] | None:
    """Return the value that a finished run ended with."""
    events, _ = run.events()
    return events[-1].value if events and isinstance(events[-1], Result) else None


def follow(run: RunDirectory, above: Callable[[RunDirectory], None] | None = None) -> RunState:
    """Show a live run with progress, time left and cancel, or why it ended without a result.

    ``above`` shows more of a live run, each time it is looked at.
    When a live run ends the page runs again, once. Returns the state as it is now.
    """
    found = run.state()
    if not found.is_over:
        _live(run.id, above)
    elif found.state != "finished":
        show_ending(found)
    return found


def follow_or_offer(spec: AnyRunSpec, label: str, estimate: str, what: str, *, key: str, primary: bool = True) -> None:
    """Follow the run of this spec, or offer to start it with an estimate on the button."""
    run = run_for(spec)
    if run is not None and not follow(run).is_over:
        return
    kind: Literal["primary", "secondary"] = "primary" if primary else "secondary"
    if st.button(f"{label} ({estimate})", key=key, type=kind, icon=":material/play_arrow:"):
        start(spec, what)


def show_ending(found: RunState) -> None:
    """Say in words how a run ended."""
    if found.state == "killed":
        st.info("This run was cancelled. What it had finished is kept; it can be started again.")
    elif found.state in ("failed", "crashed"):
        show_error(f"The run {WORDS[found.state]}: {found.message or 'without a message'}")


def progress_words(found: RunState) -> str:
    """Write where a run stands ("projecting the training rows, 1,200 of 8,000 rows, about 90 s left")."""
    if found.state == "pending":
        return f"waiting, place {found.position} in the queue"
    if found.cancelling:
        return "stopping"
    if not found.phase or found.done is None:
        return "starting" if found.state == "running" else WORDS[found.state]
    count = f"{found.done:,} of {found.total:,}" if found.total is not None else f"{found.done:,}"
    words = f"{found.phase}, {count} {found.unit}".strip()
    left = _left(found)
    return words if left is None else f"{words}, about {duration(left)} left"


def _left(found: RunState) -> float | None:
    """Seconds left in the phase, from the pace since this session first saw it."""
    if found.done is None or not found.total:
        return None
    paces: dict[str, tuple[str, int, float]] = st.session_state.setdefault(_PACE, {})
    phase, first, since = paces.get(found.id, ("", 0, 0.0))
    if phase != found.phase or found.done < first:
        paces[found.id] = (found.phase, found.done, time.monotonic())
        return None
    advanced, spent = found.done - first, time.monotonic() - since
    if advanced < _SHARE_SEEN * found.total or spent < _SECONDS_SEEN:
        return None
    return spent / advanced * (found.total - found.done)


@st.fragment(run_every=REFRESH)
def _live(run_id: str, above: Callable[[RunDirectory], None] | None) -> None:
    run = RunDirectory.open(run_id)
    found = run.state()
    if found.is_over:
        st.rerun()  # the whole page: it shows the result, and this fragment and its timer are gone
    if above is not None:
        above(run)
    share = found.done / found.total if found.done is not None and found.total else 0.0
    st.progress(min(1.0, share), text=plain(progress_words(found)))
    with st.container(horizontal=True, vertical_alignment="center"):
        spent = f"{duration(found.seconds)} so far. " if found.seconds else ""
        st.caption(f"{spent}The run goes on if you close this tab; this address leads back to it.")
        if st.button("Cancel", key=f"cancel_{run_id}", icon=":material/cancel:", disabled=found.cancelling):
            with shown_errors():
                client.cancel(run_id)
            st.rerun()
    if found.message:
        st.caption(plain(found.message))
