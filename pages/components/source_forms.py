"""The two forms that ask for a checkpoint and data: files on this machine, names on the hub."""

from collections.abc import Sequence
from pathlib import PurePath

import streamlit as st

from influence_core.runs.directory import RunDirectory
from influence_core.specs import CheckSpec, Sources
from pages.components import running
from pages.components.errors import shown_errors
from pages.components.source_entries import FILES, FILES_MORE, HUB, HUB_MORE, Entry, from_hub, spec_of, typed_of

_ADOPTED = "load_adopted"  # id of the run whose entries the forms show


def adopt(run: RunDirectory) -> None:
    """Put a run's entries back into its form, once a session: after a reload they are as they were typed."""
    spec = run.spec()
    if not isinstance(spec, Sources) or st.session_state.get(_ADOPTED) == run.id:
        return
    st.session_state[_ADOPTED] = run.id
    card, entries = ("hub", HUB + HUB_MORE) if from_hub(spec) else ("files", FILES + FILES_MORE)
    typed = typed_of(spec)
    for entry in entries:
        st.session_state[_key(card, entry)] = typed[entry.name]


def files_card() -> None:
    """Ask for a checkpoint and data on the machine that the app runs on."""
    with st.container(border=True, height="stretch"):
        st.subheader("My files", anchor=False)
        st.caption("Where the app runs. Looked at first: nothing is made before you confirm what was found.")
        _form("files", FILES, FILES_MORE)


def hub_card() -> None:
    """Ask for the names of a model and a data set on the Hugging Face hub."""
    with st.container(border=True, height="stretch"):
        st.subheader("The hub", anchor=False)
        st.caption("Names on the Hugging Face hub; needs a connection. The check fetches both, the rest is the same.")
        _form("hub", HUB, HUB_MORE)


def _form(card: str, first: Sequence[Entry], more: Sequence[Entry]) -> None:
    with st.form(f"load_{card}", border=False):
        typed = {entry.name: _field(card, entry) for entry in first}
        with st.expander("More"):
            typed |= {entry.name: _field(card, entry) for entry in more}
        pressed = st.form_submit_button("Check", icon=":material/fact_check:", key=f"check_{card}", type="primary")
    if pressed:
        run = running.selected_run("check", "open")
        before = None if run is None else run.spec()
        with shown_errors():
            check(spec_of(typed, before if isinstance(before, Sources) else None))


def _field(card: str, entry: Entry) -> str:
    show = st.text_area if entry.lines else st.text_input
    return str(
        show(
            entry.label,
            key=_key(card, entry),
            placeholder=entry.placeholder,
            help=entry.help,
            persist_state="session",
        )
    )


def check(spec: CheckSpec) -> None:
    """Start a check and follow it."""
    running.start(spec, f"check {named(spec)}")


def named(spec: Sources) -> str:
    """Name a checkpoint and data shortly: the ends of their paths."""
    return f"{PurePath(spec.checkpoint).name} with {PurePath(spec.data).name}"


def _key(card: str, entry: Entry) -> str:
    return f"load_{card}_{entry.name}"
