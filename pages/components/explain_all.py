"""Explain all: the rankings of every misprediction of a split, in as few passes as memory allows."""

import streamlit as st

from influence_core.attribution.base import Cost
from influence_core.attribution.explaining import queries
from influence_core.attribution.methods import METHODS
from influence_core.errors import UserError
from influence_core.estimates import estimate
from influence_core.settings import METHOD_NAMES, METHOD_WORDS
from influence_core.specs import ExplainSpec, Split
from influence_core.workspace import Workspace
from pages.components import ranking_choice, settings_form, state
from pages.components.errors import show_error, shown_errors
from pages.components.guard import Context
from pages.components.offering import index_state, offer_index, unavailable
from pages.components.running import follow, follow_or_offer, selected_run
from pages.components.text import plain

METHOD = "explain_all_method"
_OPEN = "explain_all_open"


def explain_all_button(wrong: int) -> None:
    """Show the button that opens and closes the panel."""
    st.button(f"Explain all {wrong:,}", key="explain_all", icon=":material/hub:", on_click=_toggle, disabled=not wrong)


def explain_all_panel(context: Context, split: Split) -> None:
    """Show the panel while it is open; a run of it in the URL opens it, with the run's own choices."""
    run = selected_run("explain")
    if run is None and not st.session_state.get(_OPEN, False):
        return
    with st.container(border=True, key="explain_all_panel"), shown_errors():
        if run is not None and not run.state().is_over:
            st.text(run.record().what)
            follow(run)
            return
        asked = None if run is None else run.spec()
        if run is not None and isinstance(asked, ExplainSpec) and settings_form.adopt(run.id, asked):
            st.session_state[METHOD] = asked.method
        _panel(context, split)


def spec_for(context: Context, split: Split, method: str) -> ExplainSpec:
    """Return the spec of one method with the session's settings and the target label chosen on Influence."""
    target = ranking_choice.chosen().get("target", "predicted")
    options = {**context.spec, "split": split, "target": target}
    return context.workspace.spec(ExplainSpec, {**options, "method": method, "settings": settings_form.chosen(method)})


def outstanding(workspace: Workspace, spec: ExplainSpec) -> Cost | None:
    """Return what a method would have to compute for all of a split's mispredictions; None where it cannot be used."""
    asked = queries(workspace, spec)
    if asked is None or spec.method is None or unavailable(workspace, spec) is not None:
        return None
    return METHODS[spec.method].cost(workspace, spec, asked)


def _sorted_out(context: Context, split: Split) -> tuple[dict[str, tuple[ExplainSpec, Cost]], dict[str, str]]:
    """Return spec and cost of each method that can be used, and of the others what is wrong with their settings."""
    usable, wrong = {}, {}
    for method in (name for name, of in METHODS.items() if not of.control):
        try:
            spec = spec_for(context, split, method)
            if (cost := outstanding(context.workspace, spec)) is not None:
                usable[method] = (spec, cost)
        except UserError as error:
            wrong[method] = str(error)
    return usable, wrong


def _panel(context: Context, split: Split) -> None:
    workspace = context.workspace
    usable, wrong = _sorted_out(context, split)
    count = len(workspace.mispredictions(split, context.checkpoint.name))
    by = {"abif": "by ABIF (the index answers them)"}
    done = [by.get(method, f"by {METHOD_NAMES[method]}") for method, (_, cost) in usable.items() if cost == Cost()]
    if done:
        st.text(f"All {count:,} are explained already: {', '.join(done)}.")
    left = [method for method in METHODS if method in wrong or (method in usable and usable[method][1] != Cost())]
    if not left:
        return
    if st.session_state.get(METHOD) not in left:  # nothing is left to compute for it
        st.session_state.pop(METHOD, None)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        method = st.selectbox(
            "Method", left, format_func=METHOD_NAMES.__getitem__, key=METHOD, persist_state="session", width=300
        )
        settings_form.settings_popover(workspace, method)
    if method in wrong:
        show_error(wrong[method])
        return
    spec, cost = usable[method]
    st.caption(plain(f"{METHOD_WORDS[method]} For the {spec.target} label, as on Influence."))
    if method == "abif" and index_state(workspace, spec) != "basis":
        offer_index(context, spec, "These rows need the index with its eigenvectors; with it, all are quick.")
        return
    if passes := len(cost.projections):
        over = "one pass" if passes == 1 else f"{passes:,} passes"
        st.caption(f"{count:,} test rows in {over} over {len(workspace.train):,} training rows.")
    words = estimate(workspace, spec).words
    what = f"explain all of {split} with {METHOD_NAMES[method]}"
    follow_or_offer(spec, "Start", words, what, key="explain_all_start")


def _toggle() -> None:
    opened = st.session_state.get(_OPEN, False)
    if selected_run("explain") is not None:
        state.select(run=None)
        opened = True
    st.session_state[_OPEN] = not opened
