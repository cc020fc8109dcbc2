"""Handing a run to the engine exactly once, however often its button is clicked."""

import uuid
from collections.abc import Callable
from typing import Literal

import streamlit as st

from influence_core.runs import client
from influence_core.runs.registry import AnyRunSpec
from pages.components import state

_TOKENS = "submit_tokens"  # place of a button -> token of what the next click means
_STARTED = "submitted"  # token -> run id


def submit_once(place: str, spec: AnyRunSpec, what: str) -> str:
    """Submit a run and return its id; a second click on the same button returns the same run's.

    Streamlit lets a click interrupt the script that an earlier click started, which then runs again
    from the top. The id is therefore noted in a plain dictionary right as `client.submit` returns,
    where no interruption can come between. Raises `UserError`.
    """
    tokens: dict[str, str] = st.session_state.setdefault(_TOKENS, {})
    started: dict[str, str] = st.session_state.setdefault(_STARTED, {})
    who = state.annotator()
    token = tokens.setdefault(place, uuid.uuid4().hex)
    if token not in started:
        started[token] = client.submit(spec, what=what, who=who)
    return started[token]


def settle(place: str) -> None:
    """The button is on screen and was not clicked: its next click means a new run."""
    tokens: dict[str, str] = st.session_state.setdefault(_TOKENS, {})
    tokens.pop(place, None)


def submit_button(
    label: str,
    place: str,
    spec: AnyRunSpec,
    what: str,
    *,
    icon: str,
    primary: bool = False,
    tip: str | None = None,
    on_submit: Callable[[str], None] | None = None,
) -> None:
    """Show a button that submits a run once and opens it; ``place`` is its key. Raises `UserError`.

    ``on_submit`` is told the run's id before it is opened.
    """
    kind: Literal["primary", "secondary"] = "primary" if primary else "secondary"
    if st.button(label, key=place, type=kind, icon=icon, help=tip):
        with st.spinner("Handing it to the engine…"):
            run_id = submit_once(place, spec, what)
        if on_submit is not None:
            on_submit(run_id)
        state.select(run=run_id)
        st.rerun()
    else:
        settle(place)
