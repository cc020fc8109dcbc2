"""One correction run, whoever started it and wherever: its example, settings, course, outcome and what comes next."""

from typing import Any

import streamlit as st

from influence_core.errors import UserError
from influence_core.home import read_json
from influence_core.reports.cautions import halves_words
from influence_core.runs.directory import RunDirectory
from influence_core.specs import CorrectionSpec
from influence_core.workspace import Workspace
from pages.components import contents, data, pictures, state
from pages.components.correction_charts import draw, show_changed
from pages.components.correction_checks import desired_label
from pages.components.correction_chosen import show_chosen
from pages.components.correction_comparison import comparison
from pages.components.correction_next import again_button, control_button, further_button
from pages.components.correction_outcome import keep_or_discard, manifest_of, show_ending, show_outcome
from pages.components.correction_rows import rows_of_run
from pages.components.correction_settings import fill
from pages.components.correction_words import optimizer_kind, settings_words
from pages.components.errors import show_error
from pages.components.guard import Context
from pages.components.live_correction import live_correction, reading_of


def correction_run(context: Context, run: RunDirectory) -> None:
    """Show the run named by the URL; it need not be of the selected example, nor of this workspace."""
    spec = run.spec()
    assert isinstance(spec, CorrectionSpec)
    try:
        workspace = data.workspace(spec.workspace)
        checkpoint = workspace.checkpoint(spec.checkpoint)
        desired = desired_label(workspace, spec)
    except UserError as error:
        show_error(str(error))
        return
    _about(context, workspace, spec, desired)
    with st.expander("Settings of this run"):
        st.text(settings_words(spec, checkpoint))
        st.caption("It writes nothing but this run: labels are not touched.")
    found = run.state()
    if not found.is_over:
        live_correction(workspace, run, spec, desired)
        return
    reading = reading_of(run)
    file = run.result / "result.json"
    if found.state == "finished" and file.exists():
        show_outcome(workspace, spec, run, desired, read_json(file))
    else:
        show_ending(run, found)
    manifest = manifest_of(run)
    if manifest is not None:
        if found.state != "finished":
            st.caption(f"What it reached at step {int(manifest['steps'])} is there and can still be kept.")
        show_chosen(manifest)
        rows_of_run(workspace, run)
        keep_or_discard(workspace, run, manifest)
    if reading.steps:
        draw(run.id, reading.steps, desired)
        if reading.result and (said := halves_words(reading.result)):
            st.caption(said)
        show_changed(workspace, spec, run, reading.steps[-1])
        comparison(workspace, run, spec)
    _next(run, spec, desired, optimizer_kind(spec, checkpoint), reading.result)


def _about(context: Context, workspace: Workspace, spec: CorrectionSpec, desired: str) -> None:
    split, _ = workspace.locate(spec.example)
    row = data.prediction(workspace, spec.example, workspace.checkpoint(spec.checkpoint).name)
    example = workspace.example(spec.example)
    true = workspace.label_names[int(example["label"])]
    predicted = "" if row is None else f" · predicted {workspace.label_names[int(str(row['prediction']))]}"
    if context.example is None and workspace.name == context.workspace.name:
        state.select(example=spec.example)  # a link to a run alone: the run says what is selected
    elif workspace.name != context.workspace.name or spec.example != context.example:
        where = "" if workspace.name == context.workspace.name else f" of workspace {workspace.name}"
        with st.container(horizontal=True, vertical_alignment="center"):
            st.text(f"This run corrects {split} row {spec.example}{where}, not the selected example.")
            if context.example is not None:
                st.button("Correct the selected one", key="correct_selected", on_click=_close)
    with st.container(border=True):
        st.caption("Corrected example")
        alt = f"{split} row, true {true}"
        contents.show_content(workspace, spec.example, alt=alt, side=pictures.CARD, length=400)
        st.text(f"{spec.example} · true {true}{predicted} · desired {desired}")


def _next(run: RunDirectory, spec: CorrectionSpec, desired: str, kind: str, outcome: dict[str, Any] | None) -> None:
    with st.container(horizontal=True):
        again_button(run, spec)
        if outcome:
            further_button(run, spec, outcome)
        st.button(
            "Change the settings",
            key=f"change_{run.id}",
            icon=":material/tune:",
            on_click=_change,
            args=(spec, desired, kind),
        )
        control_button(run, spec, f"correct {spec.example}")


def _change(spec: CorrectionSpec, desired: str, kind: str) -> None:
    fill(spec, desired, kind)
    place = data.as_selected(spec.workspace)
    state.select(workspace=place, checkpoint=spec.checkpoint, example=spec.example, run=None)


def _close() -> None:
    state.select(run=None)
