"""What was decided about one row, by whom and when; and the files with all decisions."""

import io
from collections.abc import Sequence
from functools import partial

import pandas as pd
import streamlit as st

from influence_core.labels import LabelEvent, LabelStore, current_labels, export
from influence_core.workspace import Workspace
from pages.components import labelling, state
from pages.components.label_words import VERDICTS, clock, standing

EXPORTS = {"events": "All events (who, when, from, to)", "labels": "Labels as they stand, every training row"}
MIME = {"csv": "text/csv", "jsonl": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}


def history_table(history: Sequence[LabelEvent]) -> None:
    """Show a row's events, newest first, and a button that undoes the last one that stands."""
    if not history:
        st.caption("Nobody has decided about this row yet; its label is the dataset's own.")
        return
    table = pd.DataFrame(
        [
            {
                "when": clock(event),
                "who": event.annotator,
                "what": VERDICTS[event.verdict],
                "from": event.old,
                "to": event.new,
                "note": event.note,
            }
            for event in reversed(history)
        ]
    )
    st.dataframe(table, hide_index=True, key="history", alt="Label events of this row, newest first")
    open_ = standing(history)
    if open_ is not None:
        nameless = not state.annotator().strip()
        st.button(
            f"Undo: {VERDICTS[open_.verdict]} at {clock(open_)}",
            key=f"undo-{open_.event_id}",
            icon=":material/undo:",
            on_click=labelling.undo,
            args=(open_,),
            disabled=nameless,
            help="type your name first: an undo is kept with who made it" if nameless else None,
        )


def exported(workspace: Workspace, what: str, format: str) -> bytes:
    """Return a file with all events, or with every training row's label as it stands."""
    store, data, file = LabelStore(), workspace.data_fingerprint, io.BytesIO()
    export(
        store.history(data) if what == "events" else current_labels(store, data, workspace.training_rows()),
        format,
        file,
    )
    return file.getvalue()


def export_menu(workspace: Workspace) -> None:
    """Offer the labels as files; they are made when clicked."""
    with st.popover("Export labels", icon=":material/download:"):
        for what, words in EXPORTS.items():
            st.caption(words)
            with st.container(horizontal=True):
                for format in MIME:
                    st.download_button(
                        format.upper(),
                        data=partial(exported, workspace, what, format),
                        file_name=f"{workspace.path.name}-{what}.{format}",
                        mime=MIME[format],
                        key=f"export-{what}-{format}",
                        on_click="ignore",
                    )
        st.caption("In CSV, cells that a spreadsheet would run as a formula get an apostrophe in front.")
