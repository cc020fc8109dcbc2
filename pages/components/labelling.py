"""Recording decisions about labels: each with the id and the label that was on screen, never a position."""

import uuid

import streamlit as st

from influence_core.errors import UserError
from influence_core.labels import LabelEvent, LabelStore, Verdict
from influence_core.workspace import Workspace
from pages.components import state

SOURCE = "app"  # of the label events that pages write

_EVENT_IDS = "label_event_ids"  # row id -> id of the event that this row's buttons will write
_LAST = "label_last_event"  # the last event written in this session
_REFUSED = "label_refused"  # why the last decision was not written
_TOAST = "label_toast"  # shown once


def event_id(row: str) -> str:
    """Return the id of the event that a decision on this row will have, made when the row is first shown.

    A double click sends the same id twice, and the store keeps one event. The buttons carry it in
    their keys too, so that a late click on one row's button never reaches the next row's.
    """
    ids: dict[str, str] = st.session_state.setdefault(_EVENT_IDS, {})
    return ids.setdefault(row, uuid.uuid4().hex)


def note_key(row: str) -> str:
    """Return the key of the note field of this row's coming decision."""
    return f"note-{event_id(row)}"


def decide(
    workspace: Workspace, row: str, expect: str, new: str, verdict: Verdict, identity: str, following: str | None
) -> None:
    """Record one decision (a button's callback) and open the row that follows.

    ``expect`` is the label that was shown, ``identity`` the event's id. A conflict writes nothing
    and stays on the row, with the message that carries both labels.
    """
    try:
        event = workspace.relabel(
            row,
            new,
            expect=expect,
            annotator=state.annotator().strip(),
            note=str(st.session_state.get(f"note-{identity}", "")),
            verdict=verdict,
            event_id=identity,
            source=SOURCE,
        )
    except UserError as error:
        st.session_state[_REFUSED] = str(error)
        note = st.session_state.get(f"note-{identity}", "")
        _forget(row)  # what is on screen from now on is another sight of the row
        st.session_state[note_key(row)] = note  # which the note outlives
        return
    _remember(event)
    _forget(row)
    if following is not None:
        state.select(row=following)


def undo(event: LabelEvent) -> None:
    """Undo one decision (a button's callback) and show its row again."""
    try:
        undone = LabelStore().undo(event.event_id, annotator=state.annotator().strip(), source=SOURCE)
    except UserError as error:
        st.session_state[_REFUSED] = str(error)
    else:
        _remember(undone)
    _forget(event.example)
    state.select(row=event.example)


def last_event() -> LabelEvent | None:
    """Return the last event that this session wrote."""
    found = st.session_state.get(_LAST)
    return found if isinstance(found, LabelEvent) else None


def refusal() -> str | None:
    """Return, once, why the last decision was not written."""
    found = st.session_state.pop(_REFUSED, None)
    return None if found is None else str(found)


def fresh_event() -> LabelEvent | None:
    """Return, once, the event that was just written."""
    found = st.session_state.pop(_TOAST, None)
    return found if isinstance(found, LabelEvent) else None


def _remember(event: LabelEvent) -> None:
    st.session_state[_LAST] = event
    st.session_state[_TOAST] = event
    st.session_state.pop(_REFUSED, None)


def _forget(row: str) -> None:
    ids: dict[str, str] = st.session_state.setdefault(_EVENT_IDS, {})
    ids.pop(row, None)
