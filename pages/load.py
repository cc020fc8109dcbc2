"""Load: open the demo, files of one's own, or a model and a data set from the hub."""

import streamlit as st

from pages.components import loading
from pages.components.guard import guard_any

guard_any("Load")
loading.opening()
for column, card in zip(st.columns(3), (loading.demo_card, loading.files_card, loading.hub_card), strict=True):
    with column:
        card()
