"""One training row with its question, its label buttons with their keys, and its note."""

import streamlit as st

from influence_core.labels import Verdict
from influence_core.workspace import Workspace
from pages.components import labelling, state
from pages.components.text import plain

KEYS = "1234567890"  # of the first ten labels


def label_buttons(workspace: Workspace, row: str, shown: str, following: str | None) -> None:
    """Show one button per label, then unsure and skip; the current label's button confirms it.

    ``shown`` is the label on screen, which the event expects; ``following`` the row to open after.
    """
    identity = labelling.event_id(row)
    nameless = not state.annotator().strip()
    reason = "type your name first: every decision is kept with who made it" if nameless else None

    def button(label: str, key: str, new: str, verdict: Verdict, shortcut: str | None, confirms: bool = False) -> None:
        st.button(
            label,
            key=f"{key}-{identity}",
            help=reason,
            on_click=labelling.decide,
            args=(workspace, row, shown, new, verdict, identity, following),
            shortcut=shortcut,  # Streamlit prints it on the button, and leaves fields that one types in alone
            disabled=nameless,
            icon=":material/check:" if confirms else None,
            type="primary" if confirms else "secondary",
        )

    with st.container(horizontal=True):
        for number, name in enumerate(workspace.label_names, start=1):
            current = name == shown
            key = KEYS[number - 1] if number <= len(KEYS) else None
            if current:
                button(f"{plain(name)} (confirm)", f"label-{number}", name, "confirm", key, confirms=True)
            else:
                button(plain(name), f"label-{number}", name, "change", key)
        button("unsure", "unsure", shown, "unsure", "U")
        button("skip", "skip", shown, "skip", "S")
    st.text_input(
        "Note",
        key=labelling.note_key(row),
        placeholder="why, if it needs saying; kept with the decision",
        max_chars=500,
        persist_state="page",
    )


def saved_strip() -> None:
    """Say that the last decision is saved, with a button that takes it back."""
    from pages.components.label_words import clock, event_words

    if (fresh := labelling.fresh_event()) is not None:
        st.toast(f"Saved: {plain(event_words(fresh))}", icon=":material/cloud_done:")
    event = labelling.last_event()
    if event is None:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="saved"):
        st.markdown(":material/cloud_done: Saved")
        st.text(f"row {event.example}: {event_words(event)} · {clock(event)} · by {event.annotator}")
        if event.verdict != "undo":
            st.button(
                "Undo",
                key=f"undo-last-{event.event_id}",
                icon=":material/undo:",
                on_click=labelling.undo,
                args=(event,),
                shortcut="Z",
            )
