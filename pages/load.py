"""Load: open a demo, files of one's own, or a model and a data set from the hub."""

import streamlit as st

from pages.components import loading
from pages.components.demos import demo_card
from pages.components.guard import guard_any
from pages.components.source_forms import files_card, hub_card

guard_any("Load")
run = loading.selected()
if run is not None:
    loading.progress(run)
    st.subheader("Change what was typed, or open something else", anchor=False)
for column, card in zip(st.columns(3), (demo_card, files_card, hub_card), strict=True):
    with column:
        card()
