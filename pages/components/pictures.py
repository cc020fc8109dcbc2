"""Images on a page: small ones enlarged in whole steps so that they stay crisp, large ones made smaller."""

import base64
import io

import numpy as np
import streamlit as st
from PIL import Image

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


def drawn(image: Image.Image, side: int) -> Image.Image:
    """Return an image of 8 bits a channel whose longer side is at most ``side``, on white where it is transparent.

    One that is smaller is enlarged by the largest whole factor that fits, pixel by pixel.
    """
    image = eight_bits(image)
    longest = max(image.size)
    if longest > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        return image
    factor = side // longest
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def eight_bits(image: Image.Image) -> Image.Image:
    """Return an image as grey or RGB; deeper pixels are spread from their least to their largest value."""
    if image.mode in ("1", "L", "RGB"):
        return image.convert("L") if image.mode == "1" else image.copy()
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64)
        low, high = np.nanmin(values), np.nanmax(values)
        scaled = np.nan_to_num((values - low) / (high - low)) if high > low else np.zeros_like(values)
        return Image.fromarray((255 * scaled).astype(np.uint8))
    layers = image.convert("RGBA")
    page = Image.new("RGBA", layers.size, "white")
    return Image.alpha_composite(page, layers).convert("RGB")


def png(image: Image.Image) -> bytes:
    """Return an image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


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
    return "data:image/png;base64," + base64.b64encode(file).decode("ascii")
