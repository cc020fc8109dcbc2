"""What training on a row as well is predicted to do to a test row's loss: Eq. 6, and Eq. 2 beside it."""

import plotly.graph_objects as go

from influence_core.charts import theme
from influence_core.horizons import Forecast


def forecast(value: Forecast, revision: str = "") -> go.Figure:
    """Draw the predicted change of the loss (nats) over steps, for each row: Eq. 6 solid, Eq. 2 dashed, zero a line.

    One row's curves are blue where the loss falls by training on it (it supports the label), orange where it rises.
    """
    figure, single = go.Figure(), len(value.rows) == 1
    for q, row in enumerate(value.rows):
        colour = _colour(value) if single else theme.SERIES[q % len(theme.SERIES)]
        own = "" if single else f"row {theme.label(row, 20)}, "
        for name, curve, dash in (
            ("exact (Eq. 6)", value.exact[q], "solid"),
            ("gradients added up (Eq. 2)", value.additive[q], "dash"),
        ):
            kept = theme.thin(len(curve))
            figure.add_trace(
                go.Scatter(
                    x=kept,
                    y=[curve[at] for at in kept],
                    hovertext=[theme.inert(f"{own}step {at}, {name}: {_signed(curve[at])} nats") for at in kept],
                    hoverinfo="text",
                    name=theme.inert(f"{own}{name}"),
                    legendgroup=row,
                    mode="lines+markers" if len(kept) <= 15 else "lines",
                    line={"color": colour, "width": 2, "dash": dash},
                )
            )
    title = _title(value)
    alt = f"Line chart over {_steps(value.steps)}: {title[0].lower()}{title[1:]}."
    theme.styled(figure, title, alt, x="step", y="change of the loss (nats)", revision=revision)
    figure.add_hline(y=0, line={"color": theme.NEUTRAL, "width": 1})
    figure.update_yaxes(exponentformat="e")
    figure.update_xaxes(dtick=1 if value.steps <= 10 else None)
    return figure


def _title(value: Forecast) -> str:
    """Say what the row is predicted to do by the last step; of several rows, what each does."""
    how = "on this row as well" if value.epsilon > 0 else "less on this row"
    loss, after = f"the loss of “{theme.label(value.target)}”", f"after {_steps(value.steps)}"
    if len(value.rows) > 1:
        pairs = zip(value.rows, value.exact, strict=True)
        ends = (f"{_signed(curve[-1])} by row {theme.label(row, 20)}" for row, curve in pairs)
        single = how.replace("this row", "a single row")
        return f"Training {single} changes {loss} {after} by: {', '.join(ends)}"
    change = value.exact[0][-1]
    if change == 0:
        return f"Training {how} is predicted to leave {loss} as it is {after}"
    does = "lower" if change < 0 else "raise"
    return f"Training {how} is predicted to {does} {loss} by {theme.number(abs(change))} {after}"


def _colour(value: Forecast) -> str:
    per_weight = value.exact[0][-1] / value.epsilon  # of more weight, whatever the sign of ε
    return theme.PROPONENT if per_weight <= 0 else theme.OPPONENT


def _signed(change: float) -> str:
    return ("+" if change > 0 else "−" if change < 0 else "±") + theme.number(abs(change))


def _steps(count: int) -> str:
    return f"{count:,} {'step' if count == 1 else 'steps'}"
