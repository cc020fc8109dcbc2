"""The list beside the row: every row of the queue with its verdict; a click opens it."""

from collections.abc import Mapping

import streamlit as st

from influence_core.labels import Verdict
from influence_core.workspace import Workspace
from pages.components import state
from pages.components.label_words import ICONS, VERDICTS
from pages.components.relabel_queue import Queue
from pages.components.text import first_words, plain

_CHOICE = "relabel_choice"


def relabel_list(
    workspace: Workspace, queue: Queue, row: str, verdicts: Mapping[str, Verdict], labels: Mapping[str, str]
) -> None:
    """Show the queue; the options are ids, so a list that changes never opens another row than the one clicked."""
    texts = {example: first_words(str(workspace.example(example)["text"]), 44) for example in queue.ids}
    if row in queue.ids:
        st.session_state[_CHOICE] = row
    st.radio(
        "Rows of the list",
        queue.ids,
        index=None,
        key=_CHOICE,
        format_func=lambda example: plain(texts[example]),
        captions=[_caption(labels[example], verdicts.get(example)) for example in queue.ids],
        label_visibility="collapsed",
        on_change=_open,
    )


def _caption(label: str, verdict: Verdict | None) -> str:
    done = "waiting" if verdict is None else f"{ICONS[verdict]} {VERDICTS[verdict]}"
    return f"{plain(label)} · {done}"


def _open() -> None:
    chosen = st.session_state.get(_CHOICE)
    if chosen is not None:
        state.select(row=str(chosen))
