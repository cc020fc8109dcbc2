"""The fading study while it runs: R(t) above and the divergence below, on the same steps, from a run's events."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from influence_core.charts import theme
from influence_core.charts.fading import contains_zero, fading
from influence_core.events import Fading

VERDICT_REPEATS = 5  # fewer give a band, but no verdict (DEFINITIONS, Trajectories)
_ABOVE, _BELOW = (0.4, 1.0), (0.0, 0.27)  # heights of the two panels


def course(
    methods: Sequence[Mapping[str, Any]],
    divergence: Sequence[float | None],
    steps: int,
    repeats: int,
    noise: Sequence[float | None] = (),
    revision: str = "",
) -> go.Figure:
    """Draw R(t) with its band and, below, the mean ‖θ_ε − θ_0‖ on a log axis; one axis of ``steps`` serves both.

    ``methods`` are rows as `charts.fading` takes them, ``divergence`` has a value for each of steps 1, 2, …;
    a log axis has no zero, so such steps are left out. ``noise`` is the same of training at ε = 0 once more, the noise
    floor: a dotted line where it is not exactly 0. ``repeats`` is how many the curves rest on at most: with
    fewer than five the band is wide whatever happens, so no step is called the one of fading.
    """
    if repeats < VERDICT_REPEATS:
        methods = [{**row, "faded_at": None} for row in methods]
    figure = fading(methods, revision)
    if not figure.data:
        return figure
    drawn, floor = _positive(divergence), _positive(noise)
    _distance(figure, divergence, drawn, "distance", "solid")
    if floor:
        _distance(figure, noise, floor, "distance at ε = 0, the noise floor", "dot")
    below = _apart(divergence, drawn) + (f"; at ε = 0 up to {_largest(noise, floor)}" if floor else "")
    values = [divergence[at] or 1.0 for at in drawn] + [noise[at] or 1.0 for at in floor]
    few = bool(values) and max(values) < 30 * min(values)  # ticks at 1, 2, 5 of each decade, or at decades alone
    lines = {"gridcolor": theme.GRID, "zeroline": False, "automargin": True, "dtick": "D2" if few else 1}
    figure.update_layout(
        height=600,
        title={"y": 1, "yanchor": "top", "pad": {"t": 12}},
        legend={"y": -0.14},
        xaxis={"anchor": "y2", "range": [0.5, steps + 0.5], **({"dtick": 1} if steps <= 15 else {})},
        yaxis={"domain": _ABOVE},
        yaxis2={"domain": _BELOW, "type": "log", "exponentformat": "power", "title": {"text": "‖θ_ε − θ_0‖ (log)"}}
        | lines,
    )
    heading = {"xref": "paper", "yref": "y2 domain", "x": 0, "y": 1.03, "xanchor": "left", "yanchor": "bottom"}
    figure.add_annotation(text=theme.inert(below), showarrow=False, align="left", font={"size": 14}, **heading)
    said = figure.layout.meta["title"]
    of = f"{repeats} {'repeat' if repeats == 1 else 'repeats'}"
    figure.update_layout(meta={"title": said, "below": below, "alt": f"Two line charts of {of}. {said}. {below}."})
    return figure


def rows_so_far(events: Sequence[Fading]) -> list[dict[str, Any]]:
    """Return a row per method from a run's events, each step as measured last (repeats come one after another).

    With ``method``, ``steps``, ``r``, ``low``, ``high``, ``peak`` and ``faded_at``, which mean what they do in the
    study's table (DEFINITIONS, Trajectories).
    """
    latest = {event.step: event for event in events}
    steps = sorted(latest)
    rows = []
    for name in events[-1].methods if events else ():
        known = [latest[step].methods[name] for step in steps]
        r, low, high = ([getattr(one, end) for one in known] for end in ("r", "low", "high"))
        peak = max((at for at, value in enumerate(r) if value is not None), key=lambda at: r[at], default=None)
        crossed = [at for at, pair in enumerate(zip(low, high, strict=True)) if contains_zero(*pair)]
        faded = None if peak is None else next((at for at in crossed if at > peak), None)
        rows.append(
            {
                "method": name,
                "steps": steps,
                "r": r,
                "low": low,
                "high": high,
                "peak": None if peak is None else steps[peak],
                "faded_at": None if faded is None else steps[faded],
            }
        )
    return rows


def divergence_so_far(events: Sequence[Fading]) -> list[float | None]:
    """Return the mean divergence over the repeats measured at each of steps 1, 2, … up to the last known one."""
    found: dict[int, list[float]] = {}
    for event in events:
        found.setdefault(event.step, []).append(event.divergence)
    return [
        sum(found[step]) / len(found[step]) if step in found else None for step in range(1, max(found, default=0) + 1)
    ]


def noise_so_far(events: Sequence[Fading]) -> list[float | None]:
    """Return the largest noise of the repeats measured at each of steps 1, 2, …; None where no repeat has kept it."""
    found: dict[int, float] = {}
    for event in events:
        if event.noise is not None:
            found[event.step] = max(event.noise, found.get(event.step, 0.0))
    return [found.get(step) for step in range(1, max(found, default=0) + 1)]


def _positive(values: Sequence[float | None]) -> list[int]:
    return [at for at, value in enumerate(values) if value is not None and math.isfinite(value) and value > 0]


def _largest(values: Sequence[float | None], drawn: Sequence[int]) -> str:
    return theme.number(max(values[at] or 0.0 for at in drawn))


def _distance(figure: go.Figure, values: Sequence[float | None], drawn: Sequence[int], name: str, dash: str) -> None:
    """Add a line of distances to the lower panel."""
    figure.add_trace(
        go.Scatter(
            x=[at + 1 for at in drawn],
            y=[values[at] for at in drawn],
            hovertext=[f"step {at + 1}: {name} {theme.number(values[at] or 0.0)}" for at in drawn],
            hoverinfo="text",
            name=name,
            showlegend=False,
            mode="lines+markers" if len(drawn) <= 15 else "lines",
            line={"color": theme.NEUTRAL, "width": 2, "dash": dash},
            yaxis="y2",
        )
    )


def _apart(divergence: Sequence[float | None], drawn: Sequence[int]) -> str:
    """Say how far the trainings moved apart."""
    if not drawn:
        return "No distance between the trainings to draw so far"
    first, last = (theme.number(divergence[at] or 0.0) for at in (drawn[0], drawn[-1]))
    if len(drawn) == 1:
        return f"The trainings are {first} apart at step {drawn[0] + 1}"
    moved = "grew" if (divergence[drawn[-1]] or 0.0) > (divergence[drawn[0]] or 0.0) else "went"
    return f"The distance between the trainings {moved} from {first} to {last}"
