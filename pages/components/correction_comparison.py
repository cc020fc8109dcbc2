"""A correction beside others of the same rows, all on the same charts."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from influence_core import charts
from influence_core.charts.correction_compared import SINGLE, TOGETHER, Followed, compared
from influence_core.errors import UserError
from influence_core.events import SetStep, Step
from influence_core.runs.directory import RunDirectory
from influence_core.specs import AnyCorrection, Correcting, CorrectionSetSpec, CorrectionSpec
from influence_core.workspace import Workspace
from pages.components import correction_set_words
from pages.components.correction_checks import desired_label
from pages.components.correction_words import STRATEGIES, optimizer_words, rows_words, share_words
from pages.components.discarding import is_discarded
from pages.components.run_reading import RunReading


def subject(workspace: Workspace, spec: Correcting) -> dict[str, str] | None:
    """Return what a correction is of, desired labels by example; None where that is not known any more."""
    if isinstance(spec, CorrectionSetSpec):
        alone = [spec.alone(example) for example in spec.examples]
    elif isinstance(spec, CorrectionSpec):
        alone = [spec]
    else:
        return None
    try:
        return {each.example: desired_label(workspace, each) for each in alone}
    except UserError:
        return None


def comparable(workspace: Workspace, run: RunDirectory, spec: AnyCorrection) -> dict[str, str]:
    """Return names by id of other finished runs that correct the same to the same labels, newest first."""
    found: dict[str, str] = {}
    own = subject(workspace, spec)
    for other in RunDirectory.list_runs():
        if other.kind != spec.kind or other.state != "finished" or other.id == run.id:
            continue
        directory = RunDirectory.open(other.id)
        asked = directory.spec()
        if not isinstance(asked, AnyCorrection) or is_discarded(directory):
            continue
        if asked.workspace == spec.workspace and own is not None and subject(workspace, asked) == own:
            found[other.id] = _name(asked, other.id)
    return found


def keys(run_id: str) -> tuple[str, str]:
    """Return the session's names of "compare" and of the runs to compare with."""
    return f"compare_{run_id}", f"compared_{run_id}"


def beside(run_id: str, other: str) -> None:
    """Have a run compared with another where it is opened next, once it is over."""
    asked_for, with_which = keys(run_id)
    st.session_state[asked_for], st.session_state[with_which] = True, [other]


def comparison(workspace: Workspace, run: RunDirectory, spec: AnyCorrection) -> None:
    """Offer other runs of the same rows, and draw those chosen beside this one."""
    asked_for, with_which = keys(run.id)
    these = "this example" if isinstance(spec, CorrectionSpec) else "these examples"
    if not st.toggle(f"Compare with other runs of {these}", key=asked_for):
        return
    names = comparable(workspace, run, spec)
    if not names:
        labels = "this label" if isinstance(spec, CorrectionSpec) else "these labels"
        st.caption(
            f"No other finished run corrects {these} to {labels} yet: run another strategy below, or other settings."
        )
        return
    here = st.session_state
    here[with_which] = [each for each in here.get(with_which, [next(iter(names))]) if each in names]  # not those gone
    chosen = st.multiselect("Runs to compare with", list(names), format_func=names.__getitem__, key=with_which)
    if not chosen:
        st.caption("Choose a run to see it beside this one.")
        return
    named = {run.id: f"this run: {_name(spec, run.id)}", **{each: names[each] for each in chosen}}
    specs = {each: RunDirectory.open(each).spec() for each in named}
    corrections = {each: asked for each, asked in specs.items() if isinstance(asked, AnyCorrection)}
    courses = [
        Followed(named[each], "this run" if each == run.id else f"run {each[:8]}", asked.strategy, _steps(each))
        for each, asked in corrections.items()
    ]
    courses = [each for each in courses if each.steps]
    desired = next(iter((subject(workspace, spec) or {"": ""}).values()))  # of one row; of several none is named
    places = [*st.columns(2, gap="medium"), *st.columns(2, gap="medium")]
    for column, what in zip(places, SINGLE if isinstance(spec, CorrectionSpec) else TOGETHER, strict=False):
        figure = compared(courses, desired, what)
        with column.container(border=True):
            st.plotly_chart(
                figure, key=f"compared_{what}", config={"displayModeBar": False}, alt=charts.alt_text(figure)
            )
    _table(workspace, corrections, named, courses, desired)


def _table(
    workspace: Workspace,
    corrections: dict[str, AnyCorrection],
    named: dict[str, str],
    courses: Sequence[Followed],
    desired: str,
) -> None:
    followed = {each.name: each for each in courses}
    rows = []
    for run_id, asked in corrections.items():
        own = followed.get(named[run_id])
        flip = None if own is None else own.flip(desired)
        at = None if own is None else next((step for step in own.steps if step.step == flip), own.steps[-1])
        row = {"run": named[run_id], "flip": "none" if flip is None else f"step {flip}"}
        if isinstance(asked, CorrectionSetSpec):
            last = None if own is None else own.steps[-1]
            flipped = "–" if last is None or isinstance(last, Step) else f"{last.flipped} of {len(last.examples)}"
            row = {"run": row["run"], "as desired at the end": flipped, "all at": row["flip"]}
        rows.append(
            {
                **row,
                "retention": "–" if at is None else charts.percent(at.retention),
                "rows": rows_words(asked),
                "checkpoint": workspace.checkpoint(asked.checkpoint).name,
                "weight": _weight(asked),
                "optimizer": optimizer_words(asked, workspace.checkpoint(asked.checkpoint)),
                "seed": str(asked.seed),
            }
        )
    st.dataframe(pd.DataFrame(rows), hide_index=True, key="compared_table", alt="The runs that are compared")


def _weight(spec: AnyCorrection) -> str:
    return correction_set_words.share_words(spec) if isinstance(spec, CorrectionSetSpec) else share_words(spec)


def _steps(run_id: str) -> Sequence[Step] | Sequence[SetStep]:
    reading = RunReading(run_id)
    reading.read(RunDirectory.open(run_id), 0.0)
    return reading.steps or reading.set_steps


def _name(spec: AnyCorrection, run_id: str) -> str:
    return f"{STRATEGIES[spec.strategy]}, run {run_id[:8]}"
