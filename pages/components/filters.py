"""Which rows of a split the Mispredictions page lists: one confusion cell or all wrong ones, and more filters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

Cell = tuple[str, str]  # true and predicted class
Range = tuple[float, float]

CELL = "mispredictions_cell"
WORDS = "mispredictions_words"
CONFIDENCE = "mispredictions_confidence"
MARGIN = "mispredictions_margin"
LOSS = "mispredictions_loss"
FLAGGED = "mispredictions_flagged"
CHART = "mispredictions_chart"  # how often the chart's own selection was reset

WHOLE: Range = (0.0, 1.0)


@dataclass(frozen=True)
class Filters:
    """The filters as they are set; None and whole ranges filter nothing."""

    cell: Cell | None = None
    words: str = ""
    confidence: Range = WHOLE
    margin: Range = WHOLE
    loss: Range | None = None
    flagged: bool = False

    @property
    def active(self) -> int:
        """How many filters narrow the list (the cell counts as one)."""
        ranges = (self.confidence != WHOLE) + (self.margin != WHOLE) + (self.loss is not None)
        return (self.cell is not None) + bool(self.words.strip()) + ranges + self.flagged

    def apply(self, frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
        """Return the rows of `Workspace.examples` that pass: wrong ones, or those of the chosen cell."""
        if self.cell is None:
            keep = frame["prediction"] != frame["label"]
        else:
            true, predicted = (names.index(name) for name in self.cell)
            keep = (frame["label"] == true) & (frame["prediction"] == predicted)
        keep &= frame["confidence"].between(*self.confidence) & frame["margin"].between(*self.margin)
        if self.loss is not None:
            keep &= frame["loss"].between(*self.loss)
        if self.flagged and "gold" in frame:
            keep &= frame["label"] != frame["gold"]
        found = frame[keep]
        for word in self.words.split() if "text" in frame else ():  # last: only the texts that are left are read
            found = found[found["text"].str.contains(word, case=False, regex=False)]
        return found


def cell_words(cell: Cell, names: Sequence[str]) -> str:
    """Name a confusion cell: "false negatives" for negative and positive, otherwise "A taken for B"."""
    true, predicted = cell
    if len(names) == 2 and names[1].lower() in ("positive", "pos", "yes", "true", "1"):
        sign = "positives" if predicted == names[1] else "negatives"
        return f"{'true' if true == predicted else 'false'} {sign}"
    return f"{true} predicted right" if true == predicted else f"{true} taken for {predicted}"


def chosen_cell(names: Sequence[str]) -> Cell | None:
    """Return the chosen cell if it is one of these classes'."""
    cell: Cell | None = st.session_state.get(CELL)
    return cell if cell is not None and all(name in names for name in cell) else None


def clicked_cell(selection: Any) -> Cell | None:
    """Read the cell out of a plotly selection: names, not positions; None when it was cleared."""
    for point in selection["points"]:
        data = point.get("customdata")
        if isinstance(data, list | tuple) and len(data) == 2:
            return str(data[0]), str(data[1])
    return None


def clear() -> None:
    """Forget all filters (a callback)."""
    for name in (CELL, WORDS, CONFIDENCE, MARGIN, LOSS, FLAGGED):
        st.session_state.pop(name, None)
    st.session_state[CHART] = st.session_state.get(CHART, 0) + 1


def controls(frame: pd.DataFrame) -> Filters:
    """Show the filters beside the matrix and return them as set."""
    words = ""
    if "text" in frame:
        words = st.text_input("Text contains", key=WORDS, icon=":material/search:", persist_state="session")
    highest = max(0.01, math.ceil(100 * float(frame["loss"].max())) / 100)
    kept: Range | None = st.session_state.get(LOSS)
    if kept is not None and kept[1] > highest:  # of another split
        st.session_state.pop(LOSS)
    first, second, third = st.columns(3)
    with first:
        confidence = _range("Confidence", CONFIDENCE, 1.0, "Probability of the predicted class.")
    with second:
        margin = _range("Margin", MARGIN, 1.0, "Probability of the prediction less that of the runner-up.")
    with third:
        loss = _range("Loss", LOSS, highest, "Cross-entropy of the row's label, in nats.")
    flagged = False
    if "gold" in frame and bool((frame["gold"] != frame["label"]).any()):
        flagged = st.toggle("Label differs from gold", key=FLAGGED, persist_state="session")
    return Filters(
        cell=None,
        words=words,
        confidence=confidence,
        margin=margin,
        loss=None if loss == (0.0, highest) else loss,
        flagged=flagged,
    )


def _range(label: str, key: str, highest: float, meaning: str) -> Range:
    low, high = st.slider(
        label, 0.0, highest, (0.0, highest), step=0.01, key=key, help=meaning, persist_state="session"
    )
    return float(low), float(high)
