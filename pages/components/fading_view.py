"""A fading measurement on screen, live, finished or an example: the figure, what it says, the table."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from influence_core import charts
from influence_core.settings import CONTROLS, METHOD_NAMES, method_words
from pages.components.fading_words import TERMS, band_words, fading_words, noise_words
from pages.components.text import plain

MOST_LINES = 3  # drawn at first, controls not counted


def terms() -> None:
    """Offer the words of the chart, explained."""
    with st.popover("What the words mean", icon=":material/help:", key="fading_terms"):
        for name, meaning in TERMS.items():
            st.markdown(f"**{plain(name)}**: {plain(meaning)}")


def chosen(table: Sequence[Mapping[str, Any]], key: str) -> list[Mapping[str, Any]]:
    """Let the lines of a table with several methods be chosen, and return those chosen; all where none is."""
    if len(table) < 2:
        return list(table)
    names = [str(row["method"]) for row in table]
    first = [name for name in names if name not in CONTROLS][:MOST_LINES]
    shown = st.pills(
        "Lines",
        names,
        selection_mode="multi",
        default=first,
        format_func=lambda name: METHOD_NAMES.get(name, plain(name)),
        key=f"fading_lines_{key}",
    )
    return [row for row in table if row["method"] in shown] or list(table)


def draw(
    table: Sequence[Mapping[str, Any]],
    divergence: Sequence[float | None],
    steps: int,
    repeats: int,
    key: str,
    *,
    noise: Sequence[float | None] = (),
    losses: float | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Draw R(t) and the divergence, and say what they show and what the band means."""
    shown = chosen(table, key)
    figure = charts.course(shown, divergence, steps, repeats, noise, revision=key)
    with st.container(border=True):
        st.plotly_chart(figure, key="fading_chart", config={"displayModeBar": False}, alt=charts.alt_text(figure))
    if not shown:
        return
    for words in fading_words(shown, repeats):
        st.markdown(f"**{plain(words)}**")
    st.caption(plain(" ".join(filter(None, [band_words(repeats), noise_words(noise, losses), *notes]))))


def noise_of(value: Mapping[str, Any]) -> Sequence[float | None]:
    """Return the noise of a finished study, as `draw` takes it; older records know only that of the losses."""
    return value.get("noise_divergence") or []


def outcome_table(table: Sequence[Mapping[str, Any]], key: str) -> None:
    """Show a finished study's numbers, a line per method, and how far each band is from zero (paper, Fig. 4)."""
    with st.expander("How far the bands are from zero"):
        figure = charts.fading_distance(table, revision=key)
        st.plotly_chart(
            figure, key=f"fading_distance_{key}", config={"displayModeBar": False}, alt=charts.alt_text(figure)
        )
    rows = [
        {
            "method": method_words(str(row["method"]), row.get("settings", {})),
            "largest R": None if row["peak"] is None else row["r"][row["peak"] - 1],
            "at step": row["peak"],
            "last R": row["r"][-1],
            "trusted until": row["horizon"],
            "faded at": None if row["method"] in CONTROLS else row["faded_at"],
            "verdict": row["verdict"] or "too few repeats",
        }
        for row in table
    ]
    number = st.column_config.NumberColumn(format="%.3g")
    trusted = st.column_config.NumberColumn(
        help="the last step, from that of the largest R on, up to which the band's lower end stays at 0.3 or more; "
        "steps before the largest R may lie below"
    )
    faded = st.column_config.NumberColumn(help="the first step after the largest R at which the band contains zero")
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        column_config={"largest R": number, "last R": number, "trusted until": trusted, "faded at": faded},
        key=f"fading_table_{key}",
        alt="How far each method's scores predicted what happened",
    )
