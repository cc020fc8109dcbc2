"""Beside a ranking: for how many training steps it can be trusted, or the offer to measure that."""

from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from influence_core import charts
from influence_core.estimates import estimate
from influence_core.events import Fading
from influence_core.horizons import Horizon
from influence_core.runs import registry
from influence_core.runs.directory import RunDirectory
from influence_core.specs import HorizonSpec, RankSpec
from pages.components import trust_words
from pages.components.errors import shown_errors
from pages.components.guard import Context
from pages.components.running import follow, run_for, selected_run, start
from pages.components.text import plain

FIRM = 5  # repeats whose band is worth a verdict (DEFINITIONS, Trajectories)
LEAST = 8  # training rows of a repeat
CHOICES = ("steps", "train_rows", "repeats", "optimizer")
OPTIMIZERS = {"checkpoint": "the checkpoint's own, else Adam", "adam": "Adam", "sgd": "SGD"}
_ADOPTED = "trust_adopted"  # the run whose choices were taken over


def trust(context: Context, asked: RankSpec) -> None:
    """Say how far the ranking of a spec can be trusted, follow its measurement, or offer it; computes nothing."""
    said, buttons, below = st.container(), st.container(horizontal=True, vertical_alignment="center"), st.container()
    with said, shown_errors():
        _adopt()
        _measurement(context, asked, buttons, below)
    with buttons:
        _form(len(context.workspace.train))  # in any case: a choice that cannot be is changed here


def _measurement(context: Context, asked: RankSpec, buttons: DeltaGenerator, below: DeltaGenerator) -> None:
    spec = _spec(context, asked)
    run = run_for(spec)
    if run is not None and not follow(run, above=_live).is_over:
        return
    found = registry.horizon_ready(context.workspace, spec)
    if found is None:
        st.caption(trust_words.NEVER_MEASURED)
    else:
        st.text(trust_words.headline(found))
        st.caption(plain(trust_words.halves(found)))
    with buttons:
        if found is None or found.repeats < spec.repeats:
            _offer(context, spec, "Measure" if found is None else "Measure the rest")
        elif found.repeats < FIRM:
            firmer = spec.model_copy(update={"repeats": FIRM})
            _offer(context, firmer, f"Measure again, {FIRM} repeats")
    if found is not None:
        with below:
            _details(found)


def _spec(context: Context, asked: RankSpec) -> HorizonSpec:
    names = ("example", "target", "method", "settings", "by", "scope")
    options: dict[str, Any] = {name: getattr(asked, name) for name in names}
    chosen = {name: st.session_state.get(_key(name), _default(name)) for name in CHOICES}
    rows = len(context.workspace.train)
    chosen["train_rows"] = max(LEAST, min(chosen["train_rows"], rows) // 4 * 4)  # a quarter from each end
    chosen["batch_size"] = min(_default("batch_size"), rows)
    spec = context.workspace.spec(HorizonSpec, {**context.spec, **options, **chosen})
    run = selected_run("horizon")
    own = None if run is None else run.spec()
    if run is None or not isinstance(own, HorizonSpec) or own.ranking != spec.ranking:
        return spec
    # it may have settings that the page has no widgets for; once it is over, other choices lead away from it
    unchanged = all(getattr(own, name) == getattr(spec, name) for name in CHOICES)
    return own if unchanged or not run.state().is_over else spec


def _offer(context: Context, spec: HorizonSpec, label: str) -> None:
    words = estimate(context.workspace, spec).words
    if st.button(f"{label} ({words})", key="trust_measure", icon=":material/straighten:"):
        st.session_state[_key("repeats")] = spec.repeats
        start(spec, f"trust horizon of the ranking for {spec.example}")


def _form(rows: int) -> None:
    """Show the button that opens the choices; other choices are another measurement."""
    with st.popover("How to measure", icon=":material/tune:"):
        for name, label, least, most, by in (
            ("steps", "Steps", 1, 1000, 1),
            ("train_rows", "Training rows", LEAST, max(LEAST, min(400, rows) // 4 * 4), 4),
            ("repeats", "Repeats", 1, 20, 1),
        ):
            # a value out of range would become the least one
            st.session_state[_key(name)] = min(most, max(least, st.session_state.get(_key(name), _default(name))))
            st.number_input(label, least, most, step=by, key=_key(name), persist_state="session")
        st.session_state.setdefault(_key("optimizer"), _default("optimizer"))
        st.selectbox(
            "Optimizer",
            list(OPTIMIZERS),
            format_func=OPTIMIZERS.__getitem__,
            key=_key("optimizer"),
            persist_state="session",
        )
        st.caption("Each row is trained beside the others, so time grows with steps, rows and repeats. All is kept.")


def _details(found: Horizon) -> None:
    with st.expander("How it was measured"):
        for said in (trust_words.measured(found), trust_words.band(found)):
            st.text(said)
        figure = charts.trust(found)
        st.plotly_chart(figure, key="trust_chart", config={"displayModeBar": False}, alt=charts.alt_text(figure))


def _live(run: RunDirectory) -> None:
    """Draw R(t) up to the step reached."""
    events, _ = run.events()
    figure = charts.fading(charts.rows_so_far([event for event in events if isinstance(event, Fading)]), run.id)
    st.plotly_chart(figure, key="trust_live", config={"displayModeBar": False}, alt=charts.alt_text(figure))


def _adopt() -> None:
    """Take over the choices of a measurement that an address brought back, once a run."""
    run = selected_run("horizon")
    spec = None if run is None else run.spec()
    if run is None or not isinstance(spec, HorizonSpec) or st.session_state.get(_ADOPTED) == run.id:
        return
    st.session_state[_ADOPTED] = run.id
    for name in CHOICES:
        st.session_state[_key(name)] = getattr(spec, name)


def _key(name: str) -> str:
    return f"trust_{name}"


def _default(name: str) -> Any:
    return HorizonSpec.model_fields[name].default
