"""What influence predicts of a correction, drawn under the live curves, and until when it holds."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from influence_core.charts import theme
from influence_core.events import Step

OFF = 0.1  # in probability, or in nats: from here on a prediction counts as off
ROOM = 0.25  # of the live curves' span, above and below them, that predictions may be drawn in
HEIGHT = 45  # pixels for a curve's name
CURVES = {  # of a Step's fields: {beginning: (name, short name, dash)}
    "predicted": ("predicted by the exact Jacobian (Eq. 6)", "the exact Jacobian (Eq. 6)", "dash"),
    "additive": ("predicted by TracIn's sum (Eq. 2)", "TracIn's sum (Eq. 2)", "dot"),
}


def add_curves(figure: go.Figure, points: Sequence[Step], what: str, within: tuple[float, float]) -> None:
    """Add the predictions of ``what`` (loss, probability), if any, held within a range; hovering tells the value.

    A value that is not there (not finite) leaves a gap.
    """
    low, high = within
    for kind, (name, _, dash) in CURVES.items():
        values = [getattr(step, f"{kind}_{what}") for step in points]
        if all(value is None for value in values):
            continue
        drawn = [None if value is None else min(max(value, low), high) for value in values]
        hover = [
            ""
            if value is None
            else f"step {step.step}, {name}: {theme.number(value)}{'' if value == at else ', beyond the chart'}"
            for step, value, at in zip(points, values, drawn, strict=True)
        ]
        figure.add_trace(
            go.Scatter(
                x=[step.step for step in points],
                y=drawn,
                hovertext=hover,
                hoverinfo="text",
                name=name,
                legendrank=1001,  # behind the live curves, which are drawn over these
                mode="lines" if len(points) > 1 else "markers",
                line={"color": theme.PREDICTED, "width": 1.5, "dash": dash},
            )
        )


def span(steps: Sequence[Step]) -> tuple[float, float]:
    """Return the range that a chart of losses leaves to predictions: the live curves' own with some room."""
    live = [value for step in steps for value in (step.loss, step.base_loss) if math.isfinite(value)]
    if not live:
        return 0.0, 1.0
    low, high = min(live), max(live)
    room = ROOM * (high - low) or ROOM * max(abs(high), 1e-6)
    return low - room, high + room


def with_room(figure: go.Figure) -> go.Figure:
    """Make a figure taller where it has such curves: in a column, each of their names takes a line of the legend."""
    names = {name for name, _, _ in CURVES.values()}
    drawn = sum(trace.name in names for trace in figure.data)
    return figure.update_layout(height=figure.layout.height + HEIGHT * drawn)


def parting(steps: Sequence[Step]) -> str:
    """Say until when the predictions hold, by probability where there is one, else by loss; "" without any."""
    said: dict[str, list[str]] = {}
    for kind, (_, short, _) in CURVES.items():
        what = "probability" if any(getattr(step, f"{kind}_probability") is not None for step in steps) else "loss"
        known = [step for step in steps if getattr(step, f"{kind}_{what}") is not None]
        if known:
            off = [step.step for step in known if abs(getattr(step, f"{kind}_{what}") - getattr(step, what)) > OFF]
            said.setdefault(_held(off, known, what), []).append(short)
    sentences = []
    for words, names in said.items():
        subject = f"What {' and '.join(names)} predict{'' if len(names) > 1 else 's'}"
        sentences.append(f"{subject} {words}.")
    return " ".join(sentences)


def _held(off: Sequence[int], known: Sequence[Step], what: str) -> str:
    last = known[-1].step
    if not off:
        return f"stays within {OFF} of the {what}" + (f" up to step {last:,}" if last else "")
    for_good = [step.step for step in known if step.step >= off[0]] == list(off)
    where = f"from step {off[0]:,} on" if for_good else f"at step {off[0]:,} for the first time"
    return f"is off by more than {OFF} in {what} {where}"
