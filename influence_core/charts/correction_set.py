"""Charts of a correction of several rows together, from its steps."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from influence_core.charts import theme
from influence_core.charts.correction import divergence, not_yet, retention
from influence_core.events import SetStep

LINES = 30  # examples drawn with a line each


def flipped(steps: Sequence[SetStep], desired: Mapping[str, str], revision: str = "") -> go.Figure:
    """Draw how many of the examples are predicted as desired (labels by example), without correction dotted beside."""
    if not steps:
        return not_yet("Rows predicted as desired", revision)
    last, points = steps[-1], [steps[at] for at in theme.thin(len(steps))]
    alone = [sum(each.base_prediction == desired[each.example] for each in step.examples) for step in points]
    title = f"{last.flipped} of {len(last.examples)} are predicted as desired after {_steps(last.step)}"
    if alone[-1]:
        title += f", {alone[-1]} without correction"
    figure = go.Figure()
    lines = (
        ("without correction", alone, {"color": theme.NEUTRAL, "width": 2, "dash": "dot", "shape": "hv"}),
        (
            "with correction",
            [step.flipped for step in points],
            {"color": theme.PROPONENT, "width": 2, "shape": "hv"},
        ),
    )
    for name, values, line in lines:
        figure.add_trace(
            go.Scatter(
                x=[step.step for step in points],
                y=values,
                hovertext=[f"step {step.step}, {name}: {n}" for step, n in zip(points, values, strict=True)],
                hoverinfo="text",
                name=name,
                mode="lines",
                line=line,
            )
        )
    alt = f"Step chart over {_steps(last.step)}: {title}."
    theme.styled(figure, title, alt, x="step", y="rows predicted as desired", revision=revision)
    figure.update_yaxes(range=[-0.1, len(last.examples) + 0.3], tickformat="d")
    return figure


def probabilities(steps: Sequence[SetStep], revision: str = "") -> go.Figure:
    """Draw the probability of each example's desired label; of very many, the first `LINES`."""
    if not steps:
        return not_yet("Probability of the desired labels", revision)
    first, last = steps[0], steps[-1]
    points = [steps[at] for at in theme.thin(len(steps))]
    mean = [sum(each.probability for each in step.examples) / len(step.examples) for step in (first, last)]
    title = (
        f"Mean probability of the desired labels {_went(*mean)} from {theme.number(mean[0])} to "
        f"{theme.number(mean[1])} after {_steps(last.step)}"
    )
    figure = go.Figure()
    for place, reading in enumerate(last.examples[:LINES]):
        name = theme.inert(reading.example)
        figure.add_trace(
            go.Scatter(
                x=[step.step for step in points],
                y=[step.examples[place].probability for step in points],
                hovertext=[
                    f"step {step.step}, {name}: {theme.number(step.examples[place].probability)}" for step in points
                ],
                hoverinfo="text",
                name=name,
                mode="lines",
                line={
                    "color": theme.SERIES[place % len(theme.SERIES)],
                    "dash": theme.DASHES[place // len(theme.SERIES) % len(theme.DASHES)],
                    "width": 2,
                },
            )
        )
    if len(last.examples) > LINES:
        title += f" (the first {LINES} are drawn)"
    alt = f"Line chart of {min(LINES, len(last.examples))} rows over {_steps(last.step)}: {title}."
    theme.styled(figure, title, alt, x="step", y="probability of the desired label", revision=revision)
    figure.update_yaxes(range=[-0.02, 1.02])
    return figure


def set_figures(steps: Sequence[SetStep], desired: Mapping[str, str], revision: str = "") -> dict[str, go.Figure]:
    """Return the four charts by name."""
    flip = SetStep.all_flipped(steps)
    return {
        "flipped": flipped(steps, desired, revision),
        "probability": probabilities(steps, revision),
        "divergence": divergence(steps, "", flip, revision),
        "retention": retention(steps, "", flip, revision),
    }


def _went(before: float, after: float) -> str:
    return "rose" if after > before else "fell" if after < before else "went"


def _steps(n: int) -> str:
    return f"{n:,} {'step' if n == 1 else 'steps'}"
