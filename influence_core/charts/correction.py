"""Four charts of a correction, from its steps: probability, loss, divergence, retention.

All take the steps in order from step 0 (as yielded so far, so a live run can redraw them), the desired
label, and the step of the flip; None as the flip step means that there was none up to now. Titles say
what the data shows, at the flip if there was one, otherwise at the last step.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import plotly.graph_objects as go

from influence_core.charts import theme
from influence_core.charts.predicted import add_curves, parting, span, with_room
from influence_core.events import AnyStep, SetStep, Step

S = TypeVar("S", Step, SetStep)

NEAR_AND_FAR: tuple[tuple[str, Callable[[AnyStep], float | None], str], ...] = (
    ("the similar half", lambda step: step.near_retention, "dash"),
    ("the others", lambda step: step.far_retention, "dot"),
)


def not_yet(what: str, revision: str) -> go.Figure:
    """Return the chart of a run's quantity before its first step: empty, in words."""
    return theme.words(f"{what}: no steps yet", revision)


def find_flip(steps: Sequence[Step], desired: str) -> int | None:
    """Return the first step whose prediction is the desired label, None if there is none."""
    return next((step.step for step in steps if step.prediction == desired), None)


def probability(steps: Sequence[Step], desired: str, flip_step: int | None, revision: str = "") -> go.Figure:
    """Draw the probability of the desired label, with the uncorrected run dotted beside it and the flip marked.

    Where influence predicted it, also by Eq. 6 (dashed) and Eq. 2 (dotted), and so in `loss`.
    """
    name = f"Probability of “{theme.label(desired)}”"
    if not steps:
        return not_yet(name, revision)
    title = f"{name} {_course(steps, flip_step, lambda step: step.probability)}"
    if flip_step is None:
        title += "; no flip so far" if len(steps) > 1 else ""
    own = next((step.step for step in steps if step.base_prediction == desired), None)
    if own is not None and flip_step != 0:
        title += f"; without correction it flips at step {own}"
    figure = _two_lines(steps, flip_step, "probability", (0.0, 1.0))
    alt = f"Line chart of the test row's probability over {_count(steps)}: {title[0].lower()}{title[1:]}."
    alt = f"{alt} {parting(steps)}".rstrip()
    theme.styled(
        figure, title, alt, x="step", y=f"probability of “{theme.inert(theme.label(desired))}”", revision=revision
    )
    figure.update_yaxes(range=[-0.02, 1.02])
    return _whole_steps(with_room(figure), steps)


def loss(steps: Sequence[Step], desired: str, flip_step: int | None, revision: str = "") -> go.Figure:
    """Draw the loss (nats) of the desired label, with the uncorrected run dotted beside it and the flip marked."""
    name = f"Loss of “{theme.label(desired)}”"
    if not steps:
        return not_yet(name, revision)
    title = f"{name} {_course(steps, flip_step, lambda step: step.loss, ' nats')}"
    low, high = span(steps)
    figure = _two_lines(steps, flip_step, "loss", (low, high))
    alt = f"Line chart of the test row's loss over {_count(steps)}: {title[0].lower()}{title[1:]}."
    alt = f"{alt} {parting(steps)}".rstrip()
    theme.styled(figure, title, alt, x="step", y="loss (nats)", revision=revision)
    return _whole_steps(with_room(figure), steps)


def divergence(steps: Sequence[S], desired: str, flip_step: int | None, revision: str = "") -> go.Figure:
    """Draw ‖θ_ε − θ_0‖ on a log axis against Σ η, the learning rate summed over steps (paper, Sec. 5.1).

    A log axis has no zero: such steps (step 0 at least) are left out, as are distances that are not
    finite, and a note says how many.
    """
    if not steps:
        return not_yet("Distance from the uncorrected run", revision)
    drawn = [step for step in steps if step.divergence > 0 and math.isfinite(step.divergence)]
    if not drawn:
        return theme.words("No distance from the uncorrected run to draw so far", revision)
    end = _flip(steps, flip_step) or steps[-1]
    reached = "reached" if end.divergence > 0 else "was"
    title = f"Distance from the uncorrected run {reached} {theme.number(end.divergence)} {_when(end, flip_step)}"
    figure = go.Figure()
    kept = theme.thin(len(drawn), [at for at, step in enumerate(drawn) if step.step == flip_step])
    points = [drawn[at] for at in kept]
    figure.add_trace(
        go.Scatter(
            x=[step.integrated_lr for step in points],
            y=[step.divergence for step in points],
            hovertext=[
                f"step {step.step}: {theme.number(step.divergence)} at Σ η {theme.number(step.integrated_lr)}"
                for step in points
            ],
            hoverinfo="text",
            name="distance",
            mode=_mode(points),
            line={"color": theme.PROPONENT, "width": 2},
        )
    )
    _mark_flip(figure, drawn, flip_step, lambda step: step.integrated_lr, lambda step: step.divergence)
    alt = f"Line chart, log axis, of the parameter distance over {_count(steps)}: {title[0].lower()}{title[1:]}."
    theme.styled(
        figure,
        title,
        alt,
        x="Σ η (learning rate summed over steps)",
        y="distance ‖θ_ε − θ_0‖ (log)",
        revision=revision,
    )
    figure.update_xaxes(exponentformat="e")
    figure.update_yaxes(type="log", exponentformat="power")
    zero = sum(step.divergence == 0 for step in steps)
    broken = len(steps) - len(drawn) - zero
    notes = [f"{zero:,} at distance 0"] * bool(zero) + [f"{broken:,} not finite"] * bool(broken)
    if notes:
        figure.add_annotation(
            text=f"steps not drawn: {', '.join(notes)}",
            xref="paper",
            yref="paper",
            x=1,
            y=0,
            xanchor="right",
            yanchor="bottom",
            showarrow=False,
        )
    return figure


def retention(steps: Sequence[S], desired: str, flip_step: int | None, revision: str = "") -> go.Figure:
    """Draw the share (%) of the retention rows that are predicted as at step 0, with the flip marked.

    Quieter beside it, where they were read: the half most similar to the corrected row, and the rest.
    """
    if not steps:
        return not_yet("Retention", revision)
    end = _flip(steps, flip_step) or steps[-1]
    before, now = theme.percent(steps[0].retention), theme.percent(end.retention)
    moved = "stayed at" if now == before else "fell to" if end.retention < steps[0].retention else "rose to"
    if end is steps[0]:
        moved = "is"
    title = f"Retention {moved} {now} {_when(end, flip_step)}"
    if end.changed:
        title += f", {len(end.changed):,} {'row' if len(end.changed) == 1 else 'rows'} changed"
    title += _halves(end)
    figure = go.Figure()
    kept = theme.thin(len(steps), _positions(steps, flip_step))
    points = [steps[at] for at in kept]
    lowest = min(100 * step.retention for step in steps)
    for name, value, dash in NEAR_AND_FAR:
        read = [(step, found) for step in points if (found := value(step)) is not None]
        if read:
            lowest = min(lowest, *(100 * found for _, found in read))
            figure.add_trace(
                go.Scatter(
                    x=[step.step for step, _ in read],
                    y=[100 * found for _, found in read],
                    hovertext=[f"step {step.step}, {name}: {theme.percent(found)}" for step, found in read],
                    hoverinfo="text",
                    name=name,
                    mode="lines",
                    line={"color": theme.NEUTRAL, "width": 1.5, "dash": dash, "shape": "hv"},
                )
            )
    figure.add_trace(
        go.Scatter(
            x=[step.step for step in points],
            y=[100 * step.retention for step in points],
            hovertext=[
                f"step {step.step}: {theme.percent(step.retention)}, {len(step.changed):,} changed" for step in points
            ],
            hoverinfo="text",
            name="retention",
            mode=_mode(points),
            line={"color": theme.PROPONENT, "width": 2, "shape": "hv"},
        )
    )
    _mark_flip(figure, steps, flip_step, lambda step: step.step, lambda step: 100 * step.retention)
    alt = f"Line chart of retention over {_count(steps)}: {title[0].lower()}{title[1:]}."
    theme.styled(figure, title, alt, x="step", y="retention (%)", revision=revision)
    figure.update_yaxes(range=[min(lowest - 2, 88), 101])
    return _whole_steps(figure, steps)


def _halves(end: AnyStep) -> str:
    """Say how the similar half and the rest stand; nothing where they were not read or nothing changed."""
    near, far = end.near_retention, end.far_retention
    if near is None or far is None or not end.changed:
        return ""
    return f": {theme.percent(near)} of the similar half, {theme.percent(far)} of the others"


def _two_lines(steps: Sequence[Step], flip_step: int | None, what: str, within: tuple[float, float]) -> go.Figure:
    """Draw a value with correction and without, and what was predicted of it within a range, where it was."""
    figure = go.Figure()
    points = [steps[at] for at in theme.thin(len(steps), _positions(steps, flip_step))]
    add_curves(figure, points, what, within)
    for name, field, line in (
        ("with correction", what, {"color": theme.PROPONENT, "width": 2}),
        ("without correction", f"base_{what}", {"color": theme.NEUTRAL, "width": 2, "dash": "dot"}),
    ):
        figure.add_trace(
            go.Scatter(
                x=[step.step for step in points],
                y=[getattr(step, field) for step in points],
                hovertext=[f"step {step.step}, {name}: {theme.number(getattr(step, field))}" for step in points],
                hoverinfo="text",
                name=name,
                mode=_mode(points),
                line=line,
            )
        )
    _mark_flip(figure, steps, flip_step, lambda step: step.step, lambda step: getattr(step, what))
    return figure


def _whole_steps(figure: go.Figure, steps: Sequence[AnyStep]) -> go.Figure:
    if len(steps) <= 10:  # with so few steps plotly would put ticks between them
        figure.update_xaxes(dtick=1)
    return figure


def _mark_flip(
    figure: go.Figure,
    steps: Sequence[S],
    flip_step: int | None,
    x: Callable[[S], float],
    y: Callable[[S], float],
) -> None:
    flip = _flip(steps, flip_step)
    if flip is None:
        return
    name = f"flip at step {flip.step}"
    figure.add_trace(
        go.Scatter(
            x=[x(flip)],
            y=[y(flip)],
            name=name,
            hovertext=[name],
            hoverinfo="text",
            mode="markers",
            marker={"symbol": "star", "size": 14, "color": theme.PROPONENT},
        )
    )


def _course(steps: Sequence[Step], flip_step: int | None, value: Callable[[Step], float], unit: str = "") -> str:
    """Say how a value went from step 0 to the flip, or to the last step."""
    first, end = steps[0], _flip(steps, flip_step) or steps[-1]
    before, now = theme.number(value(first)), theme.number(value(end))
    when = _when(end, flip_step)
    if end is first:
        return f"is {now}{unit} {when}"
    if before == now:
        return f"stayed at {now}{unit} {when}"
    if value(first) < value(end):
        moved = "rose"
    elif value(first) > value(end):
        moved = "fell"
    else:  # not a number on either side
        moved = "went"
    return f"{moved} from {before} to {now}{unit} {when}"


def _when(end: AnyStep, flip_step: int | None) -> str:
    if end.step == flip_step:
        return "at the flip" if end.step else "at step 0, where the label is predicted already"
    return f"after {end.step:,} {'step' if end.step == 1 else 'steps'}" if end.step else "at step 0"


def _flip(steps: Sequence[S], flip_step: int | None) -> S | None:
    return next((step for step in steps if step.step == flip_step), None)


def _positions(steps: Sequence[AnyStep], flip_step: int | None) -> list[int]:
    return [at for at, step in enumerate(steps) if step.step == flip_step]


def _count(steps: Sequence[AnyStep]) -> str:
    return f"{len(steps) - 1:,} {'step' if len(steps) == 2 else 'steps'}"


def _mode(points: Sequence[AnyStep]) -> str:
    # A line of one point draws nothing; many markers hide the line.
    return "lines+markers" if len(points) <= 60 else "lines"
