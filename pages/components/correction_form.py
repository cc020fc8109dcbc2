"""The settings of a correction: widgets on one side, the options of a `CorrectionSpec` on the other."""

from typing import Any

import streamlit as st

from influence_core.settings import METHOD_WORDS
from influence_core.specs import DEFAULT_RATE, CorrectionSpec
from influence_core.workspace import Checkpoint, Workspace
from pages.components import ranking_choice, settings_form, state
from pages.components.correction_words import (
    METHODS,
    ORDERS,
    STRATEGIES,
    STRATEGY_CAPTIONS,
    carries_state,
    predicting_cost_words,
    share_of,
)
from pages.components.text import plain

# names of the widgets' values in the session, kept from page to page
STRATEGY = "correct_strategy"
K = "correct_k"
BATCH = "correct_batch"
EVEN = "correct_even"  # no up-sampling
SHARE = "correct_share"  # in %
OPTIMIZER = "correct_optimizer"
STATE = "correct_state"
RATE = "correct_rate_"  # followed by the optimizer's kind
STOP = "correct_stop"
AFTER = "correct_after"
STEPS = "correct_steps"
RETENTION = "correct_retention"  # in %; None: no such rule
DESIRED = "correct_desired"
METHOD = "correct_method"
TARGET = "correct_target"
ORDER = "correct_order"
SEED = "correct_seed"
CURVES = "correct_curves_"  # followed by "all" or "part": what a scope that is not all is called here
_ADOPTED = "correct_adopted"  # the hand-over from Influence whose ranking the widgets show

DEFAULTS: dict[str, Any] = {
    STRATEGY: "proponents",
    K: 12,
    BATCH: 32,
    EVEN: True,
    SHARE: 27,
    OPTIMIZER: "checkpoint",
    STATE: "default",
    RATE + "adam": DEFAULT_RATE["adam"],
    RATE + "sgd": DEFAULT_RATE["sgd"],
    STOP: "flip",
    AFTER: 5,
    STEPS: 50,
    RETENTION: None,
    METHOD: "",
    TARGET: "predicted",
    ORDER: "cosine",
    SEED: 0,
    CURVES + "part": True,
    CURVES + "all": False,  # tangents of everything cost much memory
}
STATES = {
    "default": "the checkpoint's own, else warmed",
    "checkpoint": "from the checkpoint",
    "warm": "warmed over 100 batches",
    "zeros": "from zeros",
}
STOPS = {"flip": "at the flip", "after": "later"}


def form(workspace: Workspace, checkpoint: Checkpoint, predicted: str, true: str) -> dict[str, Any]:
    """Show the settings and return them as options of `CorrectionSpec` (not checked here)."""
    for key, value in DEFAULTS.items():
        st.session_state.setdefault(key, value)
    if st.session_state[TARGET] not in ("predicted", "gold", *workspace.label_names):
        st.session_state[TARGET] = "predicted"  # a label of another workspace
    left, middle, right = st.columns([5, 4, 4], gap="medium")
    with left:
        others = [name for name in workspace.label_names if name != predicted]
        _choose_desired(others, true)
        st.radio(
            "Strategy",
            list(STRATEGIES),
            format_func=STRATEGIES.__getitem__,
            captions=list(STRATEGY_CAPTIONS.values()),
            key=STRATEGY,
            persist_state="session",
        )
    with middle:
        _weight()
        _stop()
    with right:
        kind = _optimizer(checkpoint)
    curves = _curves(workspace.scope, kind)
    with st.expander("Which ranking, and the seed"):
        _ranking(workspace)
    return {
        "strategy": st.session_state[STRATEGY],
        "desired": st.session_state[DESIRED],
        "k": st.session_state[K],
        "batch_size": st.session_state[BATCH],
        "share": None if st.session_state[EVEN] else st.session_state[SHARE] / 100,
        "optimizer": st.session_state[OPTIMIZER],
        "optimizer_state": None if st.session_state[STATE] == "default" else st.session_state[STATE],
        "learning_rate": st.session_state[RATE + kind],
        "steps": st.session_state[STEPS],
        "after_flip": st.session_state[AFTER] if st.session_state[STOP] == "after" else 0,
        "min_retention": None if st.session_state[RETENTION] is None else st.session_state[RETENTION] / 100,
        "method": st.session_state[METHOD] or None,
        "settings": settings_form.chosen(st.session_state[METHOD]) if st.session_state[METHOD] else {},
        "target": st.session_state[TARGET],
        "by": st.session_state[ORDER],
        "seed": st.session_state[SEED],
        "predict": curves,
    }


def adopt(example: str) -> None:
    """Take over the ranking that was looked at on Influence, once for each time it was handed over."""
    handed = (example, *state.handed_over(example))
    if len(handed) == 1 or st.session_state.get(_ADOPTED) == handed:
        return
    st.session_state[_ADOPTED] = handed
    options = ranking_choice.chosen()
    for option, key in (("method", METHOD), ("target", TARGET), ("by", ORDER)):
        if option in options:
            st.session_state[key] = options[option]


def fill(spec: CorrectionSpec, desired: str, kind: str) -> None:
    """Put a spec's settings into the widgets (in a callback, before they are shown)."""
    if spec.method is not None:
        settings_form.put(spec.method, spec.settings)
    st.session_state.update(
        {
            STRATEGY: spec.strategy,
            DESIRED: desired,
            K: spec.k,
            BATCH: spec.batch_size,
            EVEN: spec.epsilon is None and spec.share is None,
            SHARE: round(100 * share_of(spec.weight)),
            OPTIMIZER: spec.optimizer,
            STATE: spec.optimizer_state or "default",
            RATE + kind: spec.learning_rate or DEFAULT_RATE[kind],
            STOP: "after" if spec.after_flip else "flip",
            AFTER: spec.after_flip or DEFAULTS[AFTER],
            STEPS: spec.steps,
            RETENTION: None if spec.min_retention is None else round(100 * spec.min_retention),
            METHOD: spec.method or "",
            TARGET: spec.target,
            ORDER: spec.by,
            SEED: spec.seed,
            CURVES + "part": spec.predict,
            CURVES + "all": spec.predict,
        }
    )


def _choose_desired(others: list[str], true: str) -> None:
    if st.session_state.get(DESIRED) not in others:
        st.session_state[DESIRED] = true if true in others else others[0]
    st.selectbox(
        "Desired label",
        others,
        format_func=plain,
        key=DESIRED,
        persist_state="session",
        help="what the example should be predicted as; its true label unless you choose another",
    )


def _weight() -> None:
    rows, batch_size = st.columns(2)
    rows.number_input("Rows (k)", min_value=1, step=1, key=K, persist_state="session")
    batch_size.number_input("Batch size (b)", min_value=1, step=1, key=BATCH, persist_state="session")
    st.toggle(
        "No up-sampling, k / (k + b)",
        key=EVEN,
        persist_state="session",
        help="each chosen row counts as much as one row of the batch",
    )
    even = st.session_state[EVEN]
    if even:
        k, batch = st.session_state[K], st.session_state[BATCH]
        st.session_state[SHARE] = min(95, round(100 * k / (k + batch)))
    st.slider(
        "Share of the batch's weight",
        min_value=0,
        max_value=95,
        format="%d %%",
        key=SHARE,
        disabled=even,
        persist_state="session",
        help="0 % is the control: both runs are the same. Sweeps in the paper go to slightly more than half.",
    )


def _optimizer(checkpoint: Checkpoint) -> str:
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


def _curves(scope: str, kind: str) -> bool:
    key = CURVES + ("all" if scope == "all" else "part")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.toggle(
            "Draw what influence predicts (Eq. 6 and TracIn)",
            key=key,
            persist_state="session",
            help="at each step, the loss that the exact Jacobian of training (Eq. 6) and TracIn's sum (Eq. 2) predict "
            "for this example, from the uncorrected run alone: where the curves part from the live one, influence no "
            "longer tells what happens",
        )
        st.caption(predicting_cost_words(kind))
    return bool(st.session_state[key])


def _stop() -> None:
    rule, most = st.columns(2)
    rule.selectbox("Stop", list(STOPS), format_func=STOPS.__getitem__, key=STOP, persist_state="session")
    most.number_input("At most (steps)", min_value=1, max_value=1000, step=1, key=STEPS, persist_state="session")
    if st.session_state[STOP] == "after":
        st.number_input("Steps after the flip", min_value=1, step=1, key=AFTER, persist_state="session")
    st.number_input(
        "Or when retention is below (%)",
        value=None,
        min_value=1,
        max_value=100,
        step=1,
        key=RETENTION,
        placeholder="does not matter",
        persist_state="session",
        help="ends the run as soon as fewer than so many of the 50 retention rows are predicted as before it",
    )


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
