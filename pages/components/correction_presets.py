"""The paper's settings of a correction by one button, and ours by another."""

from typing import Any

import streamlit as st

from influence_core.workspace import Checkpoint
from pages.components import settings_form
from pages.components.correction_settings import (
    BATCH,
    CONTROL,
    DEFAULTS,
    EVEN,
    LOSS,
    METHOD,
    OPTIMIZER,
    RATE,
    RETENTION,
    RUN_SHARE,
    SHARE,
    STATE,
    STEPS,
    STOP,
    K,
)
from pages.components.correction_words import carries_state

PAPER = "correct_paper"
OURS = "correct_ours"
INDEX = {"k": 32, "iterations": 64}  # ABIF's 32 eigenvectors of 64 iterations


def paper(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the settings of App. J.2, by widget (DEFINITIONS, Correction)."""
    recorded = (checkpoint.optimizer or {}).get("kind", "adam")
    return {
        RATE + "adam": 1e-3,
        OPTIMIZER: "checkpoint" if recorded == "adam" else "adam",
        STATE: "checkpoint" if carries_state(checkpoint, "adam") else "warm",
        METHOD: "abif",
        BATCH: 128,
        K: 50,
        STEPS: 50,
        STOP: "flip",
        RETENTION: None,
        LOSS: None,
        SHARE: EVEN,
        RUN_SHARE: None,
        CONTROL: False,
    }


def presets(checkpoint: Checkpoint) -> None:
    """Show both buttons, and what the paper's settings do without an Adam state in the checkpoint."""
    theirs = paper(checkpoint)
    ours = {key: DEFAULTS[key] for key in theirs}
    here = st.session_state
    chosen = all(here[key] == value for key, value in theirs.items()) and settings_form.chosen("abif") == INDEX
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("Settings", width="content")
        st.button(
            "Paper (J.2)",
            key=PAPER,
            on_click=_fill,
            args=(theirs,),
            disabled=chosen,
            help="learning rate 1e-3, the checkpoint's Adam state, ABIF with 32 eigenvectors of 64 iterations, "
            "b = 128, k = 50, at most 50 steps, no up-sampling",
        )
        st.button(
            "Ours",
            key=OURS,
            on_click=_fill,
            args=(ours,),
            disabled=all(here[key] == value for key, value in ours.items()),
            help="what a correction has unless it is changed, for a few steps on a small machine",
        )
    if chosen and not carries_state(checkpoint, "adam"):
        st.caption("This checkpoint carries no Adam state: one warmed over 100 batches is used instead.")


def _fill(values: dict[str, Any]) -> None:
    st.session_state.update(values)
    settings_form.put("abif", INDEX if values[METHOD] == "abif" else {})
