"""R(t), the correlation of scores with measured loss shifts, with its band; and the band's distance to zero.

Both take the table of the fading study: a row per method with ``steps``, ``r``, ``low``, ``high``,
``distance``, ``peak`` and ``faded_at`` (`influence_core.studies.fading.method_row`). A live run gives the
first four, up to the step reached. Numbers that are not defined are None and leave a gap.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from influence_core.charts import theme
from influence_core.settings import CONTROLS, method_words

_NOTHING = "No repeat has been measured yet: the chart fills in as the run goes on"


def fading(methods: Sequence[Mapping[str, Any]], revision: str = "") -> go.Figure:
    """Draw R(t) with its 95 % band over steps, a line per method, zero as a line and fading steps as crosses."""
    drawn = [row for row in methods if any(value is not None for value in row["r"])]
    if not drawn:
        return theme.words(_NOTHING, revision)
    figure = go.Figure()
    for row, line in zip(drawn, _lines(drawn), strict=True):
        _band(figure, row, line["color"])
        _line(figure, row, "r", line)
        at = row.get("faded_at")
        if at is not None and row["method"] not in CONTROLS and not powerless(row):
            value = row["r"][row["steps"].index(at)]
            name = f"{theme.inert(_name(row))}: the band first contains zero at step {at}"
            figure.add_trace(
                go.Scatter(
                    x=[at],
                    y=[value],
                    name=name,
                    showlegend=False,
                    hovertext=[name],
                    hoverinfo="text",
                    mode="markers",
                    marker={"symbol": "x", "size": 10, "color": line["color"]},
                )
            )
    title = "; ".join(_course(row) for row in drawn if row["method"] not in CONTROLS) or "Controls alone, no method"
    alt = f"Line chart of the correlation over {_steps(drawn)}, with 95 % bands: {title}."
    theme.styled(figure, title, alt, x="step", y="R(t), correlation with measured shifts", revision=revision)
    figure.add_hline(y=0, line={"color": theme.NEUTRAL, "width": 1})
    lowest = min(value for row in drawn for value in [*row["low"], *row["r"]] if value is not None)
    figure.update_yaxes(range=[min(-0.1, lowest) - 0.02, 1.05])
    figure.update_layout(height=420)
    return figure


def fading_distance(methods: Sequence[Mapping[str, Any]], revision: str = "") -> go.Figure:
    """Draw how far each band is from zero (paper, Fig. 4): at 0 nothing is predicted any more."""
    drawn = [row for row in methods if any(value is not None for value in row["r"])]
    if not drawn:
        return theme.words(_NOTHING, revision)
    figure = go.Figure()
    for row, line in zip(drawn, _lines(drawn), strict=True):
        _line(figure, row, "distance", line)
    ends = [f"{_name(row)} {theme.number(row['distance'][-1])}" for row in drawn if row["method"] not in CONTROLS]
    title = f"Distance of the band to zero after {_steps(drawn)}: {', '.join(ends) or 'controls alone'}"
    theme.styled(
        figure, title, f"Line chart. {title}.", x="step", y="distance of the 95 % band to 0", revision=revision
    )
    figure.update_yaxes(rangemode="tozero")
    return figure


def contains_zero(low: float | None, high: float | None) -> bool:
    """Whether nothing speaks against R = 0; a band that is not known is among them."""
    return low is None or high is None or low <= 0 <= high


def powerless(row: Mapping[str, Any]) -> bool:
    """Whether a method's band contains zero at every step: there is nothing that could fade."""
    return all(contains_zero(*pair) for pair in zip(row["low"], row["high"], strict=True))


def _lines(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a line style for each row: controls grey, methods by colour and dash."""
    found, place = [], 0
    for row in rows:
        if row["method"] in CONTROLS:
            found.append(
                {"color": theme.NEUTRAL, "width": 1.5, "dash": theme.DASHES[1 + CONTROLS.index(row["method"])]}
            )
            continue
        here = place % len(theme.SERIES)
        found.append({"color": theme.SERIES[here], "width": 2, "dash": theme.DASHES[here]})
        place += 1
    return found


def _band(figure: go.Figure, row: Mapping[str, Any], colour: str) -> None:
    """Add the area between ``low`` and ``high``; steps without a band are left out."""
    known = [at for at, value in enumerate(row["low"]) if value is not None and row["high"][at] is not None]
    steps = [row["steps"][at] for at in known]
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    figure.add_trace(
        go.Scatter(
            x=[*steps, *reversed(steps)],
            y=[*(row["high"][at] for at in known), *(row["low"][at] for at in reversed(known))],
            fill="toself",
            fillcolor=f"rgba({red}, {green}, {blue}, 0.15)",
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
            name=theme.inert(f"{_name(row)}, 95 % band"),
            legendgroup=row["method"],
        )
    )


def _line(figure: go.Figure, row: Mapping[str, Any], what: str, line: dict[str, Any]) -> None:
    def hover(at: int) -> str:
        if row[what][at] is None:
            return ""
        said = f"{theme.inert(_name(row))}, step {row['steps'][at]}: {theme.number(row[what][at])}"
        low, high = row["low"][at], row["high"][at]
        return said if low is None or high is None else f"{said} ({theme.number(low)} to {theme.number(high)})"

    kept = theme.thin(len(row["steps"]))
    figure.add_trace(
        go.Scatter(
            x=[row["steps"][at] for at in kept],
            y=[row[what][at] for at in kept],
            hovertext=[hover(at) for at in kept],
            hoverinfo="text",
            name=theme.inert(_name(row)),
            legendgroup=row["method"],
            mode="lines+markers" if len(kept) <= 15 else "lines",
            line=line,
        )
    )


def _name(row: Mapping[str, Any]) -> str:
    return method_words(str(row["method"]), row.get("settings", {}))


def _course(row: Mapping[str, Any]) -> str:
    """Say where a method's R peaked, and whether it has faded."""
    known = [at for at, value in enumerate(row["r"]) if value is not None]
    top = max(known, key=lambda at: row["r"][at])
    said = f"{_name(row)} peaks at {theme.number(row['r'][top])} (step {row['steps'][top]})"
    faded = row.get("faded_at")
    if faded is not None:
        return f"{said}, its band holds zero throughout" if powerless(row) else f"{said}, faded by step {faded}"
    return f"{said}, {theme.number(row['r'][known[-1]])} at step {row['steps'][known[-1]]}"


def _steps(rows: Sequence[Mapping[str, Any]]) -> str:
    count = max(row["steps"][-1] for row in rows)
    return f"{count:,} {'step' if count == 1 else 'steps'}"
