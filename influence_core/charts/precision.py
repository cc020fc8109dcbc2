"""Precision at k: how many of the first k training rows of an order are truly mislabelled."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from influence_core.charts import theme
from influence_core.settings import METHOD_NAMES


def precision(rows: Sequence[Mapping[str, Any]], revision: str = "") -> go.Figure:
    """Draw precision at k on a log axis of k, a line per order, with Wilson intervals; chance in grey.

    Takes the ``precision`` of the mislabelled study (`influence_core.studies.precision.precision_rows`).
    """
    drawn = [row for row in rows if row["precision"]]
    if not drawn:
        return theme.words("There are fewer training rows than the smallest k: nothing to draw", revision)
    figure = go.Figure()
    place = 0
    for row in drawn:
        control = row["order"] == "chance"
        line = {"color": theme.NEUTRAL, "width": 1.5, "dash": "dot"}
        if not control:
            line = {"color": theme.SERIES[place % len(theme.SERIES)], "width": 2}
            line["dash"] = theme.DASHES[place % len(theme.DASHES)]
            place += 1
        found = row["precision"]
        figure.add_trace(
            go.Scatter(
                x=[each["k"] for each in found],
                y=[each["value"] for each in found],
                error_y=None if control else theme.intervals(found),
                hovertext=[f"{_name(row)}, first {each['k']:,}: {theme.percent(each['value'])}" for each in found],
                hoverinfo="text",
                name=theme.inert(_name(row)),
                mode="lines+markers",
                line=line,
            )
        )
    first = drawn[0]["precision"][0]["k"]
    said = ", ".join(f"{theme.percent(row['precision'][0]['value'])} by {_name(row)}" for row in drawn)
    title = f"Truly mislabelled among the first {first:,} training rows: {said}"
    alt = f"Line chart of precision at k, with 95 % intervals: {title}."
    theme.styled(figure, title, alt, x="first k rows (log)", y="of them truly mislabelled", revision=revision)
    at = sorted({each["k"] for row in drawn for each in row["precision"]})
    figure.update_xaxes(type="log", tickvals=at, ticktext=[f"{k:,}" for k in at])
    figure.update_yaxes(range=[-0.02, 1.02], tickformat=".0%")
    figure.update_layout(height=420)
    return figure


def _name(row: Mapping[str, Any]) -> str:
    if row["method"] is None:
        return {"loss": "the loss", "chance": "chance"}.get(row["order"], str(row["order"]))
    return f"{row['order']} ({METHOD_NAMES.get(row['method'], row['method'])})"
