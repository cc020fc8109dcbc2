"""A figure of the shipped results: drawn from the study's own record where that lies beside it, else its picture."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from influence_core import charts
from pages.components import fading_example, result_documents
from pages.components.result_documents import Image, figure_file
from pages.components.text import plain


def _fading(shown: dict[str, Any]) -> go.Figure:
    fading_example.check(shown)
    return charts.fading(shown["value"]["methods"])


DRAWN: dict[str, Callable[[dict[str, Any]], go.Figure]] = {  # by the kind of study
    "fading": _fading,
    "divergence": lambda shown: charts.phases(shown["value"]["series"]),
    "tracin-error": lambda shown: charts.tracin_error(shown["value"]["series"]),
    "correction": lambda shown: charts.correction_outcome(shown["value"]["cells"]),
    "mislabelled": lambda shown: charts.precision(shown["value"]["precision"]),
    "retrain": lambda shown: charts.retrained(shown["value"]["summary"]),
}
OTHERS: dict[str, Callable[[dict[str, Any]], go.Figure]] = {  # of correction studies, by how a picture's name ends
    "-retention": lambda shown: charts.correction_retention(shown["value"]["cells"]),
    "-steps": lambda shown: charts.correction_steps(shown["value"]["cells"]),
}


def figure(image: Image, key: str) -> None:
    """Show a figure of a document, or say that it is missing."""
    found = drawn(image)
    if found is not None:
        made, record = found
        with st.container(border=True):
            st.plotly_chart(made, key=f"result_{key}", config={"displayModeBar": False}, alt=charts.alt_text(made))
        st.caption(plain(f"{image.alt} · drawn from {record}"))
        return
    file = figure_file(image.path)
    if file is None:
        st.info(plain(f"The figure {image.path} ({image.alt}) is not here: it lies beside the documents."))
        return
    st.image(str(file), caption=plain(image.alt), alt=image.alt)


def drawn(image: Image) -> tuple[go.Figure, str] | None:
    """Return a picture's figure and the file of its record; None where that is missing or cannot be read."""
    ending = next((each for each in OTHERS if Path(image.path).stem.endswith(each)), "")
    record = record_of(image.path.replace(f"{ending}.", ".") if ending else image.path)
    if record is None:
        return None
    try:
        shown = json.loads(record.read_text(encoding="utf-8"))
        made = (OTHERS[ending] if ending else DRAWN[shown["spec"]["kind"]])(shown)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None
    return made, record.relative_to(_root()).as_posix()


def record_of(path: str) -> Path | None:
    """Return the record of figures/KIND-NAME.png, KIND/…NAME.json, or of a fading study's figures/NAME.png."""
    stem = Path(path).stem
    kind = next((kind for kind in DRAWN if stem == kind or stem.startswith(f"{kind}-")), "fading")
    name = stem.removeprefix(kind).removeprefix("-")
    files = sorted((_root() / kind).glob("*.json"))
    exact = [file for file in files if file.stem == name]
    found = exact or [file for file in files if not name or file.stem.endswith(f"-{name}")]
    return found[0] if len(found) == 1 else None


def _root() -> Path:
    return result_documents.FOLDER.resolve()
