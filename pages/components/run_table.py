"""The table of runs: one row each, with buttons that carry the run's id, never its place."""

import json
from collections.abc import Sequence

import streamlit as st

from influence_core.runs import client
from influence_core.runs.directory import RunDirectory
from influence_core.runs.state import RunState
from influence_core.workspace import Workspace
from pages.components import navigation, state
from pages.components.discarding import is_discarded
from pages.components.errors import show_error, shown_errors
from pages.components.run_compare import compare_button
from pages.components.run_words import ICONS, elapsed, kind_word, state_word
from pages.components.running import progress_words
from pages.components.submitting import settle, submit_once
from pages.components.text import ago, plain

PAGE_SIZE = 20  # runs on one page of the table
WIDTHS = (1.3, 2.6, 0.9, 1.0, 0.9, 1.7, 3.9)
HEADS = ("State", "What", "Who", "Created", "Took", "Progress", "")
_OPENING = "runs_opening"  # id of the run whose page was asked for


def shown_runs(
    runs: Sequence[RunState], states: Sequence[str], kinds: Sequence[str], discarded: bool
) -> list[RunState]:
    """Return the runs that pass the filters, newest first; no choice in a filter means all."""
    return [
        run
        for run in runs
        if (not states or run.state in states)
        and (not kinds or run.kind in kinds)
        and (discarded or not is_discarded(RunDirectory.open(run.id)))
    ]


def run_table(runs: Sequence[RunState]) -> None:
    """Show a page of runs with a head over the columns."""
    pages = -(-len(runs) // PAGE_SIZE)
    page = st.pagination(pages, key="runs_page") if pages > 1 else 1
    first = PAGE_SIZE * (min(page, pages) - 1)
    for column, head in zip(st.columns(WIDTHS), HEADS, strict=True):
        column.caption(head)
    for run in runs[first : first + PAGE_SIZE]:
        _row(run)


def _row(found: RunState) -> None:
    with st.container(key=f"run_{found.id}", border=True, gap="xsmall"):
        columns = st.columns(WIDTHS, vertical_alignment="center")
        columns[0].markdown(f"{ICONS[found.state]} {state_word(found)}")
        with columns[1], st.container(gap=None):
            st.text(found.what or kind_word(found.kind))
            st.caption(plain(f"{kind_word(found.kind)} · {found.workspace or 'a new workspace'}"))
        columns[2].text(found.who or "–")
        columns[3].text(ago(found.created))
        columns[4].text(elapsed(found.seconds))
        with columns[5]:
            if found.is_over:
                st.text(progress_words(found) if found.phase and found.state != "finished" else "–")
            else:
                share = found.done / found.total if found.done is not None and found.total else 0.0
                st.progress(min(1.0, share), text=plain(progress_words(found)))
        with columns[6], st.container(horizontal=True, gap="small"):
            _actions(found)
        if found.message:
            st.text(found.message)
        if is_discarded(RunDirectory.open(found.id)):
            st.caption(":material/visibility_off: discarded")
        _details(found)


def _actions(found: RunState) -> None:
    st.button("Open", key=f"open_{found.id}", icon=":material/open_in_new:", on_click=_open, args=(found.id,))
    if not found.is_over:
        st.button(
            "Cancel",
            key=f"cancel_{found.id}",
            icon=":material/cancel:",
            disabled=found.cancelling,
            on_click=_cancel,
            args=(found.id,),
        )
    else:
        _again(found)
        compare_button(found)


def _again(found: RunState) -> None:
    place = f"table_again_{found.id}"
    if st.button("Again", key=place, icon=":material/replay:", help="a new run of the same settings"):
        with shown_errors():
            submit_once(place, RunDirectory.open(found.id).spec(), found.what)
            st.rerun()
    else:
        settle(place)


def _details(found: RunState) -> None:
    details = st.expander("Details", key=f"details_{found.id}", on_change="rerun", type="compact")
    if not details.open:
        return
    run = RunDirectory.open(found.id)
    with details:
        st.text(f"id {found.id} · created {found.created:%Y-%m-%d %H:%M:%S} UTC")
        spec = run.spec()
        value = spec if isinstance(spec, dict) else spec.model_dump(mode="json")
        st.code(json.dumps(value, indent=1, ensure_ascii=False), language="json")
        traceback = run.path / "traceback.txt"
        if traceback.exists():
            st.caption("Traceback, for a bug report")
            st.code(traceback.read_text(encoding="utf-8"), language=None)


def opening() -> str | None:
    """Return, once, the run whose page was asked for."""
    found = st.session_state.pop(_OPENING, None)
    return None if found is None else str(found)


def open_run(run_id: str, beside: Sequence[str] = ()) -> None:
    """Open the page that follows this kind of run, with the run's own workspace, checkpoint and example.

    A correction is compared there with those ``beside`` it.
    """
    run = RunDirectory.open(run_id)
    record, spec = run.record(), run.spec()
    names = Workspace.names()
    if record.workspace is not None and record.workspace not in names:
        show_error(f"the workspace {record.workspace!r} of this run is gone: open it again on Load")
        return
    page = navigation.PAGE_OF_KIND.get(record.kind)
    if page is None:
        show_error(f"runs of kind {record.kind!r} have no page of their own: see the details")
        return
    workspace = None if record.workspace in (None, names[0]) else record.workspace
    if record.workspace is not None:
        state.select(workspace=workspace)
    checkpoint = getattr(spec, "checkpoint", None) if record.workspace is not None else None
    example = getattr(spec, "example", None)
    compared = state.as_runs(beside) if beside else None
    state.select(**{state.CHECKPOINT: checkpoint, state.RUN: run_id, state.WITH: compared})
    if example is not None:
        state.select(example=example, row=None)
    state.go(page)


def _open(run_id: str) -> None:
    st.session_state[_OPENING] = run_id


def _cancel(run_id: str) -> None:
    with shown_errors():
        client.cancel(run_id)
