"""The confusion matrix whose cells filter the list, and a picker that does the same without a mouse."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from influence_core import charts
from pages.components import filters
from pages.components.filters import CELL, CHART, Cell

_PICKER = "mispredictions_picker"
_ALL: Cell = ("", "")  # no cell chosen: an option like the others, where None would read "choose an option"
_CLASSES_WITH_MENU = 12  # with more, a menu of all cells would be too long: only those with rows


def matrix(frame: pd.DataFrame, names: Sequence[str], revision: str) -> Cell | None:
    """Show the matrix and the picker; returns the chosen cell, None for all wrong rows."""
    cell = filters.chosen_cell(names)
    figure = charts.confusion(frame["label"].to_numpy(), frame["prediction"].to_numpy(), names, revision)
    if cell is not None and len(figure.data) > 1:
        places = [place for place, pair in enumerate(figure.data[1].customdata) if tuple(pair) == cell]
        figure.data[1].selectedpoints = places
    key = f"confusion_{revision}_{st.session_state.get(CHART, 0)}"
    st.plotly_chart(
        figure,
        key=key,
        on_select=lambda: _clicked(key),
        selection_mode="points",
        alt=charts.alt_text(figure),
        config={"displayModeBar": False},
    )
    _picker(frame, names, cell)
    return cell


def _clicked(key: str) -> None:
    if key not in st.session_state:  # of a chart that "Clear filters" has replaced meanwhile
        return
    st.session_state[CELL] = filters.clicked_cell(st.session_state[key]["selection"])


def _picker(frame: pd.DataFrame, names: Sequence[str], cell: Cell | None) -> None:
    counts = charts.confusion_counts(frame["label"].to_numpy(), frame["prediction"].to_numpy(), names)
    rows = {(t, p): int(counts.to_numpy()[i, j]) for i, t in enumerate(names) for j, p in enumerate(names)}
    pairs = [pair for pair in rows if len(names) <= _CLASSES_WITH_MENU or rows[pair] or pair == cell]
    # errors first; of more than two classes those with the most rows
    pairs.sort(key=lambda pair: (pair[0] == pair[1], -rows[pair] if len(names) > 2 else 0))
    st.session_state[_PICKER] = cell or _ALL
    st.selectbox(
        "Rows",
        [_ALL, *pairs],
        format_func=lambda pair: "All wrong rows" if pair == _ALL else _option(pair, names, rows[pair]),
        key=_PICKER,
        on_change=_picked,
        help="Clicking a cell of the matrix does the same.",
    )


def _option(pair: Cell, names: Sequence[str], count: int) -> str:
    words = filters.cell_words(pair, names)
    both = "" if pair[0] in words and pair[1] in words else f": {pair[0]} → {pair[1]}"
    return f"{words}{both} ({count:,})"


def _picked() -> None:
    chosen: Cell = st.session_state[_PICKER]
    st.session_state[CELL] = None if chosen == _ALL else chosen
    st.session_state[CHART] = st.session_state.get(CHART, 0) + 1
