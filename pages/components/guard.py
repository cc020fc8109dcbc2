"""What each page calls first: configuration, selection, chrome, and the workspace or a word why there is none."""

from dataclasses import dataclass
from typing import Any

import streamlit as st
from PIL import Image

from influence_core.charts import OPPONENT, PROPONENT
from influence_core.errors import UserError
from influence_core.workspace import Checkpoint, Workspace
from pages.components import chrome, data, navigation, state
from pages.components.errors import show_error


@dataclass(frozen=True)
class Context:
    """What a page works on."""

    workspace: Workspace
    checkpoint: Checkpoint
    example: str | None  # the selected test row; an id that exists

    @property
    def spec(self) -> dict[str, Any]:
        """The options that every spec of this page starts from."""
        return {"checkpoint": self.checkpoint.name}


def guard(title: str) -> Context:
    """Open a page that works on a workspace; stops, with a word and a link, where there is none.

    A deep link to a server that has just started runs the page's file without ``app.py``; the
    guard then registers the pages itself, so that navigation is the same on every way in.
    """
    context = guard_any(title)
    if context is None:
        st.info("There is no workspace yet: open a demo, or a checkpoint and data of your own.")
        st.page_link("pages/load.py", label="Load", icon=":material/upload_file:")
        st.stop()
    return context


def guard_any(title: str) -> Context | None:
    """Open a page that can do without a workspace; returns None where there is none."""
    if not st.session_state.pop(state.NAVIGATED, False):
        # as app.py does; the page starts again inside the navigation, because there its widgets have the
        # identities that they keep in the next runs (a click on the others would be lost)
        page = navigation.register()
        st.session_state[state.NAVIGATED] = True
        page.run()
        st.stop()
    st.set_page_config(page_title=f"{title} · Influence debugger", page_icon=_icon(), layout="wide")
    state.sync()
    context = _context()
    chrome.sidebar(context.workspace if context else None, context.checkpoint if context else None)
    chrome.going_on()
    if context is not None:
        chrome.strip(context.workspace, context.checkpoint, context.example)
    st.title(title)
    return context


def _icon() -> Image.Image:
    """Draw the tab's icon, a blue bar above an orange one: drawn here, because a named icon is fetched from afar."""
    picture = Image.new("RGBA", (32, 32))
    picture.paste(PROPONENT, (2, 5, 30, 14))
    picture.paste(OPPONENT, (2, 18, 20, 27))
    return picture


def _context() -> Context | None:
    """Find what the selection names; what does not exist is said and dropped from the selection."""
    names = Workspace.names()
    if not names:
        return None
    name = state.selected(state.WORKSPACE)
    try:
        workspace = data.workspace(name or names[0])
    except UserError as error:
        show_error(str(error))
        state.select(workspace=None)
        workspace = data.workspace(names[0])
    try:
        checkpoint = workspace.checkpoint(state.selected(state.CHECKPOINT))
    except UserError as error:
        show_error(str(error))
        state.select(checkpoint=None)
        if not workspace.checkpoints():
            return None
        checkpoint = workspace.checkpoint()
    example = state.selected(state.EXAMPLE)
    if example is not None:
        try:
            workspace.locate(example)
        except UserError as error:
            show_error(str(error))
            state.select(example=None)
            example = None
    return Context(workspace, checkpoint, example)
