"""The report of a correction's run as a file to download, made when it is asked for."""

import streamlit as st

from influence_core.reports.correction import report
from influence_core.runs.directory import RunDirectory


def report_button(run: RunDirectory) -> None:
    """Offer the report; it is built after the click, on no other rerun."""
    st.download_button(
        "Report",
        data=lambda: report(run.id),
        file_name=f"correction-{run.id[:8]}.html",
        mime="text/html",
        key=f"report_{run.id}",
        icon=":material/lab_profile:",
        on_click="ignore",
        help="one HTML page with the example, the ranking, the labels, the course and what it did to other rows",
    )
