"""Fading: watch how long influence scores predict what training does."""

import streamlit as st

from pages.components import running
from pages.components.fading_example import example
from pages.components.fading_form import new_measurement
from pages.components.fading_run import course_of, settings_of
from pages.components.fading_view import terms
from pages.components.fading_words import INTRO
from pages.components.guard import guard

context = guard("Fading")
with st.container(horizontal=True, vertical_alignment="center"):
    st.markdown(INTRO, width="stretch")
    terms()
left, right = st.columns([2, 5], gap="medium")
run = running.selected_run("fading")
with left:
    if run is None:
        new_measurement(context)
    else:
        settings_of(run)
with right:
    if run is None:
        example()
    else:
        course_of(run)
