"""What a user confirms or changes of a check: columns, classes, and what becomes of rows that cannot be used."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from influence_core.specs import CheckSpec
from influence_core.survey import DataFound, Survey
from pages.components.survey_words import broken_count, matched_words
from pages.components.text import plain

MADE = "(made from the contents)"  # no id column
NOTHING = "– choose a class –"
FEW = "– none: rows that cannot be used –"  # of a label on few rows, which stand among the broken ones
LIST_HEIGHT = 560  # pixels; more classes scroll
MOST_CLASSES = 10  # shown without scrolling
LEAVE, FIX = "leave", "fix"


def columns(run_id: str, data: DataFound) -> dict[str, Any]:
    """Show the columns as select boxes; returns the fields of the spec that were changed."""
    if not data.columns:
        return {}
    st.markdown("**Columns**")
    own = f"{data.modality}_column"
    pairs = ((own, data.modality.capitalize(), data.input_column), ("label_column", "Label", data.label_column))
    changed: dict[str, Any] = {}
    with st.container(horizontal=True):
        for name, label, found in pairs:
            options = list(dict.fromkeys([found, *data.columns]))
            chosen = st.selectbox(label, options, key=f"survey_{name}_{run_id}")
            if chosen != found:
                changed[name] = chosen
        none = [MADE] if data.id_column is None else []
        options = list(dict.fromkeys([data.id_column or MADE, *data.columns, *none]))
        chosen = st.selectbox("Id", options, key=f"survey_id_column_{run_id}")
        if chosen not in (data.id_column, MADE):
            changed["id_column"] = chosen
    return changed


def classes(run_id: str, spec: CheckSpec, survey: Survey) -> tuple[dict[str, Any], list[str]]:
    """Show each label of the data beside its class; returns changed fields of the spec, and labels without a class."""
    data, known = survey.data, survey.checkpoints[0].classes
    st.markdown("**Classes**")
    st.caption(matched_words(data, known))
    with st.container(height=LIST_HEIGHT if len(data.labels) > MOST_CLASSES else "content", border=False):
        heads = ("Label in the data", "Rows", "Class of the checkpoint" if known else "Label words")
        for column, head in zip(st.columns([3, 1, 4]), heads, strict=True):
            column.caption(head)
        if not known:
            return _label_words(run_id, spec, data), []
        chosen = {label: _class(run_id, survey, label) for label in data.labels}
    lacking = [label for label, name in chosen.items() if name is None and label in data.classes]
    if chosen == {label: _own_name(survey, label) for label in data.labels}:
        return {}, lacking
    return {"classes": {label: name for label, name in chosen.items() if name is not None}}, lacking


def _class(run_id: str, survey: Survey, label: str) -> str | None:
    known = survey.checkpoints[0].classes
    found = _own_name(survey, label)
    none = NOTHING if label in survey.data.classes else FEW
    options = [*known] if found is not None else [none, *known]
    shown = dict(zip(known, survey.label_names, strict=False))
    left, middle, right = st.columns([3, 1, 4], vertical_alignment="center")
    left.text(label)
    middle.text(f"{survey.data.labels[label]:,}")
    chosen = right.selectbox(
        f"Class of {label}",
        options,
        index=0 if found is None else options.index(found),
        format_func=lambda name: name if shown.get(name, name) == name else f"{name}, named {shown[name]}",
        key=f"survey_class_{label}_{run_id}",
        label_visibility="collapsed",
    )
    return None if chosen == none and found is None else chosen


def _own_name(survey: Survey, label: str) -> str | None:
    """Return a label's class by the checkpoint's own name for it, whichever name was reported."""
    known, found = survey.checkpoints[0].classes, survey.data.classes.get(label)
    if found is None or found in known:
        return found
    named = survey.label_names
    return known[named.index(found)] if found in named and named.index(found) < len(known) else None


def _label_words(run_id: str, spec: CheckSpec, data: DataFound) -> dict[str, Any]:
    """Show what the decoder says for each class; returns the label words if they were changed."""
    words: dict[str, str] = {}
    for label, count in data.labels.items():
        name = data.classes.get(label)
        left, middle, right = st.columns([3, 1, 4], vertical_alignment="center")
        left.text(label)
        middle.text(f"{count:,}")
        if name is None:
            right.text("–")
            continue
        own = spec.label_words.get(name, name)
        typed = right.text_input(
            f"Label words of {label}", own, key=f"survey_words_{label}_{run_id}", label_visibility="collapsed"
        )
        words[name] = typed.strip() or own
    before: Mapping[str, str] = {name: spec.label_words.get(name, name) for name in words}
    return {} if words == before else {"label_words": words}


def broken(run_id: str, data: DataFound) -> str | None:
    """List the rows that cannot be used and ask what becomes of them; None while that is open."""
    count = broken_count(data)
    if not count:
        return LEAVE
    rows = "row" if count == 1 else "rows"
    st.warning(f"{count:,} {rows} cannot be used.", icon=":material/warning:")
    table = [row.model_dump(include={"split", "position", "reason", "shown"}) for row in data.broken]
    st.dataframe(
        table,
        hide_index=True,
        key=f"survey_broken_{run_id}",
        alt="Rows that cannot be used",
        height=240 if len(table) > 6 else "auto",
        column_config={
            "split": st.column_config.TextColumn("Split", width=90),
            "position": st.column_config.TextColumn("Position", width="medium"),
            "reason": st.column_config.TextColumn("Reason", width="medium"),
            "shown": st.column_config.TextColumn("What stands there", width="large"),
        },
    )
    if len(table) < count:
        st.caption(f"The first {len(table):,} of {count:,}.")
    labels = {
        LEAVE: f"Leave {'this row' if count == 1 else f'these {count:,} rows'} out",
        FIX: "I fix the file and check again",
    }
    chosen: str | None = st.radio(
        "What becomes of them?",
        list(labels),
        index=None,
        format_func=lambda choice: plain(labels[choice]),
        key=f"survey_broken_choice_{run_id}",
    )
    return chosen
