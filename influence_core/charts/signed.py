"""Bars of numbers of both signs and very different sizes: an asinh axis, two colours, a sign on each."""

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from influence_core.charts import theme

MIN_APART = 0.1  # of the axis' height between two ticks


def signed(value: float) -> str:
    """Write a number with its sign ("+6.62", "−2.98")."""
    return ("+" if value > 0 else "−" if value < 0 else "±") + theme.number(abs(value))


def bars(
    figure: go.Figure,
    positions: Sequence[int],
    values: np.ndarray,
    hovers: Sequence[str],
    errors: np.ndarray | None = None,
) -> None:
    """Add bars of values [n] in blue ("+") and orange ("−"), on an axis that is linear near 0 and a logarithm away.

    The drawn height of v is asinh(v / s), s the median of |v|; the axis' ticks say v. ``errors`` [n] is
    half the length of each error bar.
    """
    sizes = np.abs(values[values != 0])
    scale = float(np.median(sizes)) if len(sizes) else 1.0
    places = np.array(positions)
    for name, colour, mark, chosen in (
        ("positive (+)", theme.PROPONENT, "+", values >= 0),
        ("negative (−)", theme.OPPONENT, "−", values < 0),
    ):
        heights = np.arcsinh(values[chosen] / scale)
        error = None
        if errors is not None:
            above = np.arcsinh((values[chosen] + errors[chosen]) / scale) - heights
            below = heights - np.arcsinh((values[chosen] - errors[chosen]) / scale)
            error = {"array": above, "arrayminus": below, "width": 3, "thickness": 1.5, "color": theme.NEUTRAL}
        figure.add_trace(
            go.Bar(
                x=places[chosen],
                y=heights,
                error_y=error,
                name=name,
                marker={"color": colour},
                text=[mark] * int(chosen.sum()),
                textposition="outside",
                cliponaxis=False,
                hovertext=[hover for hover, at in zip(hovers, chosen, strict=True) if at],
                hoverinfo="text",
            )
        )
    drawn = _ticks(values, scale)
    figure.update_yaxes(
        tickvals=[math.asinh(tick / scale) for tick in drawn],
        ticktext=[signed(tick) if tick else "0" for tick in drawn],
        zeroline=True,
        zerolinecolor=theme.NEUTRAL,
    )


def _ticks(values: np.ndarray, scale: float) -> list[float]:
    """Return 0, both ends of the values, and the powers of ten that stand clear of these on the axis."""
    low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    ticks = [0.0, *(end for end in (low, high) if end)]
    apart = (math.asinh(high / scale) - math.asinh(low / scale)) * MIN_APART
    for power in range(math.floor(math.log10(scale)) - 1, 1 + math.floor(math.log10(max(high, -low, scale)))):
        for tick in (-(10.0**power), 10.0**power):
            height = math.asinh(tick / scale)
            if low < tick < high and all(abs(height - math.asinh(kept / scale)) >= apart for kept in ticks):
                ticks.append(tick)
    return sorted(ticks)
