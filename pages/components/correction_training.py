"""How a correction trains, and when it stops."""

import streamlit as st

from influence_core.specs import DEFAULT_RATE, VALIDATION_ROWS
from influence_core.validation import rounded_up
from influence_core.workspace import Checkpoint
from pages.components.correction_settings import (
    AFTER,
    ANNOTATED_LOSS,
    BATCHNORM,
    CURVES,
    DROPOUT,
    LOSS,
    OPTIMIZER,
    RATE,
    RETENTION,
    STATE,
    STEPS,
    STOP,
)
from pages.components.correction_words import carries_state, predicting_cost_words

STATES = {
    "default": "the checkpoint's own, else warmed",
    "checkpoint": "from the checkpoint",
    "warm": "warmed over 100 batches",
    "zeros": "from zeros",
}
BATCHNORMS = {"eval": "as it is (eval)", "train": "by the batch, statistics move (train)"}
STOPS = {"flip": "at the flip", "after": "later"}


def optimizer(checkpoint: Checkpoint) -> str:
    """Show optimizer, its state and learning rate; returns the optimizer's kind."""
    recorded = str((checkpoint.optimizer or {}).get("kind", "adam"))
    names = {"checkpoint": f"as recorded ({recorded.upper() if recorded == 'sgd' else 'Adam'})"}
    names |= {"adam": "Adam", "sgd": "SGD"}
    st.selectbox("Optimizer", list(names), format_func=names.__getitem__, key=OPTIMIZER, persist_state="session")
    chosen = st.session_state[OPTIMIZER]
    kind = recorded if chosen == "checkpoint" else str(chosen)
    states = [name for name in STATES if name != "checkpoint" or carries_state(checkpoint, kind)]
    if st.session_state[STATE] not in states:
        st.session_state[STATE] = "default"
    st.selectbox(
        "Its state",
        states,
        format_func=STATES.__getitem__,
        key=STATE,
        persist_state="session",
        help="Adam from zeros takes steps of the size of the learning rate whatever the rows, so nearly everything "
        "flips within a few steps. Warming runs 100 batches at learning rate 0 first; it is kept for the next time.",
    )
    st.number_input(
        "Learning rate",
        min_value=0.0,
        step=DEFAULT_RATE[kind],
        format="%.1e",
        key=RATE + kind,
        persist_state="session",
    )
    return kind


def modes(batchnorm: bool) -> None:
    """Show whose labels and dropout the batches have and, where the scope has such layers, the mode of BatchNorm."""
    st.toggle(
        "Annotators' labels in the batches too",
        key=ANNOTATED_LOSS,
        persist_state="session",
        help="the batches of training rows, which otherwise keep the data's own labels, take those that stand now",
    )
    st.toggle(
        "Dropout",
        key=DROPOUT,
        persist_state="session",
        help="of the trained part, on the batch, at the model's own rate; a model without dropout trains the same "
        "either way",
    )
    if not batchnorm:
        st.session_state[BATCHNORM] = "eval"  # of another checkpoint's settings
        return
    st.selectbox(
        "BatchNorm",
        list(BATCHNORMS),
        format_func=BATCHNORMS.__getitem__,
        key=BATCHNORM,
        persist_state="session",
        help="in train mode the trained layers normalise by each batch, and their running statistics move with it; "
        "what is kept has the moved ones",
    )


def curves(scope: str, kind: str) -> bool:
    """Show whether predicted curves are drawn, with what they cost; returns it."""
    key, moving = CURVES + ("all" if scope == "all" else "part"), st.session_state[BATCHNORM] == "train"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.toggle(
            "Draw what influence predicts (Eq. 6 and TracIn)",
            key=key,
            disabled=moving,
            persist_state="session",
            help="at each step, the loss that the exact Jacobian of training (Eq. 6) and TracIn's sum (Eq. 2) predict "
            "for this example, from the uncorrected run alone: where the curves part from the live one, influence no "
            "longer tells what happens",
        )
        st.caption("Not with BatchNorm in train mode." if moving else predicting_cost_words(kind))
    return bool(st.session_state[key]) and not moving


def stop(validation: bool, loss: float | None) -> None:
    """Show when the run ends; by the validation loss, now ``loss``, only where there is a validation split."""
    rule, most = st.columns(2)
    rule.selectbox("Stop", list(STOPS), format_func=STOPS.__getitem__, key=STOP, persist_state="session")
    most.number_input("At most (steps)", min_value=1, max_value=1000, step=1, key=STEPS, persist_state="session")
    if st.session_state[STOP] == "after":
        st.number_input("Steps after the flip", min_value=1, step=1, key=AFTER, persist_state="session")
    st.number_input(
        "Or when retention is below (%)",
        value=None,
        min_value=0.1,
        max_value=100.0,
        step=1.0,
        format="%.4g",
        key=RETENTION,
        placeholder="does not matter",
        persist_state="session",
        help="ends the run as soon as fewer than so many of the 50 retention rows are predicted as before it",
    )
    if not validation:
        st.session_state[LOSS] = None  # of another workspace's settings
        return
    st.number_input(
        "Or when the validation loss is above",
        value=None,
        min_value=0.0,
        step=0.05,
        format="%.4g",
        key=LOSS,
        placeholder="does not matter" if loss is None else f"does not matter (now {rounded_up(loss):g})",
        persist_state="session",
        help=f"the mean loss (nats) of a fixed set of at most {VALIDATION_ROWS} validation rows, read after each step"
        + ("" if loss is None else f"; before the first step it is {rounded_up(loss):g}"),
    )
