"""The selected check or opening on the Load page: its check list as it fills in, and what came of it."""

from collections.abc import Sequence

import streamlit as st

from influence_core.errors import UserError
from influence_core.events import Progress, Result
from influence_core.runs.directory import RunDirectory
from influence_core.specs import CheckSpec, Sources
from influence_core.survey import Survey
from influence_core.workspace import Workspace
from pages.components import running, source_forms
from pages.components.demos import open_workspace
from pages.components.errors import show_error
from pages.components.survey_view import show_survey
from pages.components.text import plain


def selected() -> RunDirectory | None:
    """Return the run of the URL if it checks or opens; the forms take over what was typed for it."""
    run = running.selected_run("check", "open")
    if run is not None:
        source_forms.adopt(run)
    return run


def progress(run: RunDirectory) -> None:
    """Follow a run, then show what a check found, or what was opened."""
    spec = run.spec()
    if isinstance(spec, Sources):
        doing = "Check" if isinstance(spec, CheckSpec) else "Opening"
        st.text(f"{doing} of {spec.checkpoint} with {spec.data}")
    state = running.follow(run, _live_list).state
    if state != "finished":
        if state != "running":
            check_list(run.events()[0], state)
        return
    found = running.result_of(run)
    if found is None:
        return
    if isinstance(spec, CheckSpec):
        show_survey(run.id, spec, Survey.model_validate(found))
    else:
        outcome(found)
        with st.expander("What was done"):
            check_list(run.events()[0], state)


def _live_list(run: RunDirectory) -> None:
    check_list(run.events()[0], "running")


def check_list(events: Sequence[object], run_state: str) -> None:
    """Tick off the phases that a run went through."""
    phases: dict[str, bool] = {}
    for event in events:
        if isinstance(event, Progress):
            for name in phases:
                phases[name] = True
            phases[event.phase] = event.unit == "checks" or event.done >= event.total
        elif isinstance(event, Result):
            phases = dict.fromkeys(phases, True)
    with st.container(gap="xsmall"):
        for name, done in phases.items():
            words = "done" if done else "going on" if run_state == "running" else "not finished"
            icon = ":material/check_circle:" if done else ":material/pending:"
            st.markdown(f"{icon} {plain(name)}: {words}")


def outcome(found: dict[str, object]) -> None:
    """Show what was opened, with the classes as they are read, and a button to use it."""
    name = str(found["workspace"])
    try:
        workspace = Workspace.open(name)
    except UserError as error:
        show_error(str(error))
        return
    rows = found.get("rows")
    if isinstance(rows, dict):
        st.text("Rows: " + " · ".join(f"{int(count):,} {split}" for split, count in rows.items() if count))
    accuracy, wrong = found.get("accuracy"), found.get("mispredictions")
    if isinstance(accuracy, float) and wrong is not None:
        st.text(f"Accuracy {100 * accuracy:.1f} %, {wrong} mispredictions")
    counts = workspace.train["label"].value_counts()
    st.text(
        "Classes: "
        + " · ".join(
            f"{number} is “{label}” ({int(counts.get(number, 0)):,} training rows)"
            for number, label in enumerate(workspace.label_names)
        )
    )
    notes = found.get("notes")
    for note in notes if isinstance(notes, list) else []:
        st.text(str(note))
    if st.button("Open it", key="open_it", type="primary", icon=":material/play_arrow:"):
        open_workspace(name, str(found["checkpoint"]) if "checkpoint" in found else None)
