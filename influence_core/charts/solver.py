"""How solves of (H + δI) x = b went: residuals by iteration, curvature along the search directions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from influence_core.charts import theme
from influence_core.charts.signed import bars, signed

LINES = ((theme.PROPONENT, "circle"), (theme.OPPONENT, "diamond"), (theme.NEUTRAL, "square"))


@dataclass(frozen=True)
class Solve:
    """What is kept of one query's solve."""

    name: str  # of the solver
    residual: float  # of x: ‖b − (H + δI) x‖/‖b‖
    residuals: np.ndarray  # [iterations + 1] the same by the recurrence, before and after each iteration
    curvatures: np.ndarray  # [iterations] pᵀ(H + δI)p/pᵀp along each search direction, or NaN
    best: int  # iterations after which x stood
    converged: bool
    negative: int  # first iteration (from 0) whose curvature is negative, −1: none
    breakdown: int  # iterations after which Conjugate Residual went over to MINRES, −1: never

    @property
    def words(self) -> str:
        """Say how it went: the residual reached, and whether that was asked for."""
        ended = "converged: its residual is" if self.converged else "did not converge: its best residual was"
        return f"{self.name} {ended} {theme.number(self.residual)} of ‖b‖, after {_iterations(self.best)}."

    @property
    def short(self) -> str:
        """Say what is left of the residual, and how far above ‖b‖ it was on the way."""
        said, highest = f"{self.name}: {theme.number(self.residual)} of ‖b‖ left", float(np.nanmax(self.residuals))
        return f"{said}, up to {theme.number(highest)} on the way" if highest > 1 + 1e-9 else said


def residual_history(solves: Sequence[Solve]) -> go.Figure:
    """Draw the residual norms on a log axis, ‖b‖ as a line, and each solve's best iterate.

    A log axis has no zero: residuals of 0 are left out, as are those that are not finite.
    """
    if not solves:
        return theme.words("No solve is kept yet")
    figure = go.Figure()
    longest = max(len(solve.residuals) for solve in solves) - 1
    figure.add_trace(
        go.Scatter(
            x=[0, max(1, longest)],
            y=[1, 1],
            name="‖b‖",
            mode="lines",
            line={"color": theme.NEUTRAL, "width": 1, "dash": "dot"},
            hoverinfo="skip",
        )
    )
    for solve, (colour, symbol) in zip(solves, LINES, strict=False):
        drawn = [at for at, value in enumerate(solve.residuals) if value > 0 and math.isfinite(value)]
        points = [drawn[at] for at in theme.thin(len(drawn), [solve.best])]
        figure.add_trace(
            go.Scatter(
                x=points,
                y=[float(solve.residuals[at]) for at in points],
                hovertext=[f"iteration {at}: {theme.number(float(solve.residuals[at]))} of ‖b‖" for at in points],
                hoverinfo="text",
                name=theme.inert(solve.name),
                mode="lines+markers" if len(points) <= 60 else "lines",
                line={"color": colour, "width": 2},
                marker={"symbol": symbol, "size": 5},
            )
        )
        if solve.best in drawn:
            name = f"best of {theme.inert(solve.name)}"
            figure.add_trace(
                go.Scatter(
                    x=[solve.best],
                    y=[float(solve.residuals[solve.best])],
                    name=name,
                    showlegend=False,
                    hovertext=[name],
                    hoverinfo="text",
                    mode="markers",
                    marker={"symbol": "star", "size": 13, "color": colour},
                )
            )
    title = "; ".join(solve.short for solve in solves)
    alt = f"Line chart, log axis, of residual norms over {_iterations(longest)}: {title}."
    theme.styled(figure, title, alt, x="iteration", y="residual ‖r‖ / ‖b‖ (log)")
    figure.update_yaxes(type="log", exponentformat="power")
    return figure


def curvatures(solve: Solve) -> go.Figure:
    """Draw the curvature along each search direction as signed bars; what is not a number is left out."""
    drawn = [at for at, value in enumerate(solve.curvatures) if math.isfinite(value)]
    if not drawn:
        return theme.words(f"{solve.name} made no search direction")
    values = solve.curvatures[drawn]
    negative = int((values < 0).sum())
    count = f"{len(drawn):,} search direction{'s' if len(drawn) > 1 else ''}"
    if negative:
        where = f"first at iteration {solve.negative + 1}, down to {signed(float(values.min()))}"
        title = f"{solve.name}: {negative} of {count} curve downwards, {where}"
    else:
        title = f"{solve.name}: none of {count} curves downwards"
    hovers = [f"iteration {at + 1}: {signed(float(solve.curvatures[at]))}" for at in drawn]
    alt = f"Bar chart of the curvature along search directions: {title}."
    figure = theme.styled(go.Figure(), title, alt, x="iteration", y="pᵀHp / pᵀp (asinh scale)")
    bars(figure, [at + 1 for at in drawn], values, hovers)
    return figure


def _iterations(count: int) -> str:
    return "1 iteration" if count == 1 else f"{count:,} iterations"
