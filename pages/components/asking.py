"""What to ask of a ranking: pickers for method, target label and order, the method's settings, and their spec."""

import streamlit as st

from influence_core.settings import METHOD_NAMES, METHOD_WORDS
from influence_core.specs import HorizonSpec, RankSpec
from pages.components import settings_form
from pages.components.guard import Context
from pages.components.offering import index_state
from pages.components.running import selected_run
from pages.components.text import plain

# names in the URL as well
METHOD = "method"
TARGET = "target"
ORDER = "order"

METHOD_HELP = "Positive scores are proponents in all of them. " + " ".join(
    f"**{METHOD_NAMES[name]}**: {plain(words)}" for name, words in METHOD_WORDS.items()
)
TARGET_HELP = (
    "Whose loss the scores speak of: a proponent lowers the loss of this label. "
    "Predicted asks why the model says what it says, gold what speaks for the truth."
)
ORDER_HELP = (
    "Cosine compares directions; the plain score is led by a few rows with large gradients, whatever the question."
)


def ask(context: Context, example: str, disabled: bool) -> RankSpec:
    """Show the pickers and return the spec; without an index the default method is TracIn.

    Where they do not matter they are shown disabled: a picker that goes away forgets its choice.
    """
    workspace = context.workspace
    _adopt_run(example)
    base = {**context.spec, "example": example}
    default = "tracin" if index_state(workspace, workspace.spec(RankSpec, base)) == "none" else "abif"
    targets = ["predicted", "gold", *workspace.label_names]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        method = st.selectbox(
            "Method",
            list(METHOD_NAMES),
            index=list(METHOD_NAMES).index(default),
            format_func=METHOD_NAMES.__getitem__,
            key=METHOD,
            help=METHOD_HELP,
            disabled=disabled,
            bind="query-params",
            width=300,
        )
        if not disabled:
            settings_form.settings_popover(workspace, method)
    st.caption(plain(METHOD_WORDS[method]))
    left, right = st.columns(2)
    target = left.selectbox(
        "Target label", targets, key=TARGET, help=TARGET_HELP, disabled=disabled, bind="query-params"
    )
    order = right.selectbox(
        "Order", ["cosine", "score"], key=ORDER, help=ORDER_HELP, disabled=disabled, bind="query-params"
    )
    options = {**base, "method": method, "settings": settings_form.chosen(method), "target": target, "by": order}
    return workspace.spec(RankSpec, options)


def _adopt_run(example: str) -> None:
    """Let the run of a ranking, or of its horizon, bring its choices back, where the address does not say others."""
    run = selected_run("rank", "horizon")
    asked = None if run is None else run.spec()
    if run is None or not isinstance(asked, RankSpec | HorizonSpec) or asked.example != example:
        return
    if settings_form.adopt(run.id, asked):
        for key, value in ((METHOD, asked.method), (TARGET, asked.target), (ORDER, asked.by)):
            if key not in st.query_params:
                st.session_state[key] = value
