"""Images on a page: small ones enlarged in whole steps so that they stay crisp, large ones made smaller."""

import streamlit as st

from influence_core.data.drawing import drawn, png, png_url
from influence_core.errors import UserError
from influence_core.workspace import Workspace
from pages.components.text import plain

STRIP, CELL, ROW, CARD, PINNED, LARGE = (
    28,
    56,
    84,
    140,
    252,
    336,
)  # pixels of the longer side, from a strip to the middle of a page


def thumbnail(workspace: Workspace, example: str, side: int) -> bytes:
    """Return a PNG file of an example's image; raises `UserError` for one that cannot be read."""
    return _thumbnail(str(workspace.path), workspace.data_fingerprint, example, side, workspace)


@st.cache_data(max_entries=2000, show_spinner=False)
def _thumbnail(path: str, fingerprint: str, example: str, side: int, _workspace: Workspace) -> bytes:
    # arguments that begin with an underscore are not part of the cache's key
    return png(drawn(_workspace.image(example), side))


def picture(workspace: Workspace, example: str, side: int, alt: str) -> None:
    """Show an example's image; where it cannot be read, say so in its place."""
    try:
        file = thumbnail(workspace, example, side)
    except UserError as error:
        st.caption(f":material/broken_image: {plain(str(error))}")
        return
    # of its own width: never scaled again by the page, except into a narrower place
    st.image(file, alt=alt, output_format="PNG")


def data_url(workspace: Workspace, example: str) -> str | None:
    """Return an example's image for a cell of a table; None where it cannot be read."""
    try:
        file = thumbnail(workspace, example, CELL)
    except UserError:
        return None
    return png_url(file)
