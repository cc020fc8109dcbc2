"""The runs that are compared as a table: what each reached, what happens without it, what it cost, how it was made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from influence_core.charts import percent
from influence_core.charts.followed import Followed
from influence_core.charts.uncorrected import shared
from influence_core.events import SetStep
from influence_core.reports.cautions import compared
from influence_core.specs import AnyCorrection, CorrectionSetSpec, Split
from influence_core.workspace import Workspace
from pages.components import correction_set_words
from pages.components.correction_words import change_words, optimizer_words, rows_words, share_words

UNKNOWN = "–"


@dataclass(frozen=True)
class Compared:
    """A run that is compared: what was asked for, its course, and its result (empty where it ended before one)."""

    spec: AnyCorrection
    course: Followed
    outcome: dict[str, Any]


def compared_table(workspace: Workspace, runs: Sequence[Compared], desired: Mapping[str, str]) -> None:
    """Show the table; ``desired`` are labels by corrected example."""
    split, alone = _common(runs), _by_themselves(runs, desired)
    rows = [
        {
            "run": each.course.name,
            **_reached(each, desired, alone.get(place, [])),
            **_cost(each.outcome, split),
            **_made(workspace, each.spec),
        }
        for place, each in enumerate(runs)
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True, key="compared_table", alt="The runs that are compared")


def _by_themselves(runs: Sequence[Compared], desired: Mapping[str, str]) -> dict[int, list[int | None]]:
    """Return by place when rows flip without correction, as far as the longest run with the same base went."""
    places = {id(each.course): place for place, each in enumerate(runs)}
    found: dict[int, list[int | None]] = {}
    for group in shared([each.course for each in runs if each.course.steps]):
        alone = max(group, key=lambda course: len(course.steps)).by_itself(desired)
        found |= {places[id(course)]: alone for course in group}
    return found


def _reached(run: Compared, desired: Mapping[str, str], alone: Sequence[int | None]) -> dict[str, str]:
    course = run.course
    if not course.steps:
        names = ("as desired at the end", "all at") if isinstance(run.spec, CorrectionSetSpec) else ("flip",)
        return dict.fromkeys((*names, "by itself", "retention"), UNKNOWN)
    flip, last = course.flip(desired), course.steps[-1]
    when = "none" if flip is None else f"step {flip}"
    at = next((step for step in course.steps if step.step == flip), last)
    if isinstance(last, SetStep):
        of = len(last.examples)
        found = {"as desired at the end": f"{last.flipped} of {of}", "all at": when}
        found["by itself"] = f"{sum(step is not None for step in alone)} of {of}"
    else:
        found = {"flip": when, "by itself": "no" if alone[0] is None else f"step {alone[0]}"}
    return {**found, "retention": percent(at.retention)}


def _common(runs: Sequence[Compared]) -> Split | None:
    """Return the split to compare by: validation if all that have a result looked at it, otherwise the example's."""
    looked = [found for each in runs if (found := compared(each.outcome))]
    return next((split for split in looked[0] if all(split in found for found in looked)), None) if looked else None


def _cost(outcome: dict[str, Any], split: Split | None) -> dict[str, str]:
    if split is None:
        return {}
    names = (f"accuracy on {split}", f"fixed in {split}", f"broken in {split}")
    about = compared(outcome).get(split)
    if about is None:
        return dict.fromkeys(names, UNKNOWN)
    counts = (f"{len(about[change]):,}" for change in ("fixed", "broken"))
    return dict(zip(names, (change_words(float(about["before"]), float(about["after"])), *counts), strict=True))


def _made(workspace: Workspace, spec: AnyCorrection) -> dict[str, str]:
    checkpoint = workspace.checkpoint(spec.checkpoint)
    weight = correction_set_words.share_words(spec) if isinstance(spec, CorrectionSetSpec) else share_words(spec)
    return {
        "rows": rows_words(spec),
        "checkpoint": checkpoint.name,
        "weight": weight,
        "optimizer": optimizer_words(spec, checkpoint),
        "seed": str(spec.seed),
    }
