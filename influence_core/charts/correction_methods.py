"""Success of corrections by method and order at one share, beside random rows (paper, Sec. 6)."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from influence_core.charts import theme
from influence_core.charts.correction_study import LINES, ORDERS, WORDS, correction_success
from influence_core.settings import METHOD_NAMES

ORDER_MARKS = {"cosine": "circle", "score": "square-open"}
APART = 0.12  # between the marks of one method


def correction_outcome(cells: Sequence[Mapping[str, Any]], revision: str = "") -> go.Figure:
    """Draw a study's success: against the share, or by method where several were compared at one share."""
    several = len({row["method"] for row in cells if row["method"] is not None}) > 1
    return (
        correction_methods(cells, revision)
        if several and len({row["share"] for row in cells}) == 1
        else (correction_success(cells, revision))
    )


def correction_methods(cells: Sequence[Mapping[str, Any]], revision: str = "") -> go.Figure:
    """Draw the share corrected by each method's rows, a mark a strategy and order, random rows as a band across.

    Takes the rows of the correction study at one share; intervals are Wilson's. A method that ranked rows for fewer
    mispredictions than others is said to be of these alone.
    """
    known = [row for row in cells if row["success"]["value"] is not None]
    own = [row for row in known if row["method"] is not None]
    if not own:
        return correction_success(cells, revision)
    names = list(dict.fromkeys(row["method"] for row in own))
    ways = list(dict.fromkeys((row["strategy"], row["by"]) for row in own))
    figure, said = go.Figure(), []
    for place, (strategy, order) in enumerate(ways):
        rows = [row for row in own if (row["strategy"], row["by"]) == (strategy, order)]
        shares, way = [row["success"] for row in rows], f"{WORDS[strategy]} {ORDERS[order]}"
        figure.add_trace(
            go.Scatter(
                x=[names.index(row["method"]) + APART * (place - (len(ways) - 1) / 2) for row in rows],
                y=[share["value"] for share in shares],
                error_y=theme.intervals(shares),
                hovertext=[f"{_name(row['method'])}, {way}: {theme.ranged(row['success'])}" for row in rows],
                hoverinfo="text",
                name=way,
                mode="markers",
                marker={"color": LINES[strategy]["color"], "symbol": ORDER_MARKS[order], "size": 10},
            )
        )
        values = [share["value"] for share in shares]
        least, most = theme.percent(min(values)), theme.percent(max(values))
        said.append(f"{least if least == most else f'{least} to {most}'} by {way}")
    for row in known:
        if row["method"] is None:
            value = row["success"]
            figure.add_hline(y=value["value"], line={"color": theme.NEUTRAL, "width": 2, "dash": "dot"})
            figure.add_hrect(y0=value["low"], y1=value["high"], fillcolor=theme.NEUTRAL, opacity=0.15, line_width=0)
            said.append(f"{theme.percent(value['value'])} by random rows (dotted, with their interval)")
    most = max(row["mispredictions"] for row in known)
    counts = {name: min(row["mispredictions"] for row in own if row["method"] == name) for name in names}
    said += [f"{_name(name)} of {count} of {most} mispredictions" for name, count in counts.items() if count < most]
    title = f"Corrected at a share of {theme.percent(own[0]['share'])}: {'; '.join(said)}"
    alt = f"Chart of the share corrected by method, with 95 % intervals. {title}."
    theme.styled(figure, title, alt, x="whose rows", y="mispredictions corrected", revision=revision)
    figure.update_xaxes(
        tickvals=list(range(len(names))),
        ticktext=[_name(name) + (f"<br>{count} of {most}" if count < most else "") for name, count in counts.items()],
        range=[-0.6, len(names) - 0.4],
    )
    figure.update_yaxes(range=[-0.02, 1.02], tickformat=".0%")
    figure.update_layout(height=420)
    return figure


def _name(method: str) -> str:
    return theme.inert(METHOD_NAMES.get(method, method))
