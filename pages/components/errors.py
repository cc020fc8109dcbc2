"""How a page shows what went wrong: the one line that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from influence_core.errors import UserError
from pages.components.text import plain


@contextmanager
def shown_errors() -> Iterator[None]:
    """Show a `UserError` of the block as it is, instead of a traceback; the page goes on after the block."""
    try:
        yield
    except UserError as error:
        show_error(str(error))


def show_error(message: str) -> None:
    """Show a message that may hold texts from data."""
    st.error(plain(message), icon=":material/error:")
