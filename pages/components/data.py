"""Reads that every page repeats, kept in memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from influence_core.errors import UserError
from influence_core.specs import Split
from influence_core.validation import SPLIT, loss_before
from influence_core.workspace import Workspace


def as_selected(name: str) -> str | None:
    """Return how the URL names a workspace: the first one by nothing."""
    names = Workspace.names()
    return None if names and name == names[0] else name


def workspace(name: str) -> Workspace:
    """Return a workspace by name, its data read once a process; raises `UserError`."""
    found = Workspace.open(name)
    return _workspace(str(found.path), (found.path / "workspace.json").stat().st_mtime_ns)


@st.cache_resource(max_entries=4, show_spinner=False)
def _workspace(path: str, made: int) -> Workspace:
    return Workspace(Path(path))


def examples(found: Workspace, split: Split, checkpoint: str) -> pd.DataFrame | None:
    """Return a split's rows with predictions (as `Workspace.examples`), or None where not predicted yet.

    Pages share one frame, whose contents stay on disk: it is not to be changed.
    """
    if found.predictions(split, checkpoint) is None:
        return None
    return _examples(str(found.path), split, found.checkpoint(checkpoint).fingerprint, found, checkpoint)


@st.cache_resource(max_entries=8, show_spinner=False)  # a copy would hold all contents
def _examples(path: str, split: Split, fingerprint: str, _found: Workspace, _checkpoint: str) -> pd.DataFrame:
    # arguments that begin with an underscore are not part of the cache's key
    return _found.examples(split, _checkpoint)


def prediction(found: Workspace, example: str, checkpoint: str) -> "pd.Series[Any] | None":
    """Return one row of `examples`, or None where its split is not predicted; raises `UserError` for the id."""
    split, number = found.locate(example)
    frame = examples(found, split, checkpoint)
    return None if frame is None else frame.iloc[number]


def validation_loss(found: Workspace, checkpoint: str, corrected: Sequence[str]) -> float | None:
    """Return `loss_before` a correction of these examples; None where the validation rows are not predicted yet."""
    file = found.artefacts.path("predictions", found.prediction_key(SPLIT, checkpoint)) / "predictions.parquet"
    if not file.exists():
        return None
    return _validation_loss(str(file), file.stat().st_mtime_ns, tuple(corrected), found, checkpoint)


@st.cache_data(max_entries=200, show_spinner=False)
def _validation_loss(
    file: str, made: int, corrected: tuple[str, ...], _found: Workspace, _checkpoint: str
) -> float | None:
    return loss_before(_found, _checkpoint, corrected)


def example_exists(found: Workspace, example: str) -> bool:
    """Say whether there is an example with this id."""
    try:
        found.locate(example)
    except UserError:
        return False
    return True
