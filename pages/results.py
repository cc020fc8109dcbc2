"""Results: what was measured, beside what the paper says, a verdict each."""

import streamlit as st

from pages.components.guard import guard_any
from pages.components.result_documents import documents
from pages.components.result_view import choose, view
from pages.components.text import plain

guard_any("Results")
found, broken = documents()
for file in broken:
    st.caption(plain(f"{file} cannot be read and is left out."))
if found:
    st.markdown("What this app's studies measured, beside what the paper says. Each document names its commands.")
    chosen = choose(found)
    st.divider()
    view(chosen)
else:
    st.info("The results are not installed here: they lie in docs/results of the repository.")
