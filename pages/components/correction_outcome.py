"""A correction that is over: how it ended, before and after, and what to do with it."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from influence_core.charts import percent
from influence_core.home import read_json
from influence_core.reports.cautions import caution, compared, end_retention
from influence_core.runs.directory import RunDirectory
from influence_core.runs.state import RunState
from influence_core.specs import Correcting, CorrectionSpec
from influence_core.workspace import Checkpoint, Workspace
from pages.components import data, state
from pages.components.correction_charts import changed_table
from pages.components.correction_report import report_button
from pages.components.correction_words import base_words, change_words, outcome_words
from pages.components.discarding import discard, is_discarded, restore
from pages.components.errors import shown_errors
from pages.components.text import plain

ENDINGS = {
    "failed": "The run failed. Nothing was changed, and its settings are kept: change them, or run it again.",
    "killed": "The run was cancelled. Nothing was changed, and its settings are kept: run it again when you want.",
    "finished": "The run finished, but its result is not there any more. Its settings are kept: run it again.",
    "crashed": "The run crashed. Nothing was changed, and its settings are kept: run it again.",
}


def manifest_of(run: RunDirectory) -> dict[str, Any] | None:
    """Return what the run left beside its parameters; None if it ended before its first step."""
    file = run.result / "manifest.json"
    return dict(read_json(file)) if file.exists() else None


def kept_as(workspace: Workspace, manifest: dict[str, Any]) -> Checkpoint | None:
    """Return the checkpoint that this very result was kept as."""
    return next((entry for entry in workspace.checkpoints() if entry.notes.get("correction") == manifest), None)


def show_ending(run: RunDirectory, found: RunState) -> None:
    """Say how a run that did not finish ended, with its own message and, for a bug report, its traceback."""
    show = st.error if found.state in ("failed", "crashed") else st.info
    show(ENDINGS[found.state])
    if found.message:
        st.text(found.message)
    traceback = run.path / "traceback.txt"
    if found.state == "failed" and traceback.exists():
        with st.expander("For a bug report"):
            st.code(traceback.read_text(encoding="utf-8"), language=None)


def show_outcome(
    workspace: Workspace, spec: CorrectionSpec, run: RunDirectory, desired: str, outcome: dict[str, Any]
) -> None:
    """Say whether it flipped, what the free control did, and compare before and after on the whole split."""
    show = st.success if outcome["flipped"] and "lost_again" not in outcome else st.warning
    show(plain(outcome_words(outcome, spec, desired)) + " " + base_words(outcome, spec))
    before_and_after(workspace, spec, run, outcome)


def before_and_after(workspace: Workspace, spec: Correcting, run: RunDirectory, outcome: dict[str, Any]) -> None:
    """Compare before and after on the whole splits, where the run did."""
    if "before" not in outcome:
        return
    fixed, broken = [str(row) for row in outcome["fixed"]], [str(row) for row in outcome["broken"]]
    with st.container(horizontal=True, gap="large"):
        for split, about in reversed(compared(outcome).items()):
            _accuracy(f"Accuracy on the whole {split} set", float(about["before"]), float(about["after"]))
        st.metric("Fixed", f"{len(fixed):,}", help="test rows wrong before, right after", width="content")
        st.metric("Broken", f"{len(broken):,}", help="test rows right before, wrong after", width="content")
        retained = percent(float(outcome["retention"]))
        if "retention_at_end" in outcome:
            st.metric(
                "Retention, at the flip → end",
                f"{retained} → {percent(end_retention(outcome))}",
                help="a checkpoint is kept of the end",
                width="content",
            )
        else:
            st.metric("Retention", retained, width="content")
    if "validation" not in compared(outcome):
        st.caption("The workspace has no validation rows, or this run did not compare them.")
    for word, rows in (("Fixed", fixed), ("Broken", broken)):
        _rows(workspace, spec, run, word, rows)


def _accuracy(label: str, before: float, after: float) -> None:
    st.metric(
        label,
        f"{percent(before)} → {percent(after)}",
        change_words(before, after).replace("−", "-"),  # Streamlit reads the arrow's direction from a hyphen
        delta_color="off" if after == before else "normal",
        delta_arrow="off" if after == before else "auto",
        width="content",
    )


def _rows(workspace: Workspace, spec: Correcting, run: RunDirectory, word: str, rows: Sequence[str]) -> None:
    with st.expander(f"{word}: {len(rows):,} {'row' if len(rows) == 1 else 'rows'}"):
        if rows:
            changed_table(workspace, spec, run, rows, f"outcome_{word}", f"{word} test rows")
        else:
            st.caption(f"No test row was {word.lower()}.")


def keep_or_discard(workspace: Workspace, run: RunDirectory, manifest: dict[str, Any]) -> None:
    """Offer to keep the corrected parameters as a checkpoint, to hide the result, its report and manifest as files."""
    kept = kept_as(workspace, manifest)
    file = run.result / "result.json"
    if kept is None and (said := caution(read_json(file) if file.exists() else {})) is not None:
        st.warning(plain(said), icon=":material/balance:")
    if kept is not None:
        st.success(f"Kept as checkpoint {plain(kept.name)}.", icon=":material/inventory_2:")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if kept is not None:
            st.button(
                f"Switch to {plain(kept.name)}",
                key=f"switch_{run.id}",
                icon=":material/swap_horiz:",
                type="primary",
                on_click=_switch,
                args=(workspace.name, kept.name),
            )
        elif not is_discarded(run):
            _keep(workspace, run)
        if is_discarded(run):
            st.button("Bring back", key=f"restore_{run.id}", icon=":material/undo:", on_click=restore, args=(run,))
        elif kept is None:
            st.button(
                "Discard",
                key=f"discard_{run.id}",
                icon=":material/visibility_off:",
                on_click=discard,
                args=(run,),
                help="hides the run from the list of runs; it can be brought back",
            )
        report_button(run)
        st.download_button(
            "Manifest",
            data=(run.result / "manifest.json").read_bytes(),
            file_name=f"correction-{run.id[:8]}.json",
            mime="application/json",
            key=f"manifest_{run.id}",
            icon=":material/download:",
            on_click="ignore",
        )
    if is_discarded(run):
        st.caption("Discarded: it is hidden from the list of runs, and no checkpoint was made of it.")


def _keep(workspace: Workspace, run: RunDirectory) -> None:
    used = {entry.name for entry in workspace.checkpoints()}
    numbered = (f"corrected-{number}" for number in range(1, len(used) + 2))
    name = st.text_input(
        "Name",
        value=next(name for name in numbered if name not in used),
        key=f"keep_name_{run.id}",
        max_chars=64,
        width=240,
    )
    if st.button("Keep as checkpoint", key=f"keep_{run.id}", icon=":material/inventory_2:", type="primary"):
        with shown_errors(), st.spinner("Writing the checkpoint…"):
            workspace.keep(run.result, name.strip())
            st.rerun()


def _switch(workspace: str, name: str) -> None:
    state.select(workspace=data.as_selected(workspace), checkpoint=name, run=None)
