"""Success, retention and steps of corrections against the share of the batch, a line per strategy (paper, Fig. 3, 11).

All take the rows of the correction study (`influence_core.studies.correction_table.cell_row`); a cell without
a correction is left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from influence_core.charts import theme
from influence_core.settings import METHOD_NAMES

WORDS = {
    "proponents": "proponents (+)",
    "opponents": "opponents (−)",
    "random": "random rows (control)",
    "permuted": "another's proponents (control)",
}
LINES = {
    "proponents": {"color": theme.PROPONENT, "dash": "solid"},
    "opponents": {"color": theme.OPPONENT, "dash": "dash"},
    "random": {"color": theme.NEUTRAL, "dash": "dot"},
    "permuted": {"color": theme.NEUTRAL, "dash": "dashdot"},
}
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x")  # of methods and orders
ORDERS = {"cosine": "by cosine", "score": "by dot product"}
APART = 0.006  # between the lines' points of one share, so that intervals do not hide each other
AROUND = 0.1  # a single share, so that its lines stand together in the middle
_NOTHING = "No correction has been made yet: the chart fills in as the study goes on"


def correction_success(cells: Sequence[Mapping[str, Any]], revision: str = "") -> go.Figure:
    """Draw the share of mispredictions corrected, with Wilson intervals, and of those that flip by themselves."""
    figure = _drawn(cells, "success", "corrected", "mispredictions corrected", theme.percent, revision)
    known = [row for row in cells if row["mispredictions"]]
    if known:
        own = {row["share"]: row["by_itself"]["value"] for row in known}
        name = "by itself, without a correction"
        figure.add_trace(
            go.Scatter(
                x=sorted(own),
                y=[own[share] for share in sorted(own)],
                name=name,
                hovertext=[f"{name}: {theme.percent(own[share])}" for share in sorted(own)],
                hoverinfo="text",
                mode="lines+markers",
                line={"color": theme.NEUTRAL, "width": 1},
                marker={"symbol": "line-ew-open", "size": 10},
            )
        )
        figure.update_yaxes(range=[-0.02, 1.02], tickformat=".0%")
    return figure


def correction_retention(cells: Sequence[Mapping[str, Any]], revision: str = "") -> go.Figure:
    """Draw the mean retention, at the flip or the last step, with t-intervals."""
    figure = _drawn(cells, "retention", "retention", "predictions kept", theme.percent, revision)
    figure.update_yaxes(tickformat=".2~%")
    return figure


def correction_steps(cells: Sequence[Mapping[str, Any]], revision: str = "") -> go.Figure:
    """Draw the mean steps of those that flipped, with t-intervals, the median in the hover text."""
    figure = _drawn(cells, "steps", "steps to the flip", "mean steps to the flip", theme.number, revision)
    figure.update_yaxes(rangemode="tozero")
    return figure


def _drawn(
    cells: Sequence[Mapping[str, Any]], field: str, short: str, y: str, written: Any, revision: str
) -> go.Figure:
    groups: dict[tuple[str, str | None, str | None], list[Mapping[str, Any]]] = {}
    for row in cells:
        if row[field]["value"] is not None:
            groups.setdefault((row["strategy"], row["method"], row["by"]), []).append(row)
    if not groups:
        return theme.words(_NOTHING, revision)
    figure = go.Figure()
    ranked = list(dict.fromkeys(key[1:] for key in groups if key[1] is not None))
    for place, (key, rows) in enumerate(groups.items()):
        name, offset = _name(key, several=len(ranked) > 1), APART * (place - (len(groups) - 1) / 2)
        rows = sorted(rows, key=lambda row: row["share"])
        symbol = SYMBOLS[ranked.index(key[1:]) % len(SYMBOLS)] if key[1] is not None else "circle-open"
        figure.add_trace(
            go.Scatter(
                x=[row["share"] + offset for row in rows],
                y=[row[field]["value"] for row in rows],
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [_beyond(row[field], "high") for row in rows],
                    "arrayminus": [_beyond(row[field], "low") for row in rows],
                    "thickness": 1,
                    "width": 3,
                },
                hovertext=[_hover(name, row, field, written) for row in rows],
                hoverinfo="text",
                name=name,
                mode="lines+markers",
                line={**LINES[key[0]], "width": 2},
                marker={"symbol": symbol, "size": 8},
            )
        )
    title = _title(groups, field, short, written, several=len(ranked) > 1)
    alt = f"Line chart of {y} against the share of the batch, with 95 % intervals: {title}."
    theme.styled(figure, title, alt, x="share of the batch that B carries", y=y, revision=revision)
    shares = sorted({row["share"] for rows in groups.values() for row in rows})
    figure.update_xaxes(tickvals=shares, ticktext=[theme.percent(share) for share in shares])  # none but those studied
    if len(shares) == 1:
        figure.update_xaxes(range=[shares[0] - AROUND, shares[0] + AROUND])
    figure.update_layout(height=420)
    return figure


def _beyond(interval: Mapping[str, Any], end: str) -> float:
    return 0.0 if interval[end] is None else abs(interval[end] - interval["value"])


def _hover(name: str, row: Mapping[str, Any], field: str, written: Any) -> str:
    interval = row[field]
    said = f"{name}, share {theme.percent(row['share'])}: {written(interval['value'])}"
    if interval["low"] is not None:
        said += f" ({written(interval['low'])} to {written(interval['high'])})"
    if field == "steps":
        said += f", median {theme.number(row['median_steps'])}"
    return f"{said}, {interval['n']} mispredictions"


def _name(key: tuple[str, str | None, str | None], several: bool) -> str:
    strategy, method, by = key
    if not several or method is None:
        return WORDS[strategy]
    return theme.inert(f"{WORDS[strategy]}, {METHOD_NAMES.get(method, method)} {ORDERS.get(str(by), by)}")


def _title(
    groups: Mapping[tuple[str, str | None, str | None], Sequence[Mapping[str, Any]]],
    field: str,
    short: str,
    written: Any,
    several: bool,
) -> str:
    """Say what each line reached at the smallest share, "no up-sampling" in a sweep."""
    least = min(row["share"] for rows in groups.values() for row in rows)
    said = [
        f"{written(row[field]['value'])} by {_name(key, several)}"
        for key, rows in groups.items()
        for row in rows
        if row["share"] == least
    ]
    return f"{short.capitalize()} at a share of {theme.percent(least)}: {', '.join(said)}"
