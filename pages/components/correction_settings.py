"""The settings of a correction in the session: their keys and defaults, as options of a spec, and filled from a run."""

from typing import Any

import streamlit as st

from influence_core.specs import DEFAULT_RATE, Correcting, CorrectionSpec
from pages.components import ranking_choice, settings_form, state
from pages.components.correction_words import share_of

# names of the widgets' values in the session, kept from page to page
STRATEGY = "correct_strategy"
K = "correct_k"
BATCH = "correct_batch"
SHARE = "correct_share"  # in %, or EVEN
EVEN = "even"  # no up-sampling
CONTROL = "correct_control"  # no weight at all
RUN_SHARE = "correct_run_share"  # in %: the share of a run that the settings were taken from
OPTIMIZER = "correct_optimizer"
STATE = "correct_state"
RATE = "correct_rate_"  # followed by the optimizer's kind
ANNOTATED = "correct_annotated"  # B only of rows that annotators changed
ANNOTATED_LOSS = "correct_annotated_loss"  # their labels in the batches too
DROPOUT = "correct_dropout"
BATCHNORM = "correct_batchnorm"
STOP = "correct_stop"
AFTER = "correct_after"
STEPS = "correct_steps"
RETENTION = "correct_retention"  # in %; None: no such rule
LOSS = "correct_loss"  # of validation; None: no such rule
DESIRED = "correct_desired"
_DESIRED_OF = "correct_desired_of"  # dict of the label last chosen for (workspace, example)
METHOD = "correct_method"
TARGET = "correct_target"
ORDER = "correct_order"
SEED = "correct_seed"
CURVES = "correct_curves_"  # followed by "all" or "part": what a scope that is not all is called here
PLACES = 8  # to which a share in % is a run's again
_ADOPTED = "correct_adopted"  # the hand-over from Influence whose ranking the widgets show

DEFAULTS: dict[str, Any] = {
    STRATEGY: "proponents",
    K: 12,
    BATCH: 32,
    SHARE: EVEN,
    CONTROL: False,
    RUN_SHARE: None,
    OPTIMIZER: "checkpoint",
    STATE: "default",
    RATE + "adam": DEFAULT_RATE["adam"],
    RATE + "sgd": DEFAULT_RATE["sgd"],
    ANNOTATED: False,
    ANNOTATED_LOSS: False,
    DROPOUT: True,
    BATCHNORM: "eval",
    STOP: "flip",
    AFTER: 5,
    STEPS: 50,
    RETENTION: None,
    LOSS: None,
    METHOD: "",
    TARGET: "predicted",
    ORDER: "cosine",
    SEED: 0,
    CURVES + "part": True,
    CURVES + "all": False,  # tangents of everything cost much memory
}


def options(kind: str, curves: bool) -> dict[str, Any]:
    """Return what the widgets say as options of `CorrectionSpec` (not checked here), of an optimizer of this kind."""
    return {
        "strategy": st.session_state[STRATEGY],
        "desired": st.session_state.get(DESIRED, "gold"),
        "k": st.session_state[K],
        "batch_size": st.session_state[BATCH],
        "share": _share(),
        "optimizer": st.session_state[OPTIMIZER],
        "optimizer_state": None if st.session_state[STATE] == "default" else st.session_state[STATE],
        "learning_rate": st.session_state[RATE + kind],
        "only_annotated": st.session_state[ANNOTATED],
        "annotated_loss": st.session_state[ANNOTATED_LOSS],
        "dropout": st.session_state[DROPOUT],
        "batchnorm": st.session_state[BATCHNORM],
        "steps": st.session_state[STEPS],
        "after_flip": st.session_state[AFTER] if st.session_state[STOP] == "after" else 0,
        "min_retention": None if st.session_state[RETENTION] is None else st.session_state[RETENTION] / 100,
        "max_validation_loss": st.session_state[LOSS],
        "method": st.session_state[METHOD] or None,
        "settings": settings_form.chosen(st.session_state[METHOD]) if st.session_state[METHOD] else {},
        "target": st.session_state[TARGET],
        "by": st.session_state[ORDER],
        "seed": st.session_state[SEED],
        "predict": curves,
    }


def _share() -> float | None:
    share = st.session_state[SHARE]
    if st.session_state[CONTROL]:
        return 0.0
    return None if share == EVEN else round(share / 100, PLACES + 2)


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


def remember_desired(workspace: str, example: str, label: str) -> None:
    """Keep which label is desired of an example, in this session: others have their own."""
    st.session_state.setdefault(_DESIRED_OF, {})[workspace, example] = label


def desired_of(workspace: str, example: str) -> str | None:
    """Return the label that was last desired of an example; None where none was chosen."""
    found: dict[tuple[str, str], str] = st.session_state.get(_DESIRED_OF, {})
    return found.get((workspace, example))


def fill(spec: Correcting, desired: str | None, kind: str) -> None:
    """Put a spec's settings into the widgets (in a callback, before they are shown).

    Without ``desired``, of several examples, the desired label and the curves of a single one stay as they are.
    """
    if spec.method is not None:
        settings_form.put(spec.method, spec.settings)
    even = spec.epsilon is None and spec.share is None
    own = None if even else round(100 * share_of(spec.weight), PLACES)
    st.session_state.update(
        {
            STRATEGY: spec.strategy,
            K: spec.k,
            BATCH: spec.batch_size,
            SHARE: EVEN if own in (None, 0) else own,
            CONTROL: own == 0,
            RUN_SHARE: own or None,
            OPTIMIZER: spec.optimizer,
            STATE: spec.optimizer_state or "default",
            RATE + kind: spec.learning_rate or DEFAULT_RATE[kind],
            ANNOTATED: spec.only_annotated,
            ANNOTATED_LOSS: spec.annotated_loss,
            DROPOUT: spec.dropout,
            BATCHNORM: spec.batchnorm,
            STOP: "after" if spec.after_flip else "flip",
            AFTER: spec.after_flip or DEFAULTS[AFTER],
            STEPS: spec.steps,
            RETENTION: None if spec.min_retention is None else round(100 * spec.min_retention, PLACES),
            LOSS: spec.max_validation_loss,
            METHOD: spec.method or "",
            TARGET: spec.target,
            ORDER: spec.by,
            SEED: spec.seed,
        }
    )
    if desired is not None and isinstance(spec, CorrectionSpec):
        remember_desired(spec.workspace, spec.example, desired)
        st.session_state.update({DESIRED: desired, CURVES + "part": spec.predict, CURVES + "all": spec.predict})
