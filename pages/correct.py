"""Correct: fine-tune a few steps on chosen rows, watch the example flip (or not), keep the result or drop it."""

import streamlit as st

from influence_core.estimates import estimate
from influence_core.specs import CorrectionSpec, PredictSpec
from pages.components import contents, data, pictures, running, state
from pages.components.correction_charts import draw
from pages.components.correction_checks import check, desired_label, noted, other_rows
from pages.components.correction_chosen import show_chosen
from pages.components.correction_form import form
from pages.components.correction_rows import rows_before
from pages.components.correction_run import correction_run
from pages.components.correction_set import new_set
from pages.components.correction_set_run import set_run
from pages.components.correction_settings import adopt
from pages.components.correction_words import settings_words
from pages.components.errors import show_error, shown_errors
from pages.components.guard import Context, guard
from pages.components.submitting import submit_button
from pages.components.text import plain

START = "correct_start"


def choose_example() -> None:
    """Say that there is no example, and where to find one."""
    st.info("No example to correct yet: choose a misprediction first.")
    st.page_link("pages/mispredictions.py", label="Mispredictions", query_params=state.url())


def new_correction(context: Context, example: str) -> None:
    """Show the settings for the selected example, what they mean, and the start."""
    workspace, checkpoint = context.workspace, context.checkpoint
    split, _ = workspace.locate(example)
    if split == "train":
        show_error(f"example {example!r} is a training row: corrections work on validation and test rows")
        return
    row = data.prediction(workspace, example, checkpoint.name)
    if row is None:
        spec = PredictSpec(workspace=workspace.name, checkpoint=checkpoint.name, split=split)
        st.info(f"The {split} rows are not predicted with this checkpoint yet.")
        words = estimate(workspace, spec).words
        running.follow_or_offer(spec, f"Predict the {split} rows", words, f"predict {split}", key="correct_predict")
        return
    names = workspace.label_names
    predicted, true = names[int(str(row["prediction"]))], names[int(str(row["label"]))]
    with st.container(border=True):
        st.caption(plain(f"{split.capitalize()} row {example} · checkpoint {checkpoint.name}"))
        contents.show_content(workspace, example, alt=f"{split} row, true {true}", side=pictures.CARD, length=400)
        st.text(f"true {true} · predicted {predicted}")
    adopt(example)
    with st.container(border=True, key="correct_settings"):
        options = form(workspace, checkpoint, predicted, true, example)
    with shown_errors():
        correction = workspace.spec(CorrectionSpec, {**context.spec, "example": example, **options})
        check(workspace, correction, predicted)
        _start(context, correction)
        draw("", [], desired_label(workspace, correction))  # empty: where the run will be seen, and loaded by then


def _start(context: Context, spec: CorrectionSpec) -> None:
    st.text(settings_words(spec, context.checkpoint))
    show_chosen(noted(context.workspace, spec))
    rows_before(context.workspace, spec)
    if other_rows(context.workspace, spec, state.handed_over(spec.example)):
        st.caption("These are other rows than those handed over from Influence: their ranking has other settings.")
    if spec.strategy == "opponents" or spec.only_annotated:
        said = "This is an experiment: it tunes the model on these rows."
    else:
        said = "This is an experiment: it sets these rows to the desired label on purpose, right or wrong."
    st.warning(
        f"{said} All it writes is a run. Labels are not touched; to change labels for good, use Relabel.",
        icon=":material/science:",
    )
    words = estimate(context.workspace, spec).words
    what = f"correct {spec.example} ({spec.strategy})"
    submit_button(f"Start ({words})", START, spec, what, icon=":material/play_arrow:", primary=True)


def main() -> None:
    """Lay out the page: the run in the URL if there is one, otherwise the settings of a new one."""
    context = guard("Correct")
    run = running.selected_run("correct", "correct-set")
    if run is not None and run.record().kind == "correct-set":
        set_run(run)
    elif run is not None:
        correction_run(context, run)
    elif state.chosen_set():
        new_set(context)
    elif context.example is None:
        choose_example()
    else:
        new_correction(context, context.example)


main()
