"""The list beside the row: every row of the queue with its verdict; a click opens it."""

from collections.abc import Mapping

import streamlit as st

from influence_core.labels import Verdict
from influence_core.workspace import Workspace
from pages.components import pictures, state
from pages.components.contents import beginning, has_images
from pages.components.label_words import ICONS, VERDICTS
from pages.components.relabel_queue import Queue
from pages.components.text import plain

_CHOICE = "relabel_choice"


def relabel_list(
    workspace: Workspace, queue: Queue, row: str, verdicts: Mapping[str, Verdict], labels: Mapping[str, str]
) -> None:
    """Show the queue; each choice carries an id, so that a list that changes opens the row that was clicked."""
    captions = {example: _caption(labels[example], verdicts.get(example)) for example in queue.ids}
    if has_images(workspace):
        for example in queue.ids:
            _thumbnail(workspace, example, labels[example], captions[example], current=example == row)
        return
    texts = {example: beginning(workspace, example, 44) for example in queue.ids}
    if row in queue.ids:
        st.session_state[_CHOICE] = row
    st.radio(
        "Rows of the list",
        queue.ids,
        index=None,
        key=_CHOICE,
        format_func=lambda example: plain(texts[example]),
        captions=list(captions.values()),
        label_visibility="collapsed",
        on_change=_open,
    )


def _thumbnail(workspace: Workspace, example: str, label: str, caption: str, current: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", wrap=False):
        with st.container(width=pictures.CELL, gap=None):
            pictures.picture(workspace, example, pictures.CELL, f"labelled {label}")
        with st.container(gap=None):
            st.button(
                plain(example),
                key=f"list_{example}",
                type="primary" if current else "tertiary",
                on_click=_select,
                args=(example,),
            )
            st.caption(caption)


def _caption(label: str, verdict: Verdict | None) -> str:
    done = "waiting" if verdict is None else f"{ICONS[verdict]} {VERDICTS[verdict]}"
    return f"{plain(label)} · {done}"


def _open() -> None:
    chosen = st.session_state.get(_CHOICE)
    if chosen is not None:
        _select(str(chosen))


def _select(row: str) -> None:
    state.select(row=row)
