"""What the groups of a correction of several rows are; a table of slices or sources is uploaded, checked and kept."""

import tempfile
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from influence_core.data.readers import READERS
from influence_core.errors import UserError
from influence_core.groups import Given, group_columns, keep_groups, kept_groups
from influence_core.specs import CorrectionSetSpec
from influence_core.workspace import Workspace
from pages.components import state
from pages.components.correction_set_words import FILE_HINT, GROUPS, given_words
from pages.components.errors import show_error, shown_errors
from pages.components.text import plain

GROUP = "correct_set_group"
UPLOAD = "correct_set_upload"
COLUMN = "correct_set_column"
EVEN = "correct_set_even"
_KEPT = "correct_set_kept"  # dict of the key last taken in each workspace, for another choice or another set
_TAKEN = "correct_set_taken"  # what was kept of the file in the uploader, so that it is not read at every click


def choose_groups(workspace: Workspace) -> dict[str, Any] | None:
    """Show the choice and return it as options of `CorrectionSetSpec`; None while there is no table to give groups.

    The kept table's key is in the address: a reload, which empties the uploader, has the groups still.
    """
    st.session_state.setdefault(GROUP, "example" if state.selected(state.GROUPS) is None else "given")
    st.selectbox(
        "Groups",
        list(GROUPS),
        format_func=GROUPS.__getitem__,
        key=GROUP,
        persist_state="session",
    )
    by = st.session_state[GROUP]
    even = st.toggle(
        "The same weight for each group",
        key=EVEN,
        persist_state="session",
        disabled=by == "all",
        help="otherwise each row counts the same, and a group as much as it has rows: then which rows make a group "
        "changes nothing",
    )
    weights = {"even_groups": even and by != "all"}
    if by != "given":
        state.select(**{state.GROUPS: None})
        return {"group_by": by, **weights}
    uploaded = st.file_uploader(
        "Table of training rows and their groups",
        [ending[1:] for ending in READERS],
        key=UPLOAD,
        on_change=_set,  # another file, or none: what was kept before is not meant any more
        args=(workspace.name, None),
    )
    if uploaded is not None:
        try:
            _take(workspace, uploaded)
        except UserError as error:
            _set(workspace.name, None)
            show_error(str(error))
            return None
    key = state.selected(state.GROUPS) or st.session_state.get(_KEPT, {}).get(workspace.name)
    if key is None:
        st.info(FILE_HINT if uploaded is None else "Choose the column of the group.")
        return None
    state.select(**{state.GROUPS: key})
    with shown_errors():
        st.caption(plain(given_words(kept_groups(workspace, key), len(workspace.train))))
        return {"group_by": by, "groups": key, **weights}
    return None


def fill_groups(spec: CorrectionSetSpec) -> None:
    """Put a run's groups into the form (in a callback)."""
    st.session_state[GROUP] = spec.group_by
    st.session_state[EVEN] = spec.even_groups
    _set(spec.workspace, spec.groups)


def given_of(workspace: Workspace, spec: CorrectionSetSpec) -> Given | None:
    """Return the table of a spec's groups; None where it has none, or the workspace does not keep it any more."""
    try:
        return None if spec.groups is None else kept_groups(workspace, spec.groups)
    except UserError:
        return None


def _take(workspace: Workspace, uploaded: UploadedFile) -> None:
    """Let the column be chosen, and keep the groups that it gives; raises `UserError`."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / f"groups{Path(uploaded.name).suffix.lower()}"  # a browser's name is no path
        path.write_bytes(uploaded.getvalue())
        columns, usual = group_columns(path, uploaded.name)
        if st.session_state.get(COLUMN) not in columns:
            st.session_state[COLUMN] = usual
        column = st.selectbox("Its column of the group", columns, index=None, key=COLUMN, persist_state="session")
        wanted = (workspace.name, uploaded.file_id, column)
        if column is None:
            _set(workspace.name, None)
        elif st.session_state.get(_TAKEN) != wanted:
            _set(workspace.name, keep_groups(workspace, path, column, uploaded.name).key)
            st.session_state[_TAKEN] = wanted


def _set(workspace: str, key: str | None) -> None:
    kept: dict[str, str | None] = st.session_state.setdefault(_KEPT, {})
    kept[workspace] = key
    st.session_state.pop(_TAKEN, None)
    state.select(**{state.GROUPS: key})
