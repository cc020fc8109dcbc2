"""Several corrections of the same rows on the same charts: probability or flips, divergence, retention."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go

from influence_core.charts import theme
from influence_core.charts.correction import find_flip
from influence_core.charts.correction_study import LINES
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


@dataclass(frozen=True)
class Followed:
    """One correction's course under a name that tells it from the others."""

    name: str
    short: str  # in titles
    strategy: str
    steps: Sequence[Step] | Sequence[SetStep]

    def flip(self, desired: str) -> int | None:
        """Return the first step at which the row, or all of several, are predicted as desired."""
        several = [step for step in self.steps if isinstance(step, SetStep)]
        if several:
            return SetStep.all_flipped(several)
        return find_flip([step for step in self.steps if isinstance(step, Step)], desired)


def compared(runs: Sequence[Followed], desired: str, what: What) -> go.Figure:
    """Draw a value of each run against its steps, a line each, in its strategy's colour, with its flip marked.

    The title says what each run reached at its flip (of several rows, when all had flipped), otherwise at its last
    step; ``desired`` is the label of corrections of one row. Of the divergence, on a log axis, only steps with a
    positive finite distance are drawn. At least one run must have steps.
    """
    figure, ends = go.Figure(), []
    subject = SUBJECTS[what].format(theme.label(desired))
    for number, run in enumerate(run for run in runs if run.steps):
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
                    "dash": theme.DASHES[number % len(theme.DASHES)],
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
    title = f"{subject}: {'; '.join(ends)}"
    theme.styled(figure, title, f"Line chart of {len(ends)} runs over their steps. {title}.", x="step", y=AXES[what])
    figure.update_layout(height=380, legend={"y": -0.3})  # each name takes a line of the legend
    if what == "divergence":
        figure.update_yaxes(type="log", exponentformat="power")
    if what == "probability":
        figure.update_yaxes(range=[-0.02, 1.02])
    if what == "flipped":
        figure.update_yaxes(rangemode="tozero", tickformat="d")
    if what == "retention":  # no more than all of them, and never so near that one row looks like many
        lowest = min((100 * step.retention for run in runs for step in run.steps), default=100.0)
        figure.update_yaxes(range=[min(lowest, 90) - 1, 101])
    return figure


def _value(step: Step | SetStep, what: What) -> float:
    return 100 * step.retention if what == "retention" else float(getattr(step, what))


def _said(step: Step | SetStep, what: What) -> str:
    return theme.percent(step.retention) if what == "retention" else theme.number(getattr(step, what))
