"""One run that corrects several rows together: live, its outcome, which flipped when, and what comes next."""

import pandas as pd
import streamlit as st

from influence_core.errors import UserError
from influence_core.home import read_json
from influence_core.reports.cautions import halves_words
from influence_core.runs.directory import RunDirectory
from influence_core.specs import CorrectionSetSpec
from influence_core.workspace import Workspace
from pages.components import data, state
from pages.components.correction_charts import draw_set, show_changed
from pages.components.correction_checks import desired_label
from pages.components.correction_chosen import show_chosen
from pages.components.correction_comparison import comparison
from pages.components.correction_next import again_button, control_button, further_button
from pages.components.correction_outcome import (
    before_and_after,
    keep_or_discard,
    manifest_of,
    show_ending,
)
from pages.components.correction_rows import rows_of_run
from pages.components.correction_set_groups import fill_groups, given_of
from pages.components.correction_set_words import outcome_words, settings_words, table_rows
from pages.components.correction_settings import fill
from pages.components.correction_words import optimizer_kind
from pages.components.errors import show_error
from pages.components.live_correction import follow, reading_of
from pages.components.run_reading import RunReading
from pages.components.text import plain


def set_run(run: RunDirectory) -> None:
    """Show the run named by the URL, whoever started it and wherever."""
    spec = run.spec()
    assert isinstance(spec, CorrectionSetSpec)
    try:
        workspace = data.workspace(spec.workspace)
        checkpoint = workspace.checkpoint(spec.checkpoint)
        desired = {each: desired_label(workspace, spec.alone(each)) for each in spec.examples}
    except UserError as error:
        show_error(str(error))
        return
    kind = optimizer_kind(spec, checkpoint)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(f"{len(spec.examples)} rows corrected together", anchor=False, width="stretch")
        st.button(
            "Change the settings", key=f"change_{run.id}", icon=":material/tune:", on_click=_change, args=(spec, kind)
        )
        if state.selected(state.EXAMPLE) is not None:
            st.button("Correct the selected one", key="correct_selected", on_click=_close)
    if spec.epsilons or spec.desired != "gold":
        st.caption(
            "Its groups' own weights, or a desired label other than the true one, were given on the command line: "
            "Run again keeps them, the form that Change the settings opens does not have them."
        )
    with st.expander("Settings of this run"):
        st.text(settings_words(spec, checkpoint, given_of(workspace, spec)))
        st.caption("It writes nothing but this run: labels are not touched.")
    found = run.state()
    if not found.is_over:
        _live(workspace, run, spec, desired)
        return
    reading = reading_of(run)
    file = run.result / "result.json"
    if found.state == "finished" and file.exists():
        outcome = read_json(file)
        show = st.success if outcome["flipped"] == outcome["of"] else st.warning
        show(plain(outcome_words(outcome, spec)))
        st.dataframe(
            pd.DataFrame(table_rows(outcome)), hide_index=True, key="set_outcome", alt="Which row flipped when"
        )
        before_and_after(workspace, spec, run, outcome)
    else:
        outcome = {}
        show_ending(run, found)
    manifest = manifest_of(run)
    if manifest is not None:
        if found.state != "finished":
            st.caption(f"What it reached at step {int(manifest['steps'])} is there and can still be kept.")
        show_chosen(manifest)
        rows_of_run(workspace, run)
        keep_or_discard(workspace, run, manifest)
    if reading.set_steps:
        draw_set(run.id, reading.set_steps, desired)
        if outcome and (said := halves_words(outcome, "any of the corrected ones")):
            st.caption(said)
        show_changed(workspace, spec, run, reading.set_steps[-1])
        comparison(workspace, run, spec)
    with st.container(horizontal=True):
        again_button(run, spec)
        if outcome:
            further_button(run, spec, outcome)
        control_button(run, spec, f"correct {len(spec.examples)} together")


def _live(workspace: Workspace, run: RunDirectory, spec: CorrectionSetSpec, desired: dict[str, str]) -> None:
    def show(reading: RunReading) -> None:
        draw_set(run.id, reading.set_steps, desired)
        if reading.set_steps:
            show_changed(workspace, spec, run, reading.set_steps[-1])

    follow(run, spec, show)


def _change(spec: CorrectionSetSpec, kind: str) -> None:
    fill(spec, None, kind)
    place = {state.WORKSPACE: data.as_selected(spec.workspace), state.CHECKPOINT: spec.checkpoint}
    state.select(**place, **{state.SET: state.as_set(spec.examples), state.RUN: None})
    fill_groups(spec)


def _close() -> None:
    state.select(**{state.RUN: None, state.SET: None})
