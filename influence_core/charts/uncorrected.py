"""The control that costs nothing on charts that compare corrections: the same batches without correction, dotted."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from influence_core.charts import theme
from influence_core.charts.followed import Followed
from influence_core.events import AnyStep, SetStep

SAME = 1e-3  # probabilities no further apart are one curve on a chart
DASHES = ("dot", "3px,9px", "3px,15px")  # of several such curves


def shared(runs: Sequence[Followed]) -> list[list[Followed]]:
    """Group runs by the run without correction that they have in common.

    Its settings decide it. Where what was read of it still differs (labels changed in between, say), it is not
    taken for the same.
    """
    groups: list[list[Followed]] = []
    for run in runs:
        alike = [group for group in groups if group[0].settings == run.settings]
        own = next((group for group in alike if all(_agree(run, each) for each in group)), None)
        if own is None:
            groups.append([run])
        else:
            own.append(run)
    return groups


def add_uncorrected(figure: go.Figure, runs: Sequence[Followed], desired: Mapping[str, str]) -> str:
    """Draw each distinct run without correction once, as far as the longest of those that share it went.

    Of one row its probability, of several how many are as desired (labels by example). Returns what the title
    adds: when rows flip by themselves, nothing where none does.
    """
    groups, flipping = shared(runs), False
    flips: dict[str, list[str]] = {}  # how rows flip -> the runs beside which they do
    for number, group in enumerate(groups):
        longest = max(group, key=lambda run: len(run.steps))
        names = " and ".join(run.short for run in group)
        flipping |= any(step is not None for step in longest.by_itself(desired))
        flips.setdefault(_flips(longest, desired), []).append(names)
        name = theme.inert("without correction" + (f", of {names}" if len(groups) > 1 else ""))
        points = [longest.steps[at] for at in theme.thin(len(longest.steps))]
        values = [_value(step, desired) for step in points]
        figure.add_trace(
            go.Scatter(
                x=[step.step for step in points],
                y=values,
                name=name,
                hovertext=[
                    f"step {step.step}, {name}: {theme.number(value)}"
                    for step, value in zip(points, values, strict=True)
                ],
                hoverinfo="text",
                mode="lines",
                line={
                    "color": theme.NEUTRAL,
                    "width": 2,
                    "dash": DASHES[number % len(DASHES)],
                    "shape": "hv" if isinstance(longest.steps[0], SetStep) else "linear",
                },
            )
        )
    if not flipping:
        return ""
    said = [how if len(flips) == 1 else f"{how} ({' and '.join(whose)})" for how, whose in flips.items()]
    return f"; without correction {', '.join(said)}"


def _flips(run: Followed, desired: Mapping[str, str]) -> str:
    alone = run.by_itself(desired)
    flips = [step for step in alone if step is not None]
    if isinstance(run.steps[0], SetStep):
        return f"{len(flips) or 'none'} of {len(alone)} flip by themselves"
    return f"it flips by itself at step {flips[0]:,}" if flips else "it does not"


def _value(step: AnyStep, desired: Mapping[str, str]) -> float:
    if isinstance(step, SetStep):
        return sum(each.base_prediction == desired[each.example] for each in step.examples)
    return step.base_probability


def _agree(one: Followed, other: Followed) -> bool:
    read = [[_read(step) for step in run.steps] for run in (one, other)]
    return all(_near(*pair) for pair in zip(*read, strict=False))  # as far as both went


def _read(step: AnyStep) -> dict[str, float]:
    if isinstance(step, SetStep):
        return {each.example: each.base_probability for each in step.examples}
    return {"": step.base_probability}


def _near(one: dict[str, float], other: dict[str, float]) -> bool:
    return one.keys() == other.keys() and all(abs(value - other[name]) <= SAME for name, value in one.items())
