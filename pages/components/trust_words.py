"""How far a ranking can be trusted, in words; no Streamlit, so that each sentence is tested alone."""

from influence_core.charts import number
from influence_core.charts.trust import trusted_from
from influence_core.horizons import Course, Horizon

HOW = {"adam": "Adam", "sgd": "SGD"}
STATES = {"checkpoint": "the checkpoint's state", "warm": "a warmed state", "zeros": "no moments at first"}
NEVER_MEASURED = "Trusted for how many steps: not measured yet."


def headline(value: Horizon) -> str:
    """Say for how many steps to trust the ranking, and why if not one."""
    at, steps = value.whole.horizon, value.steps
    if at is None:
        return f"Not to be trusted: {_shortfall(value)}."
    if (first := trusted_from(value)) > 1:
        return (
            f"Trusted from step {first} to step {at}, not before (Σ η = {number(value.integrated_lr or 0.0)} at {at})."
        )
    about = f"at least {_steps(at)}" if at == steps else f"about {_steps(at)}"
    until = ", as far as it was measured" if at == steps else ""
    return f"Trusted for {about} (Σ η = {number(value.integrated_lr or 0.0)}){until}."


def measured(value: Horizon) -> str:
    """Say on what it was measured."""
    rows, rate = value.whole.rows, number(value.learning_rate)
    times = "" if value.repeats == 1 else f", {value.repeats:,} times"
    short = "" if value.repeats == value.repeats_asked else f" of {value.repeats_asked:,} asked for"
    return (
        f"Measured on {rows} rows{times}{short}, half of them random, half from the ranking's two ends: training with "
        f"{HOW[value.optimizer]} ({STATES[value.state]}, learning rate {rate}, batches of {value.batch_size:,}) on the "
        f"loss with each row's weight changed by {number(value.epsilon)}, and reading the loss of “{value.target}”."
    )


def band(value: Horizon) -> str:
    """Say what the band means and when it counts as trust."""
    counts = (
        f"Steps count up to the last one, from the largest R on, at which the lower end of the 95 % band of R(t), the "
        f"correlation of {value.by}s with measured shifts, still is at {number(value.trust)} or above; where it was "
        "below before, the first step from which it is not is named."
    )
    if value.repeats == 1:
        return f"{counts} The band is a bootstrap over these {value.whole.rows} rows and knows of no others."
    few = "" if value.repeats >= 5 else " With fewer than 5 it is wide whatever happens."
    own = "each with other random rows and batches; the rows at the ends are the same each time"
    return f"{counts} The band is a t-interval over {value.repeats:,} repeats, {own}.{few}"


def halves(value: Horizon) -> str:
    """Say how the random half and the two ends do by themselves."""
    random, ends = (_alone(course, value.steps) for course in (value.random, value.ends))
    return f"The {value.random.rows} random rows alone: {random}. The {value.ends.rows} at the two ends alone: {ends}."


def _alone(course: Course, steps: int) -> str:
    if course.horizon is None:
        return "not one step"
    return f"{'at least' if course.horizon == steps else 'about'} {_steps(course.horizon)}"


def _shortfall(value: Horizon) -> str:
    peak, level = value.whole.peak, number(value.trust)
    if peak is None:
        return "all scores, or all measured shifts, are equal, so that there is no correlation"
    best, low = value.whole.r[peak - 1] or 0.0, value.whole.low[peak - 1]
    if best < value.trust:
        return f"R never reaches {level}, at most {number(best)} (step {peak})"
    reaches = "is not known" if low is None else f"begins at {number(low)}"
    return f"R peaks at {number(best)} (step {peak}), but its band {reaches} there, below {level}"


def _steps(count: int) -> str:
    return f"{count:,} {'step' if count == 1 else 'steps'}"
