"""How many mispredictions flip when the model is trained again with their relabels, and without (paper, Sec. 6)."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from influence_core.charts import theme

STRATEGIES = {"proponents": "proponents' relabels", "gold": "true labels of mislabelled proponents"}
TRAININGS = {  # field of a row of the summary → words, colour, symbol
    "flipped": ("with the relabels", theme.PROPONENT, "circle"),
    "by_itself": ("the same training without", theme.NEUTRAL, "circle-open"),
    "by_seeds": ("without, other seeds", theme.NEUTRAL, "diamond-open"),
}
APART = 0.18  # between the points of one strategy
_NOTHING = "No training has been made yet: the chart fills in as the study goes on"


def retrained(summary: Sequence[Mapping[str, Any]], revision: str = "") -> go.Figure:
    """Draw the share that flips, with Wilson intervals, of each strategy of the study of retraining.

    Takes the rows of its summary (`influence_core.studies.retrain_table`).
    """
    rows = [row for row in summary if row["mispredictions"]]
    if not rows:
        return theme.words(_NOTHING, revision)
    figure = go.Figure()
    for place, (field, (name, colour, symbol)) in enumerate(TRAININGS.items()):
        known = [(at, row) for at, row in enumerate(rows) if row[field]["value"] is not None]
        if not known:
            continue
        shares = [row[field] for _, row in known]
        figure.add_trace(
            go.Scatter(
                x=[at + APART * (place - 1) for at, _ in known],
                y=[share["value"] for share in shares],
                error_y=theme.intervals(shares),
                hovertext=[f"{_name(row)}, {name}: {theme.ranged(row[field])}" for _, row in known],
                hoverinfo="text",
                name=name,
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 10},
            )
        )
    said = [
        f"{theme.percent(row['flipped']['value'])} of {row['mispredictions']} flip with {_name(row)}"
        + ("" if row["by_itself"]["value"] is None else f", {theme.percent(row['by_itself']['value'])} without")
        for row in rows
    ]
    title = f"Trained again: {'; '.join(said)}"
    alt = f"Chart of shares with 95 % intervals. {title}."
    theme.styled(figure, title, alt, x="what was relabelled", y="mispredictions flipped", revision=revision)
    figure.update_xaxes(
        tickvals=list(range(len(rows))), ticktext=[_name(row) for row in rows], range=[-0.6, len(rows) - 0.4]
    )
    figure.update_yaxes(range=[-0.02, 1.02], tickformat=".0%")
    return figure


def _name(row: Mapping[str, Any]) -> str:
    return STRATEGIES.get(row["strategy"], theme.inert(str(row["strategy"])))
