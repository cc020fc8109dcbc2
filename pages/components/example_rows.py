"""The rows of a split as Mispredictions lists them: texts below each other, images as a grid of cards."""

from typing import Any

import pandas as pd
import streamlit as st

from influence_core.charts import number
from influence_core.specs import Split
from influence_core.workspace import Workspace
from pages.components import pictures, state
from pages.components.cards import FLAG, ROW_LENGTH
from pages.components.contents import beginning, has_images
from pages.components.text import plain

CARD_WIDTH = 180  # pixels: five cards in a row of an ordinary window, more in a wide one
PER_PAGE = {"text": 10, "image": 20}


def show_rows(workspace: Workspace, split: Split, rows: pd.DataFrame) -> None:
    """Show rows of `Workspace.examples`, a page at a time, each with the way on."""
    st.caption("Confidence · true → predicted")
    per_page = PER_PAGE[workspace.dataset.modality]
    pages = -(-len(rows) // per_page)
    page = 1
    if pages > 1:
        page = st.pagination(pages, key=f"page_{split}_{abs(hash(tuple(rows['id'])))}")
    shown = [row for _, row in rows.iloc[(page - 1) * per_page : page * per_page].iterrows()]
    if has_images(workspace):
        with st.container(horizontal=True, gap="small", key="image_grid"):
            for row in shown:
                _card(workspace, split, row)
    else:
        for row in shown:
            _text_row(workspace, split, row)


def _text_row(workspace: Workspace, split: Split, row: "pd.Series[Any]") -> None:
    """Show one text: confidence, true → predicted, about three lines, and the way on."""
    with st.container(border=True, gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center"):
            _outcome(workspace, row)
            st.space("stretch")
            _onwards(split, str(row["id"]))
        st.text(beginning(workspace, str(row["id"]), ROW_LENGTH))


def _card(workspace: Workspace, split: Split, row: "pd.Series[Any]") -> None:
    """Show one image with true → predicted under it, its confidence, and the way on."""
    names, example = workspace.label_names, str(row["id"])
    alt = f"true {names[row['label']]}, predicted {names[row['prediction']]}"
    with st.container(border=True, width=CARD_WIDTH, gap="xsmall", horizontal_alignment="center"):
        pictures.picture(workspace, example, pictures.CARD, alt)
        _outcome(workspace, row)
        _onwards(split, example)


def _outcome(workspace: Workspace, row: "pd.Series[Any]") -> None:
    names = workspace.label_names
    st.markdown(f"**{number(row['confidence'])}**", width="content")
    st.text(f"{names[row['label']]} → {names[row['prediction']]}", width="content")
    if "gold" in row and row["gold"] != row["label"]:
        st.badge(plain(f"gold says {names[row['gold']]}"), icon=FLAG, color="violet")


def _onwards(split: Split, example: str) -> None:
    if split == "train":
        if st.button("Relabel", key=f"open_{example}", icon=":material/edit:"):
            state.go("relabel", row=example)
    elif st.button("Explain", key=f"open_{example}", icon=":material/hub:"):
        state.go("influence", example=example, row=None, run=None)
