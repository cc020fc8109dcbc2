"""Divergence of trajectories by ε with its two-phase fit, and TracIn's error beside the exact Jacobian's."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from influence_core.charts import theme

BOUNDS = {  # constants met on the trajectories, so the bounds are too low rather than too high
    "bound": "Theorem 3's bound (8), estimated from below",
    "bound_tight": "its tighter product form, estimated from below",
}
BOUND_DASHES = {"bound": "dot", "bound_tight": "dashdot"}
HIGHEST = 1e3  # a bound is drawn up to so many times the largest distance
_NOTHING = "No repeat has been measured yet: the chart fills in as the run goes on"


def phases(series: Sequence[Mapping[str, Any]], revision: str = "") -> go.Figure:
    """Draw ‖θ_ε − θ_0‖ on a log axis against Σ η, a line per series, the fits thin (paper, Fig. 1).

    Takes the rows of the divergence study (`influence_core.studies.divergence.row`). A log axis has no
    zero: step 0 is left out. Theorem 3's bounds, where there are any, are thin lines of the series' own
    colour, up to `HIGHEST` times the largest distance so that they do not flatten what was measured. The distance
    at ε = 0 is drawn where it is not exactly 0.
    """
    if not any(value > 0 for row in series for value in row["divergence"]):
        return theme.words(_NOTHING, revision)
    figure = go.Figure()
    top = HIGHEST * max(value for row in series for value in row["divergence"] if math.isfinite(value))
    for place, row in enumerate(series):
        colour, dash = theme.SERIES[place % len(theme.SERIES)], theme.DASHES[place % len(theme.DASHES)]
        drawn = [at for at, value in enumerate(row["divergence"]) if value > 0 and math.isfinite(value)]
        kept = [drawn[at] for at in theme.thin(len(drawn))]
        x = [row["integrated_lr"][at] for at in kept]
        figure.add_trace(
            go.Scatter(
                x=x,
                y=[row["divergence"][at] for at in kept],
                hovertext=[f"{_name(row)}, step {at}: {theme.number(row['divergence'][at])}" for at in kept],
                hoverinfo="text",
                name=_name(row),
                mode="lines+markers" if len(kept) <= 60 else "lines",
                line={"color": colour, "width": 2, "dash": dash},
                marker={"size": 4},
            )
        )
        for bound, words in BOUNDS.items():
            _bound(figure, row, bound, f"{_name(row)}, {words}", colour, top)
        if row.get("fit"):
            fit, slopes = row["fit"], [theme.number(slope) for slope in row["fit"]["slopes"]]
            name = f"{_name(row)}: slopes {slopes[0]} and {slopes[1]}"
            ends = [x[0], min(max(x[0], fit["breakpoint"]), x[-1]), x[-1]]
            phase = [0, 0, 1]  # the lines meet at the breakpoint
            figure.add_trace(
                go.Scatter(
                    x=ends,
                    y=[
                        math.exp(fit["intercepts"][p] + fit["slopes"][p] * at)
                        for p, at in zip(phase, ends, strict=True)
                    ],
                    name=name,
                    showlegend=False,
                    hovertext=[name] * 3,
                    hoverinfo="text",
                    mode="lines",
                    line={"color": theme.NEUTRAL, "width": 1},
                )
            )
    _floor(figure, series)
    title = "; ".join([_said([row for row in series if row.get("fit")]), *_over(series)])
    alt = f"Line chart, log axis, of the parameter distance by ε: {title}."
    x_title, y_title = "Σ η (learning rate summed over steps)", "distance ‖θ_ε − θ_0‖ (log)"
    theme.styled(figure, title, alt, x=x_title, y=y_title, revision=revision)
    figure.update_xaxes(exponentformat="e")
    figure.update_yaxes(type="log", exponentformat="power")
    return figure


def _floor(figure: go.Figure, series: Sequence[Mapping[str, Any]]) -> None:
    """Add the noise floor where it is not exactly 0: the distance of training at ε = 0 once more, a line a repeat."""
    for number, row in {row["repeat"]: row for row in series}.items():
        noise = row.get("noise") or []
        drawn = [at for at, value in enumerate(noise) if value > 0 and math.isfinite(value)]
        if drawn:
            name = f"ε = 0, the noise floor{f', repeat {number + 1}' if number else ''}"
            figure.add_trace(
                go.Scatter(
                    x=[row["integrated_lr"][at] for at in drawn],
                    y=[noise[at] for at in drawn],
                    name=name,
                    hovertext=[f"{name}, step {at}: {theme.number(noise[at])}" for at in drawn],
                    hoverinfo="text",
                    mode="lines",
                    line={"color": theme.NEUTRAL, "width": 2, "dash": "dot"},
                )
            )


def tracin_error(series: Sequence[Mapping[str, Any]], revision: str = "") -> go.Figure:
    """Draw error of Eq. 2 ÷ error of Eq. 6 at the last step against ε, both on log axes, a line per precision.

    Takes the rows of the study (`influence_core.studies.tracin_error.rows_of`); repeats are points of their own.
    """
    drawn = [row for row in series if row["ratio"][-1]]
    if not drawn:
        return theme.words(_NOTHING, revision)
    figure = go.Figure()
    said = []
    for place, dtype in enumerate(dict.fromkeys(row["dtype"] for row in drawn)):
        own = sorted((row for row in drawn if row["dtype"] == dtype), key=lambda row: (row["repeat"], row["epsilon"]))
        first, last = min(own, key=lambda row: row["epsilon"]), max(own, key=lambda row: row["epsilon"])
        said.append(f"{theme.number(first['ratio'][-1])} at ε = {theme.number(first['epsilon'])} in {dtype}")
        figure.add_trace(
            go.Scatter(
                x=[row["epsilon"] for row in own],
                y=[row["ratio"][-1] for row in own],
                hovertext=[f"{dtype}, {_name(row)}: {theme.number(row['ratio'][-1])} times" for row in own],
                hoverinfo="text",
                name=theme.inert(dtype),
                mode="lines+markers" if len({row["repeat"] for row in own}) == 1 else "markers",
                line={"color": theme.SERIES[place], "width": 2, "dash": theme.DASHES[place]},
            )
        )
    largest = theme.number(last["epsilon"])
    title = f"Eq. 2 errs {theme.number(last['ratio'][-1])} times as much as Eq. 6 at ε = {largest}, {', '.join(said)}"
    alt = f"Line chart, log axes, of the ratio of both errors by ε: {title}."
    theme.styled(figure, title, alt, x="ε (log)", y="error of Eq. 2 ÷ error of Eq. 6", revision=revision)
    figure.update_xaxes(type="log", exponentformat="power")
    figure.update_yaxes(type="log", exponentformat="power")
    return figure


def _name(row: Mapping[str, Any]) -> str:
    repeat = f", repeat {row['repeat'] + 1}" if row["repeat"] else ""
    return f"ε = {theme.number(row['epsilon'])}{repeat}"


def _bound(figure: go.Figure, row: Mapping[str, Any], bound: str, name: str, colour: str, top: float) -> None:
    """Add one of Theorem 3's bounds of a series, where it is known and not far above all that was measured."""
    values = row.get(bound) or []
    known = [at for at, value in enumerate(values) if value is not None and 0 < value <= top]
    kept = [known[at] for at in theme.thin(len(known))]
    if not kept:
        return
    figure.add_trace(
        go.Scatter(
            x=[row["integrated_lr"][at] for at in kept],
            y=[values[at] for at in kept],
            hovertext=[f"{name}, step {at}: {theme.number(values[at])}" for at in kept],
            hoverinfo="text",
            name=name,
            showlegend=False,
            mode="lines",
            line={"color": colour, "width": 1, "dash": BOUND_DASHES[bound]},
        )
    )


def _over(series: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say how far above the last distances the bounds lie, as the median over series; or why there are none."""
    if why := next((row["bounds_unavailable"] for row in series if row.get("bounds_unavailable")), None):
        yield f"no bound: {why}"
    for bound, words in {"bound": "bound (8)", "bound_tight": "tighter form"}.items():
        ends = [(row[bound][-1], row["divergence"][-1]) for row in series if row.get(bound) and row["divergence"][-1]]
        if ends:
            times = statistics.median(math.inf if high is None else high / low for high, low in ends)
            yield f"{words} {theme.number(times)} times the distance (estimated from below)"


def _said(fitted: Sequence[Mapping[str, Any]]) -> str:
    """Say the slopes of the second phase, and whether two phases are the best description."""
    if not fitted:
        return "Distance from the unperturbed run, with too few steps for a fit"
    slopes = [row["fit"]["slopes"][1] for row in fitted]
    low, high = theme.number(min(slopes)), theme.number(max(slopes))
    between = low if low == high else f"{low} to {high}"
    best = [row["fit"]["best"] for row in fitted]
    most = max(dict.fromkeys(best), key=best.count)
    return f"Second phase with slope {between}; best described by {most} in {best.count(most)} of {len(best)}"
