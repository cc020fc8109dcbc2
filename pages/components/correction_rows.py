"""The rows of B, before a run and after it: what they are, their labels, and those that a correction trains with."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from influence_core.artefacts import check_same
from influence_core.labels import LabelEvent, LabelStore
from influence_core.rankings import Ranking
from influence_core.reports.chosen_rows import ChosenRow, chosen_rows, stale_words
from influence_core.reports.facts import read
from influence_core.runs.directory import RunDirectory
from influence_core.specs import CorrectionSpec
from influence_core.workspace import Workspace
from pages.components import correction_rows_words as said
from pages.components.contents import beginning, cell, has_images
from pages.components.correction_checks import desired_label, ranking_of, taken
from pages.components.errors import shown_errors
from pages.components.label_words import VERDICTS
from pages.components.text import plain

MOST_ROWS, FEW_ROWS = 500, 6  # listed in one table; shown without scrolling
HEIGHT, PICTURE_HEIGHT = 320, 60  # pixels of a table that scrolls, and of its rows with pictures
WIDTHS = {"text": 360, "decided": 160, "note": 140}  # pixels, so that a long text leaves room for what is short


def rows_of_run(workspace: Workspace, run: RunDirectory) -> None:
    """Show the rows that a run trained on, and say how many were scored by earlier labels."""
    manifest = run.result / "manifest.json"
    with shown_errors():
        key = (str(run.result), manifest.stat().st_mtime_ns, workspace.data_fingerprint)
        rows, stale, whose = _of_run(*key, workspace)
        if stale is not None:
            st.caption(plain(stale))
        _fold(workspace, rows, whose)


@st.cache_data(max_entries=20, show_spinner=False)
def _of_run(result: str, made: int, data: str, _workspace: Workspace) -> tuple[list[ChosenRow], str | None, str]:
    # what a run saw does not change any more; to find it, all label events are read
    correction = read(_workspace, Path(result))
    check_same(f"the data of {_workspace.name}", correction.manifest["data"], data)
    rows = chosen_rows(correction)
    return rows, stale_words(correction, rows), correction.whose


def rows_before(workspace: Workspace, spec: CorrectionSpec) -> None:
    """Show the rows that a run would take, as far as its ranking is at hand, and what is odd about them."""
    ranking = ranking_of(workspace, spec)
    if ranking is None:
        st.caption(said.UNKNOWN if spec.strategy != "random" else said.DRAWN)
        return
    desired = desired_label(workspace, spec)
    rows = _would_take(workspace, spec, ranking, desired)
    for words in (said.stale_before(ranking.stale, rows), said.set_already(spec, rows, desired)):
        if words is not None:
            st.caption(plain(words))
    _fold(workspace, rows, said.whose(spec, desired))


def _would_take(workspace: Workspace, spec: CorrectionSpec, ranking: Ranking, desired: str) -> list[ChosenRow]:
    last = _last_events(str(workspace.path), ranking.cursor, workspace)
    return [
        ChosenRow(row.id, row.label, desired if said.sets(spec) else row.label, last.get(row.id), row.stale)
        for row in taken(spec, ranking)
    ]


@st.cache_data(max_entries=4, show_spinner=False)
def _last_events(path: str, cursor: int, _workspace: Workspace) -> dict[str, LabelEvent]:
    history = LabelStore().history(_workspace.data_fingerprint) if cursor else []
    return {event.example: event for event in history}


def _fold(workspace: Workspace, rows: Sequence[ChosenRow], whose: str) -> None:
    with st.expander(said.title(len(rows))):
        st.caption(plain(whose))
        images = has_images(workspace)
        table = rows_table(workspace, rows[:MOST_ROWS])
        st.dataframe(
            table,
            hide_index=True,
            height=HEIGHT if len(table) > FEW_ROWS else "content",
            row_height=PICTURE_HEIGHT if images else None,
            column_config={
                "image": st.column_config.ImageColumn(width="small"),
                **{name: st.column_config.TextColumn(width=width) for name, width in WIDTHS.items()},
            },
            key="rows_of_b",
            alt="The training rows that the correction is trained on beside its batches",
        )
        if len(rows) > MOST_ROWS:
            st.caption(f"The first {MOST_ROWS:,} of {len(rows):,}.")


def rows_table(workspace: Workspace, rows: Sequence[ChosenRow]) -> pd.DataFrame:
    """Return the rows as a table; without the columns that would be empty for all of them."""
    content = workspace.dataset.modality
    workspace.look_up(row.id for row in rows)
    table = pd.DataFrame(
        {
            "group": [row.group or "" for row in rows],
            "id": [row.id for row in rows],
            content: [cell(workspace, row.id) for row in rows],
            "file": [beginning(workspace, row.id) if has_images(workspace) else "" for row in rows],
            "label": [row.label for row in rows],
            "trained as": [row.trained for row in rows],
            "decided": [_decided(row.decided) for row in rows],
            "note": ["label changed since" if row.stale else "" for row in rows],
        }
    )
    optional = ("group", "file", "decided", "note")
    return table.drop(columns=[name for name in optional if not table[name].any()])


def _decided(event: LabelEvent | None) -> str:
    return "" if event is None else f"{VERDICTS[event.verdict]} by {event.annotator}"
