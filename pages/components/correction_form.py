"""The settings of a correction: widgets on one side, the options of a `CorrectionSpec` on the other."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from influence_core.checks import has_batchnorm
from influence_core.settings import METHOD_WORDS
from influence_core.workspace import Checkpoint, Workspace
from pages.components import data, settings_form
from pages.components.correction_presets import presets
from pages.components.correction_settings import (
    ANNOTATED,
    DEFAULTS,
    DESIRED,
    METHOD,
    ORDER,
    SEED,
    STRATEGY,
    TARGET,
    desired_of,
    options,
    remember_desired,
)
from pages.components.correction_training import curves, modes, optimizer, stop
from pages.components.correction_weight import weight
from pages.components.correction_words import METHODS, ORDERS, STRATEGIES, STRATEGY_CAPTIONS
from pages.components.text import plain


def form(
    workspace: Workspace,
    checkpoint: Checkpoint,
    predicted: str,
    true: str,
    example: str | None,
    together: Sequence[str] = (),
) -> dict[str, Any]:
    """Show the settings and return them as options of `CorrectionSpec` (not checked here).

    ``together``: of these examples and no single one, each to its true label, without predicted curves.
    """
    for key, value in DEFAULTS.items():
        st.session_state.setdefault(key, value)
    if st.session_state[TARGET] not in ("predicted", "gold", *workspace.label_names):
        st.session_state[TARGET] = "predicted"  # a label of another workspace
    presets(checkpoint)
    left, middle, right = st.columns([5, 4, 4], gap="medium")
    with left:
        if example is None:
            st.caption("Each row is to be predicted as its true label.")
        else:
            _choose_desired(workspace, example, predicted, true)
        st.radio(
            "Strategy",
            list(STRATEGIES),
            format_func=STRATEGIES.__getitem__,
            captions=list(STRATEGY_CAPTIONS.values()),
            key=STRATEGY,
            persist_state="session",
        )
        st.toggle(
            "Only rows that an annotator changed",
            key=ANNOTATED,
            persist_state="session",
            help="rows whose label is no longer the data's own by a decision on Relabel. They keep the label that the "
            "annotator gave: none is set to the desired label. Proponents until then are opponents since, so both "
            "strategies take the same rows. Where there are fewer than k, all of them are used.",
        )
    with middle:
        weight(max(1, len(together)))
        corrected = together if example is None else [example]
        stop(
            validation=bool(len(workspace.dataset.splits.get("validation", ()))),
            loss=data.validation_loss(workspace, checkpoint.name, corrected),
        )
    with right:
        kind = optimizer(checkpoint)
        modes(has_batchnorm(workspace, checkpoint.name, None))
    drawn = not together and curves(workspace.scope, kind)
    with st.expander("Which ranking, and the seed"):
        _ranking(workspace)
    return options(kind, drawn)


def _choose_desired(workspace: Workspace, example: str, predicted: str, true: str) -> None:
    """Show the choice: of each example its true label, until another one is chosen for it."""
    others = [name for name in workspace.label_names if name != predicted]
    if true not in others:
        st.info(
            f"Already predicted as {plain(true)}, its true label: there is nothing to correct. "
            "A run would pull it to another label."
        )
    wanted = desired_of(workspace.name, example)
    st.session_state[DESIRED] = wanted if wanted in others else true if true in others else others[0]
    st.selectbox(
        "Desired label",
        others,
        format_func=plain,
        key=DESIRED,
        on_change=_keep_desired,
        args=(workspace.name, example),
        help="what the example should be predicted as; its true label unless you choose another",
    )


def _keep_desired(workspace: str, example: str) -> None:
    remember_desired(workspace, example, st.session_state[DESIRED])


def _ranking(workspace: Workspace) -> None:
    free = st.session_state[STRATEGY] == "random"
    with st.container(horizontal=True):
        st.selectbox(
            "Method", list(METHODS), format_func=METHODS.__getitem__, key=METHOD, persist_state="session", disabled=free
        )
        st.selectbox(
            "For the label",
            ["predicted", "gold", *workspace.label_names],
            format_func=plain,
            key=TARGET,
            persist_state="session",
            disabled=free,
            help="whose loss the ranking speaks of",
        )
        st.selectbox(
            "Order", list(ORDERS), format_func=ORDERS.__getitem__, key=ORDER, persist_state="session", disabled=free
        )
        st.number_input(
            "Seed",
            min_value=0,
            step=1,
            key=SEED,
            persist_state="session",
            help="of the batches, the random rows and whose proponents are taken; the same seed gives the same run",
        )
    if free:
        st.caption("Random rows need no ranking.")
    elif st.session_state[METHOD]:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(plain(METHOD_WORDS[st.session_state[METHOD]]), width="stretch")
            settings_form.settings_popover(workspace, st.session_state[METHOD])
