"""A correction beside others of the same example: another strategy by one click, and all on the same charts."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from influence_core import charts
from influence_core.charts.correction_compared import SUBJECTS, Followed, compared
from influence_core.errors import UserError
from influence_core.events import Step
from influence_core.runs.directory import RunDirectory
from influence_core.specs import CorrectionSpec
from influence_core.workspace import Workspace
from pages.components.correction_checks import desired_label
from pages.components.correction_words import STRATEGIES, optimizer_words, rows_words, share_words
from pages.components.discarding import is_discarded
from pages.components.errors import shown_errors
from pages.components.run_reading import RunReading
from pages.components.submitting import submit_button


def control_button(run: RunDirectory, spec: CorrectionSpec) -> None:
    """Offer to run another strategy with the settings of a run, the random control first."""
    others = sorted((name for name in STRATEGIES if name != spec.strategy), key=lambda name: name != "random")
    chosen = st.selectbox(
        "Another strategy",
        others,
        format_func=STRATEGIES.__getitem__,
        key=f"control_strategy_{run.id}",
        label_visibility="collapsed",
        width=280,
    )
    label, tip = "Run it with the same settings", "then compare the two runs below"
    control, what = spec.model_copy(update={"strategy": chosen}), f"correct {spec.example} ({chosen})"
    with shown_errors():
        submit_button(label, f"control_{run.id}", control, what, icon=":material/casino:", tip=tip)


def comparable(workspace: Workspace, run: RunDirectory, spec: CorrectionSpec, desired: str) -> dict[str, str]:
    """Return names by id of other finished runs that correct this example to this label, newest first."""
    found: dict[str, str] = {}
    for other in RunDirectory.list_runs():
        if other.kind != "correct" or other.state != "finished" or other.id == run.id:
            continue
        directory = RunDirectory.open(other.id)
        asked = directory.spec()
        if not isinstance(asked, CorrectionSpec) or is_discarded(directory):
            continue
        if (asked.workspace, asked.example) == (spec.workspace, spec.example) and _desired(workspace, asked) == desired:
            found[other.id] = _name(asked, other.id)
    return found


def comparison(workspace: Workspace, run: RunDirectory, spec: CorrectionSpec, desired: str) -> None:
    """Offer other runs of this example, and draw those chosen beside this one."""
    if not st.toggle("Compare with other runs of this example", key=f"compare_{run.id}"):
        return
    names = comparable(workspace, run, spec, desired)
    if not names:
        st.caption("No other finished run corrects this example to this label yet: run the control, or other settings.")
        return
    chosen = st.multiselect(
        "Runs to compare with",
        list(names),
        default=next(iter(names)),
        format_func=names.__getitem__,
        key=f"compared_{run.id}",
    )
    if not chosen:
        st.caption("Choose a run to see it beside this one.")
        return
    named = {run.id: f"this run: {_name(spec, run.id)}", **{each: names[each] for each in chosen}}
    specs = {each: RunDirectory.open(each).spec() for each in named}
    corrections = {each: asked for each, asked in specs.items() if isinstance(asked, CorrectionSpec)}
    courses = [
        Followed(named[each], "this run" if each == run.id else f"run {each[:8]}", asked.strategy, _steps(each))
        for each, asked in corrections.items()
    ]
    courses = [each for each in courses if each.steps]
    places = [*st.columns(2, gap="medium"), *st.columns(2, gap="medium")]
    for column, what in zip(places, SUBJECTS, strict=False):
        figure = compared(courses, desired, what)
        with column.container(border=True):
            st.plotly_chart(
                figure, key=f"compared_{what}", config={"displayModeBar": False}, alt=charts.alt_text(figure)
            )
    _table(workspace, corrections, named, courses, desired)


def _table(
    workspace: Workspace,
    corrections: dict[str, CorrectionSpec],
    named: dict[str, str],
    courses: Sequence[Followed],
    desired: str,
) -> None:
    steps = {each.name: each.steps for each in courses}
    rows = []
    for run_id, asked in corrections.items():
        own = steps.get(named[run_id], [])
        flip = charts.find_flip(own, desired)
        at = next((step for step in own if step.step == flip), own[-1] if own else None)
        rows.append(
            {
                "run": named[run_id],
                "flip": "none" if flip is None else f"step {flip}",
                "retention": "–" if at is None else charts.percent(at.retention),
                "rows": rows_words(asked),
                "checkpoint": workspace.checkpoint(asked.checkpoint).name,
                "weight": share_words(asked),
                "optimizer": optimizer_words(asked, workspace.checkpoint(asked.checkpoint)),
                "seed": str(asked.seed),
            }
        )
    st.dataframe(pd.DataFrame(rows), hide_index=True, key="compared_table", alt="The runs that are compared")


def _steps(run_id: str) -> list[Step]:
    reading = RunReading(run_id)
    reading.read(RunDirectory.open(run_id), 0.0)
    return reading.steps


def _name(spec: CorrectionSpec, run_id: str) -> str:
    return f"{STRATEGIES[spec.strategy]}, run {run_id[:8]}"


def _desired(workspace: Workspace, spec: CorrectionSpec) -> str | None:
    try:
        return desired_label(workspace, spec)
    except UserError:
        return None
