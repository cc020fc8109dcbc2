"""The app's entry: registers the pages and runs the one that was asked for."""

import streamlit as st

from pages.components import navigation, state

if __name__ == "__main__":
    page = navigation.register()  # before anything that could stop
    st.session_state[state.NAVIGATED] = True
    page.run()
