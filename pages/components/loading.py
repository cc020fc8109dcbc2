"""The three ways to open a workspace: the demo, files on this machine, names on the hub."""

from collections.abc import Sequence

import streamlit as st
from pydantic import ValidationError

from influence_core.demo.prepare import prepare
from influence_core.errors import UserError
from influence_core.events import Progress, Result
from influence_core.rates import rate
from influence_core.specs import OpenSpec, one_line
from influence_core.workspace import DEMOS, Workspace
from pages.components import running, state
from pages.components.errors import show_error, shown_errors
from pages.components.text import duration, plain

DEMO = DEMOS[0]
FORWARD = 200.0  # rows a second where none was measured: MiniLM on two CPU cores


def demo_card() -> None:
    """Offer the demo: prepared at once in this page, then opened."""
    with st.container(border=True, height="stretch"):
        st.subheader("The demo", anchor=False)
        st.write(
            "10,043 sentences of movie reviews and a small BERT encoder, with its index: the first clicks are instant."
        )
        if DEMO in Workspace.names():
            if st.button("Open the demo", key="open_demo", type="primary", icon=":material/play_arrow:"):
                open_workspace(DEMO)
        elif st.button("Prepare the demo (about 10 s)", key="prepare_demo", type="primary", icon=":material/download:"):
            with shown_errors():
                prepare_demo()
                open_workspace(DEMO)


def prepare_demo() -> None:
    """Make the demo workspace, showing where it stands; raises `UserError`."""
    progress = st.progress(0.0, text="Starting")
    for event in prepare():
        if isinstance(event, Progress):
            share = event.done / event.total if event.total else 0.0
            words = f"{event.phase}, {event.done:,} of {event.total:,} {event.unit}"
            progress.progress(min(1.0, share), text=plain(words))
    progress.empty()


def open_workspace(name: str) -> None:
    """Select a workspace and go to its mispredictions; does not return."""
    first = next(iter(Workspace.names()), None)
    state.select(workspace=name)  # drops what belonged to the one before
    if name == first:
        state.select(workspace=None)
    state.go("mispredictions", run=None)


def files_card() -> None:
    """Ask for a checkpoint folder and data files on the machine that the app runs on."""
    with st.container(border=True, height="stretch"):
        st.subheader("My files", anchor=False)
        st.write("A checkpoint folder (safetensors) and a CSV, JSON lines or Parquet file, where the app runs.")
        with st.form("files", border=False):
            checkpoint = st.text_input("Checkpoint folder", placeholder="/models/my-classifier")
            train = st.text_input("Training data", placeholder="/data/train.csv")
            test = st.text_input("Test data (optional)")
            validation = st.text_input("Validation data (optional)")
            with st.expander("Columns and scope"):
                text = st.text_input("Text column")
                label = st.text_input("Label column")
                example = st.text_input("Id column")
                scope = st.text_input("Parameter scope", value="last:2", help="head, last:n or all")
            st.caption(_cost())
            pressed = st.form_submit_button("Check and open", icon=":material/fact_check:")
        if pressed:
            submit(
                checkpoint=checkpoint,
                data=train,
                test=test,
                validation=validation,
                text_column=text,
                label_column=label,
                id_column=example,
                scope=scope,
            )


def hub_card() -> None:
    """Ask for the names of a model and a data set on the Hugging Face hub."""
    with st.container(border=True, height="stretch"):
        st.subheader("The hub", anchor=False)
        st.write("A text classifier and a data set by their names on the Hugging Face hub. Needs a connection.")
        with st.form("hub", border=False):
            checkpoint = st.text_input("Model name", placeholder="owner/model")
            name = st.text_input("Data set name", placeholder="owner/dataset")
            with st.expander("Columns and scope"):
                text = st.text_input("Text column", key="hub_text")
                label = st.text_input("Label column", key="hub_label")
                scope = st.text_input("Parameter scope", value="last:2", help="head, last:n or all", key="hub_scope")
            st.caption(_cost())
            pressed = st.form_submit_button("Fetch and open", icon=":material/cloud_download:")
        if pressed:
            submit(checkpoint=checkpoint, data=name, text_column=text, label_column=label, scope=scope)


def _cost() -> str:
    return f"Predicting takes {duration(10_000 / rate('forward', FORWARD))} for 10,000 rows on this machine, roughly."


def submit(**typed: str) -> None:
    """Start a run that opens what was typed; empty fields are left out, errors are shown."""
    with shown_errors():
        running.start(open_spec(typed), "open a checkpoint")


def open_spec(typed: dict[str, str]) -> OpenSpec:
    """Return the spec of what was typed; raises `UserError`."""
    values = {name: value.strip() for name, value in typed.items() if value.strip()}
    for name, words in (("checkpoint", "checkpoint"), ("data", "training data")):
        if name not in values:
            raise UserError(f"{words} is empty: type a path or a name")
    try:
        return OpenSpec(**values)
    except ValidationError as error:
        raise UserError(one_line(error)) from None


def opening() -> None:
    """Show the check list of the selected run that opens a workspace, and what it found."""
    run = running.selected_run("open")
    if run is None:
        return
    spec = run.spec()
    if isinstance(spec, OpenSpec):
        st.text(f"Opening {spec.checkpoint} with {spec.data}")
    check_list(run.events()[0], run.state().state)
    if running.follow(run).state != "finished":
        return
    found = running.result_of(run)
    if found is not None:
        outcome(found)


def check_list(events: Sequence[object], run_state: str) -> None:
    """Tick off the phases that a run went through."""
    phases: dict[str, bool] = {}
    for event in events:
        if isinstance(event, Progress):
            for name in phases:
                phases[name] = True
            phases[event.phase] = event.unit == "checks" or event.done >= event.total
        elif isinstance(event, Result):
            phases = dict.fromkeys(phases, True)
    for name, done in phases.items():
        words = "done" if done else "going on" if run_state == "running" else "not finished"
        icon = ":material/check_circle:" if done else ":material/pending:"
        st.markdown(f"{icon} {plain(name)}: {words}")


def outcome(found: dict[str, object]) -> None:
    """Show what was opened, with the classes as they will be read, and a button to use it."""
    name = str(found["workspace"])
    try:
        workspace = Workspace.open(name)
    except UserError as error:
        show_error(str(error))
        return
    rows = found.get("rows")
    if isinstance(rows, dict):
        st.text("Rows: " + " · ".join(f"{int(count):,} {split}" for split, count in rows.items() if count))
    accuracy, wrong = found.get("accuracy"), found.get("mispredictions")
    if isinstance(accuracy, float) and wrong is not None:
        st.text(f"Accuracy {100 * accuracy:.1f} %, {wrong} mispredictions")
    counts = workspace.train["label"].value_counts()
    st.text(
        "Classes: "
        + " · ".join(
            f"{number} is “{label}” ({int(counts.get(number, 0)):,} training rows)"
            for number, label in enumerate(workspace.label_names)
        )
    )
    if st.button("Open it", key="open_it", type="primary", icon=":material/play_arrow:"):
        open_workspace(name)
