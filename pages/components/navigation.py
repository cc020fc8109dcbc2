"""The pages, in the order of the journey."""

import streamlit as st

from influence_core.workspace import Workspace
from pages.components import state

# file name (and address), title, icon, what it is for
PAGES = (
    ("load", "Load", ":material/upload_file:", "Open a demo, or a checkpoint and data of your own."),
    ("mispredictions", "Mispredictions", ":material/rule:", "What the checkpoint gets wrong, most confident first."),
    ("influence", "Influence", ":material/hub:", "Which training rows support or oppose one prediction."),
    ("relabel", "Relabel", ":material/edit_note:", "Confirm or change labels of training rows."),
    ("correct", "Correct", ":material/build:", "Fine-tune a few steps on suspicious rows and watch."),
    ("fading", "Fading", ":material/trending_down:", "How long scores predict what training does: watch it fade."),
    ("runs", "Runs", ":material/timeline:", "Everything that runs or ran: open, cancel, again."),
    (
        "results",
        "Results",
        ":material/fact_check:",
        "The paper beside what was measured here, a verdict each.",
    ),
)
PAGE_OF_KIND = {"check": "load", "open": "load", "predict": "mispredictions", "rank": "influence", "index": "influence"}
PAGE_OF_KIND |= {"explain": "mispredictions", "suspects": "relabel", "fading": "fading"}
PAGE_OF_KIND |= dict.fromkeys(("correct", "correct-set"), "correct")
PAGE_OF_KIND |= dict.fromkeys(("divergence", "tracin-error", "stability"), "runs")
PAGE_OF_KIND |= dict.fromkeys(("correction", "mislabelled", "retrain"), "runs")
PAGE_OF_KIND |= {"horizon": "influence", "forecast": "influence"}


def home() -> None:
    """Open the first page that has something to show."""
    page = "mispredictions" if Workspace.names() else "load"
    st.switch_page(f"pages/{page}.py", query_params=dict(st.query_params))


def register() -> "st.Page":
    """Tell Streamlit which pages exist; returns the one that was asked for.

    The default page only forwards, so that every real page keeps an address of its own.
    """
    first = st.Page(home, title="Influence debugger", default=True, visibility="hidden")
    rest = [
        st.Page(f"pages/{name}.py", title=title, help=purpose)  # an icon here would be fetched from the internet
        for name, title, _, purpose in PAGES
    ]
    return st.navigation([first, *rest], position="hidden")


def links() -> None:
    """Show links to all pages that keep what is selected."""
    for name, title, icon, purpose in PAGES:
        st.page_link(f"pages/{name}.py", label=title, icon=icon, help=purpose, query_params=state.url())
