"""Mispredictions: the confusion matrix, filters, and the wrong rows, most confident first."""

from dataclasses import replace

import pandas as pd
import streamlit as st

from influence_core.estimates import estimate
from influence_core.specs import PredictSpec, Split
from pages.components import data, filters, state
from pages.components.contents import has_images
from pages.components.example_rows import show_rows
from pages.components.explain_all import explain_all_button, explain_all_panel
from pages.components.guard import Context, guard
from pages.components.matrix import matrix
from pages.components.running import follow_or_offer
from pages.components.set_choice import set_choice

MANY_CLASSES = 4  # with more, the matrix has half of the page
ORDERS = {
    "Most confident first": ("confidence", False),
    "Highest loss first": ("loss", False),
    "Smallest margin first": ("margin", True),
}


def pick_split(context: Context) -> Split:
    """Return the split to browse: test unless another is chosen."""
    splits = list(context.workspace.dataset.splits)
    default = "test" if "test" in splits else splits[-1]
    chosen: Split | None = st.segmented_control(
        "Split", splits, default=default, key="split", required=True, bind="query-params"
    )
    return chosen or default


def offer_prediction(context: Context, split: Split) -> None:
    """Say that the split is not predicted, and offer to do so."""
    rows = len(context.workspace.dataset.splits[split])
    st.info(f"The {split} split ({rows:,} rows) is not predicted with this checkpoint yet.")
    spec = context.workspace.spec(PredictSpec, {**context.spec, "split": split})
    words = estimate(context.workspace, spec).words
    follow_or_offer(spec, "Predict this split", words, f"predict {split}", key="predict")


def listed(context: Context, split: Split, frame: pd.DataFrame, set_to: filters.Filters) -> pd.DataFrame:
    """Show how many rows are listed and in which order; returns them."""
    names = context.workspace.label_names
    found = set_to.apply(frame, names)
    wrong = int((frame["prediction"] != frame["label"]).sum())
    left, right = st.columns([3, 2], vertical_alignment="center")
    order = right.selectbox("Order", list(ORDERS), key="order_by", label_visibility="collapsed")
    which = "" if set_to.cell is None else f" ({filters.cell_words(set_to.cell, names)})"
    with left.container(horizontal=True, vertical_alignment="center"):
        st.text(f"{wrong:,} of {len(frame):,} wrong · showing {len(found):,}{which}", width="content")
        if set_to.active:
            st.button("Clear filters", icon=":material/filter_alt_off:", on_click=filters.clear, key="clear")
        if split != "train":
            explain_all_button(wrong)
    if split != "train":
        explain_all_panel(context, split)
    column, ascending = ORDERS[order]
    return found.sort_values(column, ascending=ascending, kind="stable")


def browse(context: Context, split: Split, frame: pd.DataFrame) -> None:
    """Show matrix, filters and rows of a split; images below them, where there is room for a grid."""
    workspace = context.workspace
    many = len(workspace.label_names) > MANY_CLASSES
    left, right = st.columns([1, 1] if many else [2, 3], gap="large")
    with left:
        cell = matrix(frame, workspace.label_names, f"{split}_{context.checkpoint.name}")
    with right:
        set_to = replace(filters.controls(frame), cell=cell)
        found = listed(context, split, frame, set_to)
    if split != "train":  # previous and next walk through test examples
        state.browse(found["id"].tolist())
    if split != "train" and set_to.active:
        with right:
            set_choice(found)
    with st.container() if has_images(workspace) else right:
        if found.empty:
            st.info(empty_words(split, set_to))
        else:
            show_rows(workspace, split, found)


def empty_words(split: Split, set_to: filters.Filters) -> str:
    """Say why the list is empty."""
    if not set_to.active:
        return f"Every row of the {split} split is predicted right."
    plural = "these" if set_to.active > 1 else "this"
    return f"No rows match {plural} {set_to.active} filter{'s' if set_to.active > 1 else ''}."


context = guard("Mispredictions")
split = pick_split(context)
frame = data.examples(context.workspace, split, context.checkpoint.name)
if frame is None:
    offer_prediction(context, split)
else:
    browse(context, split, frame)
