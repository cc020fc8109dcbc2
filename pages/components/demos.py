"""The demos: each prepared at once in the page, then opened."""

from typing import NamedTuple

import streamlit as st

from influence_core.demo.prepare import prepare
from influence_core.events import Progress
from influence_core.workspace import DEMOS, Workspace
from pages.components import state
from pages.components.errors import shown_errors
from pages.components.text import plain


class Words(NamedTuple):
    """What a person reads of a demo."""

    title: str
    about: str


WORDS = {
    "demo:movie-reviews": Words(
        "Movie reviews",
        "10,043 sentences, positive or negative, and a small BERT encoder. Its index and its first scores are shipped.",
    ),
    "demo:fashion-mnist": Words(
        "Fashion-MNIST",
        "Small grey pictures of clothes in ten classes, 10,000 of them to train on, and a small ResNet with its index.",
    ),
}


def demo_card() -> None:
    """Offer the demos."""
    prepared = Workspace.names()
    with st.container(border=True, height="stretch"):
        st.subheader("The demos", anchor=False)
        for name in DEMOS:
            _demo(name, WORDS.get(name, Words(name, "")), name in prepared)


def _demo(name: str, words: Words, prepared: bool) -> None:
    st.markdown(f"**{plain(words.title)}**")
    st.caption(words.about)
    key = name.removeprefix("demo:")
    if prepared:
        if st.button("Open", key=f"open_demo_{key}", type="primary", icon=":material/play_arrow:"):
            open_workspace(name)
    elif st.button("Prepare (about 10 s)", key=f"prepare_demo_{key}", type="primary", icon=":material/download:"):
        with shown_errors():
            prepare_demo(name)
            open_workspace(name)


def prepare_demo(name: str) -> None:
    """Make a demo's workspace, showing where it stands; raises `UserError`."""
    progress = st.progress(0.0, text="Starting")
    for event in prepare(name):
        if isinstance(event, Progress):
            share = event.done / event.total if event.total else 0.0
            words = f"{event.phase}, {event.done:,} of {event.total:,} {event.unit}"
            progress.progress(min(1.0, share), text=plain(words))
    progress.empty()


def open_workspace(name: str, checkpoint: str | None = None) -> None:
    """Select a workspace (and one of its checkpoints) and go to its mispredictions; does not return."""
    first = next(iter(Workspace.names()), None)
    state.select(workspace=name)  # drops what belonged to the one before
    if name == first:
        state.select(workspace=None)
    if checkpoint == Workspace.open(name).checkpoint().name:
        checkpoint = None
    state.go("mispredictions", checkpoint=checkpoint, run=None)
