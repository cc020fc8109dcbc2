"""One fading run, whoever started it and wherever: its settings, its course or outcome, and what comes next."""

import streamlit as st

from influence_core.charts import VERDICT_REPEATS
from influence_core.estimates import estimate
from influence_core.runs.directory import RunDirectory
from influence_core.specs import FadingSpec
from pages.components import data, state
from pages.components.correction_words import optimizer_kind
from pages.components.errors import shown_errors
from pages.components.fading_form import drop_carried, fill
from pages.components.fading_live import draw_events, live_fading, reading_of
from pages.components.fading_view import draw, noise_of, outcome_table
from pages.components.fading_words import kept_words, settings_words
from pages.components.running import show_ending
from pages.components.submitting import submit_button
from pages.components.text import plain


def settings_of(run: RunDirectory) -> None:
    """Show a run's settings, and the ways to another measurement."""
    spec = run.spec()
    assert isinstance(spec, FadingSpec)
    with shown_errors():
        workspace = data.workspace(spec.workspace)
        checkpoint = workspace.checkpoint(spec.checkpoint)
        with st.container(border=True):
            st.caption(plain(f"This measurement: {workspace.name}, checkpoint {checkpoint.name}"))
            st.text(settings_words(spec, checkpoint, spec.scope or workspace.scope))
        kind = optimizer_kind(spec, checkpoint)
        st.button(
            "Change the settings", key=f"change_{run.id}", icon=":material/tune:", on_click=_change, args=(spec, kind)
        )
    st.button(
        "Another measurement", key="fading_other", icon=":material/add:", on_click=_other, help="back to the presets"
    )


def course_of(run: RunDirectory) -> None:
    """Show a run while it goes on, or what it ended with."""
    spec = run.spec()
    assert isinstance(spec, FadingSpec)
    found = run.state()
    if not found.is_over:
        live_fading(run.id, spec)
        return
    reading = reading_of(run, spec)
    value = reading.result if found.state == "finished" else None
    if value is None:
        show_ending(found)
        _go_on(run, spec, 0)
        if reading.events:
            draw_events(run, spec, reading)
        return
    done = int(value["repeats"])
    if done < spec.repeats:
        st.info(plain(f"Paused. {kept_words(done, spec.repeats)}"), icon=":material/pause:")
    _go_on(run, spec, done)
    if done:
        draw(
            value["methods"],
            value["divergence"],
            spec.steps,
            done,
            run.id,
            noise=noise_of(value),
            losses=value.get("noise"),
        )
        outcome_table(value["methods"], run.id)
        for name, why in value["left_out"].items():
            st.caption(plain(f"Without {name}: {why}"))
    elif reading.events:
        draw_events(run, spec, reading)


def _go_on(run: RunDirectory, spec: FadingSpec, done: int) -> None:
    """Offer to measure what is missing: the rest of the repeats, or those that a verdict takes."""
    if done < spec.repeats:
        _offer(f"go_on_{run.id}", "Go on", spec, run.record().what)
    elif done < VERDICT_REPEATS:
        more = spec.model_copy(update={"repeats": VERDICT_REPEATS})
        _offer(f"more_{run.id}", f"Measure up to {VERDICT_REPEATS} repeats", more, run.record().what)


def _offer(place: str, label: str, spec: FadingSpec, what: str) -> None:
    with shown_errors():
        words = estimate(data.workspace(spec.workspace), spec).words
        submit_button(f"{label} ({words})", place, spec, what, icon=":material/play_arrow:", primary=True)


def _change(spec: FadingSpec, kind: str) -> None:
    fill(spec, kind)
    _close()


def _other() -> None:
    drop_carried()
    _close()


def _close() -> None:
    state.select(run=None)
