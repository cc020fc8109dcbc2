"""A correction beside others of the same rows, all on the same charts; the address says beside which."""

from collections.abc import Hashable, Sequence

import streamlit as st

from influence_core import charts
from influence_core.charts.correction_compared import SINGLE, TOGETHER, compared
from influence_core.charts.followed import Followed
from influence_core.errors import UserError
from influence_core.runs.directory import RunDirectory
from influence_core.specs import DEFAULT_RATE, AnyCorrection, Correcting, CorrectionSetSpec, CorrectionSpec
from influence_core.workspace import Workspace
from pages.components import state
from pages.components.correction_checks import desired_label
from pages.components.correction_compared_table import Compared, compared_table
from pages.components.correction_words import STRATEGIES, optimizer_kind, state_source
from pages.components.discarding import is_discarded
from pages.components.run_reading import RunReading
from pages.components.text import plain


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
        if not isinstance(asked, AnyCorrection) or is_discarded(directory) or _lost(workspace, asked):
            continue
        if asked.workspace == spec.workspace and own is not None and subject(workspace, asked) == own:
            found[other.id] = _name(asked, other.id)
    return found


def _lost(workspace: Workspace, spec: AnyCorrection) -> bool:
    """Whether the checkpoint that a run started from is no longer there."""
    return spec.checkpoint not in (None, *(entry.name for entry in workspace.checkpoints()))


def keys(run_id: str) -> tuple[str, str]:
    """Return the session's names of "compare" and of the runs to compare with."""
    return f"compare_{run_id}", f"compared_{run_id}"


def beside(run_id: str, other: str) -> None:
    """Open a run compared with another, at once or, while it still goes on, when it is over."""
    state.select(**{state.RUN: run_id, state.WITH: state.as_runs([other])})


def comparison(workspace: Workspace, run: RunDirectory, spec: AnyCorrection) -> None:
    """Offer other runs of the same rows, and draw those chosen beside this one."""
    asked_for, with_which = keys(run.id)
    these = "this example" if isinstance(spec, CorrectionSpec) else "these examples"
    asked = state.compared_with()
    _show_as(asked_for, asked is not None)
    label = f"Compare with other runs of {these}"
    st.toggle(label, key=asked_for, on_change=_switched, args=(workspace, run, spec))
    if asked is None:
        return
    names = comparable(workspace, run, spec)
    if gone := [each for each in asked if each not in names]:
        st.caption(f"Not compared: {'; '.join(plain(_why_not(workspace, each, run, these)) for each in gone)}.")
        later = [each for each in gone if _goes_on(each)]  # stays in the address until it is over
        state.select(**{state.WITH: state.as_runs([each for each in asked if each in names or each in later])})
        asked = [each for each in asked if each in names]
    if not names:
        labels = "this label" if isinstance(spec, CorrectionSpec) else "these labels"
        st.caption(
            f"No other finished run corrects {these} to {labels} yet: run another strategy below, or other settings."
        )
        return
    _show_as(with_which, asked)
    st.multiselect(
        "Runs to compare with",
        list(names),
        format_func=names.__getitem__,
        key=with_which,
        on_change=_chosen,
        args=(run.id,),
    )
    if not asked:
        st.caption("Choose a run to see it beside this one.")
        return
    _draw(workspace, spec, {run.id: f"this run: {_name(spec, run.id)}", **{each: names[each] for each in asked}})


def _draw(workspace: Workspace, spec: AnyCorrection, named: dict[str, str]) -> None:
    """Draw runs by id under names, this one first."""
    desired = subject(workspace, spec)
    assert desired is not None  # otherwise no run is comparable
    runs = [_followed(workspace, run_id, name, own=not place) for place, (run_id, name) in enumerate(named.items())]
    courses = [each.course for each in runs if each.course.steps]
    places = [*st.columns(2, gap="medium"), *st.columns(2, gap="medium")]
    for column, what in zip(places, SINGLE if isinstance(spec, CorrectionSpec) else TOGETHER, strict=False):
        figure = compared(courses, desired, what)
        with column.container(border=True):
            st.plotly_chart(
                figure, key=f"compared_{what}", config={"displayModeBar": False}, alt=charts.alt_text(figure)
            )
    compared_table(workspace, runs, desired)


def _followed(workspace: Workspace, run_id: str, name: str, own: bool) -> Compared:
    run, reading = RunDirectory.open(run_id), RunReading(run_id)
    spec = run.spec()
    assert isinstance(spec, AnyCorrection)
    reading.read(run, 0.0)
    course = Followed(
        name,
        "this run" if own else f"run {run_id[:8]}",
        spec.strategy,
        reading.steps or reading.set_steps,
        _uncorrected(workspace, spec),
    )
    return Compared(spec, course, reading.result or {})


def _uncorrected(workspace: Workspace, spec: AnyCorrection) -> Hashable:
    """Return all that decides what the same batches do without correction; runs in which it is equal share that."""
    checkpoint = workspace.checkpoint(spec.checkpoint)
    kind = optimizer_kind(spec, checkpoint)
    rate = spec.learning_rate or DEFAULT_RATE[kind]
    batches = (spec.seed, spec.batch_size, spec.annotated_loss, spec.dropout, spec.batchnorm)
    trained = (spec.scope or workspace.scope, kind, state_source(spec, checkpoint), rate)
    return (checkpoint.name, *trained, *batches)


def _goes_on(run_id: str) -> bool:
    try:
        return not RunDirectory.open(run_id).state().is_over
    except UserError:
        return False


def _why_not(workspace: Workspace, run_id: str, run: RunDirectory, these: str) -> str:
    """Say why a run that the address names is not compared."""
    if run_id == run.id:
        return "this run with itself"
    short = f"run {run_id[:8]}"
    try:
        other = RunDirectory.open(run_id)
    except UserError:
        return f"{short} is not there"
    if is_discarded(other):
        return f"{short} was discarded"
    if other.record().kind == run.record().kind and other.state().state != "finished":
        return f"{short} did not finish" if other.state().is_over else f"{short} is not over"
    asked = other.spec()
    if isinstance(asked, AnyCorrection) and asked.workspace == workspace.name and _lost(workspace, asked):
        return f"{short} started from checkpoint {asked.checkpoint}, which is no longer there"
    return f"{short} does not correct {these} to the same"


def _show_as(key: str, value: bool | Sequence[str]) -> None:
    """Have a widget show what the address says."""
    if st.session_state.get(key) != value:
        st.session_state[key] = value


def _switched(workspace: Workspace, run: RunDirectory, spec: AnyCorrection) -> None:
    """Put the newest run that can be compared into the address, or take all out of it."""
    on = st.session_state[keys(run.id)[0]]
    newest = [*comparable(workspace, run, spec)][:1]
    state.select(**{state.WITH: state.as_runs(newest) if on else None})


def _chosen(run_id: str) -> None:
    """Put the runs that were chosen into the address."""
    state.select(**{state.WITH: state.as_runs(st.session_state[keys(run_id)[1]])})


def _name(spec: AnyCorrection, run_id: str) -> str:
    return f"{STRATEGIES[spec.strategy]}, run {run_id[:8]}"
