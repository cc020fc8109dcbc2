"""How a trust horizon was found: R(t) over all rows, the random half and the ranking's two ends."""

import plotly.graph_objects as go

from influence_core.charts import theme
from influence_core.charts.fading import fading
from influence_core.horizons import Course, Horizon


def trust(value: Horizon, revision: str = "") -> go.Figure:
    """Draw R(t) with its 95 % bands over steps, the level that the band has to reach, and the horizon."""
    named = {f"all {value.whole.rows} rows": value.whole, "random half": value.random, "two ends": value.ends}
    steps = list(range(1, value.steps + 1))
    figure = fading([{"method": name, "steps": steps, **_curves(course)} for name, course in named.items()], revision)
    if not any(one is not None for one in value.whole.r):
        return theme.words("All scores, or all measured shifts, are equal: there is no correlation to draw", revision)
    title, at = _title(value), value.whole.horizon
    alt = f"Line chart of the correlation over {value.steps:,} steps, with 95 % bands: {title}."
    height = figure.layout.height
    theme.styled(figure, title, alt, x="step", y="R(t), correlation with measured shifts", revision=revision)
    figure.update_layout(height=height)
    figure.add_hline(
        y=value.trust,
        line={"color": theme.NEUTRAL, "width": 1, "dash": "dot"},
        annotation={"text": f"trusted from {theme.number(value.trust)}", "xanchor": "right"},
    )
    if at is not None and at < value.steps:
        figure.add_vline(x=at, line={"color": theme.NEUTRAL, "width": 1, "dash": "dot"})
    return figure


def trusted_from(value: Horizon) -> int:
    """Return the step from which the band's lower end stays at the level until the horizon; 1 where it always does."""
    at = value.whole.horizon or 0
    below = [t for t, low in enumerate(value.whole.low[:at], 1) if low is None or low < value.trust]
    return max(below, default=0) + 1


def _curves(course: Course) -> dict[str, list[float | None]]:
    return {"r": course.r, "low": course.low, "high": course.high}


def _title(value: Horizon) -> str:
    level, at = theme.number(value.trust), value.whole.horizon
    if at is None:
        return f"The band over all {value.whole.rows} rows does not reach {level} where R is largest: not to be trusted"
    if (first := trusted_from(value)) > 1:
        return f"The band over all {value.whole.rows} rows is above {level} from step {first} to step {at}, not before"
    if at == value.steps:
        return f"The band over all {value.whole.rows} rows stays above {level} for all of {_steps(at)}"
    return f"The band over all {value.whole.rows} rows stays above {level} until step {at}"


def _steps(count: int) -> str:
    return f"{count:,} {'step' if count == 1 else 'steps'}"
