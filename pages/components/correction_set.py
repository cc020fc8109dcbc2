"""A new correction of several rows together: which rows, the settings, what they mean, the start."""

from collections import Counter
from typing import Any

import pandas as pd
import streamlit as st

from influence_core import checks
from influence_core.errors import UserError
from influence_core.estimates import estimate
from influence_core.specs import CorrectionSetSpec
from influence_core.validation import check_limit
from influence_core.workspace import Workspace
from pages.components import data, state
from pages.components.contents import cell
from pages.components.correction_charts import draw_set
from pages.components.correction_checks import noted_together
from pages.components.correction_chosen import show_chosen
from pages.components.correction_form import form
from pages.components.correction_set_groups import choose_groups, given_of
from pages.components.correction_set_words import settings_words
from pages.components.correction_words import rows
from pages.components.errors import show_error, shown_errors
from pages.components.guard import Context
from pages.components.offering import unavailable
from pages.components.submitting import submit_button
from pages.components.text import plain

START = "correct_set_start"
_KEEP = "correct_set_rows"
FEW = 6  # rows of a table shown without scrolling


def new_set(context: Context) -> None:
    """Show the rows of the address, the settings, what they mean, and the start."""
    workspace = context.workspace
    examples = _known(workspace, state.chosen_set())
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(f"Correct {rows(len(examples))} together", anchor=False, width="stretch")
        st.button("Choose others", key="set_close", icon=":material/close:", on_click=_close)
    if len(examples) < 2:
        _too_few(examples)
        return
    table = _table(context, examples)
    examples = _chosen(examples)
    if len(examples) < 2:
        _too_few(examples)
        return
    pairs = Counter((row["predicted"], row["true"]) for row in table if row["id"] in examples)
    predicted, true = pairs.most_common(1)[0][0]
    with st.container(border=True, key="correct_settings"):
        options = form(workspace, context.checkpoint, predicted, true, None, examples)
        groups = choose_groups(workspace)
    if groups is None:
        return
    options |= {"desired": "gold", "examples": tuple(examples), **groups}
    with shown_errors():
        spec = workspace.spec(CorrectionSetSpec, {**context.spec, **options})
        _check(workspace, spec, {row["id"]: row["predicted"] for row in table})
        show_chosen(noted_together(workspace, spec))
        _start(context, spec)
        draw_set("", [], {})  # empty: where the run will be seen, and loaded by then


def _too_few(examples: list[str]) -> None:
    st.info("Two rows at least are needed: choose others on Mispredictions, or correct one by itself.")
    for example in examples:
        st.button(f"Correct {example} by itself", key="set_alone", on_click=_alone, args=(example,))
    if st.button("Choose others on Mispredictions", key="set_others"):
        state.go("mispredictions", **{state.SET: None})


def _alone(example: str) -> None:
    state.select(**{state.EXAMPLE: example, state.SET: None})


def _known(workspace: Workspace, examples: list[str]) -> list[str]:
    places = workspace.places(examples)
    missing = [example for example in examples if example not in places]
    if missing:
        show_error(
            f"there is no example {missing[0]!r} in {workspace.name}"
            + (f" ({len(missing)} of {len(examples)} are not there)" if len(missing) > 1 else "")
            + ": they are left out"
        )
    return [example for example in examples if example in places]


def _table(context: Context, examples: list[str]) -> list[dict[str, Any]]:
    """Show the rows with their labels and predictions; returns them."""
    workspace, names = context.workspace, context.workspace.label_names
    content = workspace.dataset.modality
    lines: list[dict[str, Any]] = []
    for example in examples:
        found = data.prediction(workspace, example, context.checkpoint.name)
        lines.append(
            {
                "id": example,
                content: cell(workspace, example),
                "true": names[workspace.truth(example)],
                "predicted": "–" if found is None else names[int(str(found["prediction"]))],
            }
        )
    images = content == "image"
    st.dataframe(
        pd.DataFrame(lines),
        hide_index=True,
        height="content" if images and len(lines) <= FEW else "auto",
        row_height=60 if images else None,
        column_config={"image": st.column_config.ImageColumn(width="small")},
        key="set_table",
        alt="The rows that are corrected together",
    )
    return lines


def _chosen(examples: list[str]) -> list[str]:
    """Let rows be taken out again, one by one; the address follows."""
    key = f"{_KEEP}_{hash(tuple(examples))}"
    kept: list[str] = st.multiselect("Rows", examples, default=examples, key=key, help="take one out with its ×")
    if kept and kept != examples and len(kept) >= 2:
        state.select(**{state.SET: state.as_set(kept)})
        st.rerun()
    return kept


def _check(workspace: Workspace, spec: CorrectionSetSpec, predicted: dict[str, str]) -> None:
    """Raise the first `UserError` that the run would end with, as far as files and labels tell."""
    labels = workspace.labels().values
    refused = []
    for example in spec.examples:
        try:
            known = predicted[example] in workspace.label_names
            if not known and workspace.locate(example)[0] != "train":
                raise UserError(f"example {example!r} is not predicted yet: predict its split on Mispredictions")
            own = workspace.label_index(predicted[example]) if known else -1  # a training row is refused by itself
            checks.check_correction(workspace, spec.alone(example), own, labels)
        except UserError as error:
            refused.append(str(error))
    if not refused:
        check_limit(workspace, spec, spec.examples)
    if refused:
        raise UserError(refused[0] + (f" ({len(refused)} of {len(spec.examples)})" if len(refused) > 1 else ""))
    if spec.strategy != "random" and (why := unavailable(workspace, spec)) is not None:
        raise UserError(why)


def _start(context: Context, spec: CorrectionSetSpec) -> None:
    st.text(settings_words(spec, context.checkpoint, given_of(context.workspace, spec)))
    st.warning(
        "This is an experiment: all it writes is a run. Labels are not touched; to change them for good, use Relabel.",
        icon=":material/science:",
    )
    words = estimate(context.workspace, spec).words
    what = f"correct {len(spec.examples)} together ({spec.strategy})"
    submit_button(f"Start ({plain(words)})", START, spec, what, icon=":material/play_arrow:", primary=True)


def _close() -> None:
    state.select(**{state.SET: None})
