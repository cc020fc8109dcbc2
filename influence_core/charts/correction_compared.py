"""Several corrections of the same rows on the same charts: probability or flips, divergence, retention."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import plotly.graph_objects as go

from influence_core.charts import theme
from influence_core.charts.correction_study import LINES
from influence_core.charts.followed import Followed, only
from influence_core.charts.uncorrected import add_uncorrected
from influence_core.events import SetStep, Step

What = Literal["probability", "flipped", "divergence", "retention"]
SUBJECTS: dict[What, str] = {
    "probability": "Probability of “{}”",
    "flipped": "Rows predicted as desired",
    "divergence": "Distance from the uncorrected run",
    "retention": "Retention",
}
AXES: dict[What, str] = {
    "probability": "probability",
    "flipped": "rows predicted as desired",
    "divergence": "distance ‖θ_ε − θ_0‖ (log)",
    "retention": "retention (%)",
}
SINGLE: tuple[What, ...] = ("probability", "divergence", "retention")  # of corrections of one row
TOGETHER: tuple[What, ...] = ("flipped", "divergence", "retention")  # of corrections of several
PLOT = 210  # pixels of its height that lines have
ABOVE = 20  # pixels above the title
COUNTED = 10  # rows up to which each has a tick
DASHES = tuple(dash for dash in theme.DASHES if dash != "dot")  # dotted is what happens without correction


def compared(runs: Sequence[Followed], desired: Mapping[str, str], what: What) -> go.Figure:
    """Draw a value of each run against its steps, a line each, in its strategy's colour, with its flip marked.

    The title says what each run reached at its flip (of several rows, when all had flipped), otherwise at its last
    step; ``desired`` are labels by corrected example. Beside probabilities, and beside how many of several rows are
    as desired, is dotted what happens without correction, each such run once. Of the divergence, on a log axis,
    only steps with a positive finite distance are drawn. At least one run must have steps.
    """
    figure, ends, runs = go.Figure(), [], [run for run in runs if run.steps]
    subject = SUBJECTS[what].format(theme.label(only(desired)))
    controlled = what in ("probability", "flipped")
    alone = add_uncorrected(figure, runs, desired) if controlled else ""
    for number, run in enumerate(runs):
        flip = run.flip(desired)
        end = next((step for step in run.steps if step.step == flip), run.steps[-1])
        when = f"at step {end.step:,}" if flip is None else f"at the flip, step {end.step:,}"
        ends.append(f"{_said(end, what)} {when} in {run.short}")
        drawn = [step for step in run.steps if what != "divergence" or 0 < step.divergence < math.inf]
        points = [drawn[at] for at in theme.thin(len(drawn))]
        colour = LINES[run.strategy]["color"]
        figure.add_trace(
            go.Scatter(
                x=[step.step for step in points],
                y=[_value(step, what) for step in points],
                name=theme.inert(run.name),
                hovertext=[f"step {step.step}, {theme.inert(run.name)}: {_said(step, what)}" for step in points],
                hoverinfo="text",
                mode="lines",
                line={
                    "color": colour,
                    "width": 2,
                    "dash": DASHES[number % len(DASHES)],
                    "shape": "hv" if what == "flipped" else "linear",
                },
            )
        )
        if flip is not None and end in points:
            figure.add_trace(
                go.Scatter(
                    x=[end.step],
                    y=[_value(end, what)],
                    name=f"flip, {theme.inert(run.name)}",
                    hovertext=[f"flip at step {end.step}, {theme.inert(run.name)}"],
                    hoverinfo="text",
                    mode="markers",
                    showlegend=False,
                    marker={"symbol": "star", "size": 14, "color": colour},
                )
            )
    title = f"{subject}: {'; '.join(ends)}{alone}"
    beside = ", dotted beside them what happens without correction" if controlled else ""
    alt = f"Line chart of {len(ends)} runs over their steps{beside}. {title}."
    theme.styled(figure, title, alt, x="step", y=AXES[what])
    _with_room(figure)
    if what == "divergence":
        figure.update_yaxes(type="log", exponentformat="power")
    if what == "probability":
        figure.update_yaxes(range=[-0.02, 1.02])
    if what == "flipped":
        most = len(desired)
        figure.update_yaxes(range=[-0.1, most + 0.3], tickformat="d", dtick=1 if most <= COUNTED else None)
    if what == "retention":  # no more than all of them, and never so near that one row looks like many
        lowest = min((100 * step.retention for run in runs for step in run.steps), default=100.0)
        figure.update_yaxes(range=[min(lowest, 90) - 1, 101])
    return figure


def _with_room(figure: go.Figure) -> None:
    """Make it so high that a title and a legend of many lines leave the plot its own."""
    names = sum(line.showlegend is not False for line in figure.data)  # each takes a line of the legend
    height = figure.layout.margin.t + 1.3 * PLOT + 20 * names + figure.layout.margin.b
    figure.update_layout(
        height=height,
        legend={"y": -0.3},
        # from the top down: otherwise its first line stands in the middle of the margin, and the others below
        title={"y": 1 - ABOVE / height, "yref": "container", "yanchor": "top"},
    )


def _value(step: Step | SetStep, what: What) -> float:
    return 100 * step.retention if what == "retention" else float(getattr(step, what))


def _said(step: Step | SetStep, what: What) -> str:
    return theme.percent(step.retention) if what == "retention" else theme.number(getattr(step, what))
