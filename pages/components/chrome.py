"""What surrounds every page: the sidebar, the strip with the selected example, the runs going on."""

from typing import Any

import pandas as pd
import streamlit as st

from influence_core.charts import percent
from influence_core.runs.directory import RunDirectory
from influence_core.runs.state import RunState
from influence_core.specs import CorrectionSpec, RankSpec
from influence_core.workspace import Checkpoint, Workspace
from pages.components import contents, data, navigation, pictures, state
from pages.components.running import progress_words
from pages.components.text import plain

_WORKSPACE_PICKER = "workspace_picker"
_CHECKPOINT_PICKER = "checkpoint_picker"


def sidebar(workspace: Workspace | None, checkpoint: Checkpoint | None) -> None:
    """Show the workspace with its pickers and sizes, then the links to the pages."""
    with st.sidebar:
        st.markdown("**Influence debugger**")
        if workspace is not None and checkpoint is not None:
            _pickers(workspace, checkpoint)
            sizes = {split: len(frame) for split, frame in workspace.dataset.splits.items()}
            st.caption("Rows: " + " · ".join(f"{count:,} {split}" for split, count in sizes.items()))
            accuracy = _accuracy(workspace, checkpoint)
            if accuracy is not None:
                st.caption(f"Test accuracy {percent(accuracy)}")
        navigation.links()


def _accuracy(workspace: Workspace, checkpoint: Checkpoint) -> float | None:
    """Test accuracy as recorded, otherwise from the predictions, where there are any."""
    if "test" in checkpoint.accuracy or "test" not in workspace.dataset.splits:
        return checkpoint.accuracy.get("test")
    frame = data.examples(workspace, "test", checkpoint.name)
    return None if frame is None else float((frame["prediction"] == frame["label"]).mean())


def _pickers(workspace: Workspace, checkpoint: Checkpoint) -> None:
    names = Workspace.names()
    st.session_state[_WORKSPACE_PICKER] = workspace.name
    st.selectbox("Workspace", names, key=_WORKSPACE_PICKER, on_change=_pick_workspace, args=(names[0],))
    entries = workspace.checkpoints()
    kept = [entry.name for entry in entries]
    about = {entry.name: f" (from {entry.parent})" if entry.parent else "" for entry in entries}
    st.session_state[_CHECKPOINT_PICKER] = checkpoint.name
    st.selectbox(
        "Checkpoint",
        kept,
        format_func=lambda name: name + about[name],
        key=_CHECKPOINT_PICKER,
        on_change=_pick_checkpoint,
        args=(kept[0],),
    )


def _pick_workspace(default: str) -> None:
    chosen = st.session_state[_WORKSPACE_PICKER]
    state.select(workspace=None if chosen == default else chosen)


def _pick_checkpoint(default: str) -> None:
    chosen = st.session_state[_CHECKPOINT_PICKER]
    state.select(checkpoint=None if chosen == default else chosen, run=None)
    state.forget("method")  # another checkpoint may have no index: its own default serves


def strip(workspace: Workspace, checkpoint: Checkpoint, example: str | None) -> None:
    """Show the selected example in one line, with previous and next."""
    if example is None:
        st.caption("No example selected: choose one on Mispredictions.")
        return
    row = data.prediction(workspace, example, checkpoint.name)
    ids = state.browsing()
    if example not in ids:
        ids = _mispredicted(workspace, checkpoint, example)
    place = ids.index(example) if example in ids else None
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        _step("Previous", ":material/chevron_left:", ids, None if place is None else place - 1)
        _step("Next", ":material/chevron_right:", ids, None if place is None else place + 1)
        where = f" · {place + 1} of {len(ids)}" if place is not None else ""
        said = outcome(workspace, row)
        if contents.has_images(workspace):
            pictures.picture(workspace, example, pictures.STRIP, f"the selected example, {said}")
            file = contents.beginning(workspace, example)
            st.text(f"{example}{where} · {said}{f' · {file}' if file else ''}", width="stretch")
        else:
            st.text(f"{example}{where} · {said} “{contents.beginning(workspace, example)}”", width="stretch")


def outcome(workspace: Workspace, row: "pd.Series[Any] | None") -> str:
    """Write true → predicted of a row of `data.examples`."""
    if row is None:
        return "not predicted yet"
    names = workspace.label_names
    return f"{names[row['label']]} → {names[row['prediction']]}"


def _mispredicted(workspace: Workspace, checkpoint: Checkpoint, example: str) -> list[str]:
    frame = data.examples(workspace, workspace.locate(example)[0], checkpoint.name)
    if frame is None:
        return []
    wrong = frame[frame["prediction"] != frame["label"]].sort_values("confidence", ascending=False, kind="stable")
    return [str(found) for found in wrong["id"]]


def _step(label: str, icon: str, ids: list[str], place: int | None) -> None:
    exists = place is not None and 0 <= place < len(ids)
    st.button(
        label,
        icon=icon,
        key=f"strip_{label}",
        disabled=not exists,
        on_click=_choose if exists else None,
        args=(ids[place],) if exists and place is not None else None,
    )


def _choose(example: str) -> None:
    state.select(example=example, row=None)


def going_on() -> None:
    """Show the runs that wait or run, each a link to the page that follows it."""
    if any(not run.is_over for run in RunDirectory.list_runs()):
        with st.bottom:
            _live_links()


@st.fragment(run_every=2.0)
def _live_links() -> None:
    runs = [run for run in RunDirectory.list_runs() if not run.is_over]
    if not runs:
        st.rerun()  # once: without runs the page has no such fragment, and no timer
    with st.container(horizontal=True, horizontal_alignment="right"):
        for run in runs[:4]:
            page = navigation.PAGE_OF_KIND.get(run.kind, "runs")
            label = plain(f"{run.what or run.kind}: {progress_words(run)}")
            st.page_link(f"pages/{page}.py", label=label, icon=":material/progress_activity:", query_params=_query(run))
        if len(runs) > 4:
            st.page_link("pages/runs.py", label=f"and {len(runs) - 4} more", query_params=state.url())


def _query(run: RunState) -> dict[str, str]:
    spec = RunDirectory.open(run.id).spec()
    example = spec.example if isinstance(spec, RankSpec | CorrectionSpec) else None
    first = next(iter(Workspace.names()), None)
    query = {} if run.workspace in (None, first) else {state.WORKSPACE: str(run.workspace)}
    if run.workspace is not None and (name := getattr(spec, "checkpoint", None)):
        query[state.CHECKPOINT] = str(name)
    if example is not None:
        query[state.EXAMPLE] = example
    return {**query, state.RUN: run.id}
