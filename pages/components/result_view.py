"""One document of results on screen: its verdicts first, each a link to its section, then the text with its figures."""

from collections.abc import Mapping

import streamlit as st

from pages.components.errors import show_error
from pages.components.result_documents import Document, Section
from pages.components.result_figures import figure
from pages.components.text import plain

_CHOICE = "document"  # in the URL and the session
SMALL = 3  # the level from which headings are subheaders


def choose(found: Mapping[str, Document]) -> Document:
    """Let one of the documents be chosen; the URL decides when the page is opened, and says the choice from then on."""
    asked = st.query_params.get(_CHOICE)
    if asked is not None and _CHOICE not in st.session_state:
        if asked in found:
            st.session_state[_CHOICE] = asked
        else:
            show_error(f"There is no document {asked!r}: choose one of these.")
    name = st.radio(
        "Document",
        list(found),
        format_func=lambda name: plain(found[name].title),
        captions=[_safe(document.line) for document in found.values()],
        key=_CHOICE,
    )
    st.query_params[_CHOICE] = name
    return found[name]


def view(document: Document) -> None:
    """Show a document."""
    first = document.sections[0]
    _heading(first)
    verdicts(document)
    for section in document.sections:
        if section is not first:
            _heading(section)
        for number, block in enumerate(section.blocks):
            if isinstance(block, str):
                st.markdown(_safe(block))
            else:
                figure(block, f"{document.name}_{section.anchor}_{number}")


def verdicts(document: Document) -> None:
    """Show the verdicts as a table; a word where there is none."""
    rows = [
        f"| {_cell(each.statement)} | {_cell(each.verdict)} | [{_cell(section.title)}](#{section.anchor}) |"
        for section in document.sections
        for each in section.verdicts
    ]
    if rows:
        st.markdown("\n".join(["| What is claimed or asked | Verdict here | Section |", "|---|---|---|", *rows]))
    else:
        st.caption("This document holds measurements without a verdict on the paper.")


def _heading(section: Section) -> None:
    show = st.header if section.level < SMALL else st.subheader
    show(_safe(section.title), anchor=section.anchor)


def _cell(text: str) -> str:
    return _safe(text).replace("|", "\\|").replace("[", "\\[").replace("]", "\\]")


def _safe(text: str) -> str:
    """Leave a dollar a dollar: Streamlit would begin a formula."""
    return text.replace("$", "\\$")
