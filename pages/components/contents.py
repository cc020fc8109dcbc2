"""What an example is made of, on a page: its text or its image."""

import streamlit as st

from influence_core.data.dataset import words
from influence_core.workspace import Workspace
from pages.components import pictures
from pages.components.text import first_words, plain


def has_images(workspace: Workspace) -> bool:
    """Whether the workspace's examples are images."""
    return workspace.dataset.modality == "image"


def show_content(workspace: Workspace, example: str, *, alt: str, side: int, length: int | None = None) -> None:
    """Show an example: an image at most ``side`` pixels wide described by ``alt``, or (the beginning of) a text.

    Under an image stands its file's name, where there is one.
    """
    if has_images(workspace):
        pictures.picture(workspace, example, side, alt)
        if file := beginning(workspace, example):
            st.caption(plain(file))
        return
    text = str(workspace.example(example)["text"])
    st.text(text if length is None else first_words(text, length), width="stretch")


def beginning(workspace: Workspace, example: str, length: int = 70) -> str:
    """Return the first words of an example; of an image, its file's name, or nothing where it has none."""
    split, row = workspace.locate(example)
    found = words(workspace.dataset.splits[split], row)
    return found if has_images(workspace) else first_words(found, length)


def cell(workspace: Workspace, example: str, length: int = 200) -> str | None:
    """Return what stands for an example in a table: its first words, or an image's data URL."""
    return pictures.data_url(workspace, example) if has_images(workspace) else beginning(workspace, example, length)
