"""What a check found, and the way on: check again with other choices, or open with those confirmed."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import streamlit as st

from influence_core.estimates import START, Estimate
from influence_core.rates import rate
from influence_core.specs import CheckSpec, OpenSpec
from influence_core.survey import CheckpointFound, DataFound, Survey
from pages.components import running, source_forms, survey_choices, survey_words
from pages.components.errors import show_error
from pages.components.survey_choices import FIX
from pages.components.text import plain


def show_survey(run_id: str, spec: CheckSpec, survey: Survey) -> None:
    """Show what was found, the choices, and the buttons; nothing is made until Open is pressed."""
    data = survey.data
    with st.container(border=True, key="survey"):
        st.subheader("What was found", anchor=False)
        for problem in survey.problems:
            show_error(problem)
        _checkpoints(survey.checkpoints)
        _rows(data)
        columns = survey_choices.columns(run_id, data)
        left, right = st.columns([1, 1], gap="large")
        with left:
            classes, lacking = survey_choices.classes(run_id, spec, survey)
        with right:
            _sample(run_id, data)
        fate = survey_choices.broken(run_id, data)
        _ways_on(spec, survey, columns, classes, _obstacle(survey, columns, classes, lacking, fate))


def _checkpoints(found: Sequence[CheckpointFound]) -> None:
    st.markdown("**Checkpoint**" if len(found) == 1 else f"**{len(found):,} checkpoints of one training**")
    rows = [
        {
            "Name": PurePath(one.path).name,
            "Family": one.family,
            "Classes": survey_words.classes_words(one),
            "Parameters": survey_words.parameters_words(one.parameters),
            "Step": "–" if one.step is None else f"{one.step:,}",
            "Optimizer": survey_words.optimizer_words(one.optimizer),
        }
        for one in found
    ]
    st.dataframe(rows, hide_index=True, key="survey_checkpoints", alt="Checkpoints that were found")
    for note in dict.fromkeys(note for one in found for note in one.notes):
        st.caption(f":material/info: {plain(note)}")


def _rows(data: DataFound) -> None:
    st.markdown("**Data**")
    st.text(f"{data.source}: {survey_words.rows_words(data.splits, data.held_out)}")
    for note in data.notes:
        st.caption(f":material/info: {plain(note)}")
    for said in survey_words.copies_words(data.splits):
        st.warning(plain(said), icon=":material/content_copy:")


def _sample(run_id: str, data: DataFound) -> None:
    st.markdown("**First rows**")
    head = "Text" if data.modality == "text" else "File"
    rows = [{"Label": label, head: shown} for shown, label in data.sample]
    st.dataframe(
        rows,
        hide_index=True,
        key=f"survey_sample_{run_id}",
        alt="First rows of the data",
        column_config={"Label": st.column_config.TextColumn(width=110)},
    )


def _obstacle(
    survey: Survey, columns: dict[str, Any], classes: dict[str, Any], lacking: Sequence[str], fate: str | None
) -> str | None:
    """Say why it cannot be opened yet; None where nothing is unresolved."""
    if columns:
        return "The columns were changed: check again."
    if lacking:
        return f"No class is chosen for {', '.join(repr(label) for label in lacking[:5])}."
    if survey.problems:
        return "Classes were changed: check again." if classes else "What is marked red above has to be resolved first."
    if fate is None:
        return "Choose what becomes of the rows that cannot be used."
    return "Fix the file, then check again." if fate == FIX else None


def _ways_on(
    spec: CheckSpec, survey: Survey, columns: dict[str, Any], classes: dict[str, Any], obstacle: str | None
) -> None:
    kept = spec.model_dump(exclude={"kind"})
    if "label_column" in columns:
        kept["classes"] = {}  # other labels
    kept["classes"] = {label: name for label, name in kept["classes"].items() if label in survey.data.labels}
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button(
            f"Open ({opening_estimate(survey).words})",
            key="open_found",
            type="primary",
            icon=":material/play_arrow:",
            disabled=obstacle is not None,
        ):
            leave = survey_words.broken_count(survey.data) > 0
            opened = OpenSpec(**{**kept, **classes, "drop_broken": leave})
            running.start(opened, f"open {source_forms.named(spec)}")
        if st.button("Check again", key="check_again", icon=":material/fact_check:"):
            source_forms.check(CheckSpec(**{**kept, **classes, **columns, "drop_broken": True}))
        if obstacle is not None:
            st.caption(plain(obstacle))


def opening_estimate(survey: Survey) -> Estimate:
    """Estimate how long opening takes: a worker's start and a forward pass over the test rows."""
    return Estimate(START + survey.data.splits["test"].rows / rate([], survey.checkpoints[0].parameters))
