"""What can be run after a correction that is over: the same again, the same for longer, another strategy."""

from functools import partial
from typing import Any

import streamlit as st

from influence_core.runs.directory import RunDirectory
from influence_core.specs import MOST_STEPS, AnyCorrection, CorrectionSetSpec
from pages.components.correction_comparison import beside
from pages.components.correction_words import STRATEGIES, steps
from pages.components.errors import shown_errors
from pages.components.submitting import submit_button

FURTHER = 10  # steps
LIMITS = {
    "retention_at_stop": "the limit on retention ended it",
    "validation_loss_at_stop": "the limit on the validation loss ended it",
}


def again_button(run: RunDirectory, spec: AnyCorrection) -> None:
    """Offer the same correction once more."""
    with shown_errors():
        tip = "the same settings, the same seed"
        submit_button("Run again", f"again_{run.id}", spec, run.record().what, icon=":material/replay:", tip=tip)


def further_button(run: RunDirectory, spec: AnyCorrection, outcome: dict[str, Any]) -> None:
    """Offer the same correction, gone on for some steps; disabled where a limit or the largest number is in the way."""
    label, place, icon = f"+{FURTHER} steps", f"further_{run.id}", ":material/fast_forward:"
    if (why := no_further(outcome)) is not None:
        st.button(label, key=place, icon=icon, disabled=True, help=why)
        return
    longer = further(spec, outcome)
    more = steps(longer_by(outcome))
    tip = f"the same steps again, if no label was changed since, and {more} more; this run stays as it is"
    with shown_errors():
        submit_button(label, place, longer, run.record().what, icon=icon, tip=tip)


def no_further(outcome: dict[str, Any]) -> str | None:
    """Return why a correction cannot go on, in words; None where it can."""
    for name, why in LIMITS.items():
        if name in outcome:
            return f"{why}: choose another one under Change the settings"
    return None if longer_by(outcome) > 0 else f"it has made {MOST_STEPS:,} steps, the most there are"


def longer_by(outcome: dict[str, Any]) -> int:
    """Return how many steps more there can be."""
    return min(FURTHER, MOST_STEPS - reached(outcome))


def reached(outcome: dict[str, Any]) -> int:
    """Return the last step of a correction."""
    return int(outcome["steps"])


def further(spec: AnyCorrection, outcome: dict[str, Any]) -> AnyCorrection:
    """Return the spec of the same run with more steps: after the flip where there was one, else before it ends.

    Batches are drawn by seed and step, so its first steps are those of the run that it goes on from.
    """
    last = reached(outcome) + longer_by(outcome)
    flip = outcome["flip_step"]
    wanted: dict[str, Any] = {"steps": max(last, spec.steps) if flip is not None else last}
    if flip is not None:
        wanted["after_flip"] = last - int(flip)
    return spec.model_copy(update=wanted)


def with_strategy(spec: AnyCorrection, strategy: str) -> AnyCorrection:
    """Return the spec with another strategy; a weight for each group only where the groups are known to be the same."""
    changed: dict[str, Any] = {"strategy": strategy}
    if isinstance(spec, CorrectionSetSpec) and spec.epsilons and spec.group_by in ("annotator", "given"):
        changed |= {"epsilons": (), "epsilon": sum(spec.epsilons)}  # these rows may be of more or fewer groups
    return spec.model_copy(update=changed)


def control_button(run: RunDirectory, spec: AnyCorrection, what: str) -> None:
    """Offer to run another strategy with the settings of a run, the random control first."""
    others = sorted((name for name in STRATEGIES if name != spec.strategy), key=lambda name: name != "random")
    chosen = st.selectbox(
        "Another strategy",
        others,
        format_func=STRATEGIES.__getitem__,
        key=f"control_strategy_{run.id}",
        label_visibility="collapsed",
        width=280,
    )
    label, control, name = "Run it with the same settings", with_strategy(spec, chosen), f"{what} ({chosen})"
    finished = run.state().state == "finished"
    both = partial(beside, other=run.id) if finished else None
    tip = "and see both on the same charts when it is over" if finished else None
    with shown_errors():
        submit_button(label, f"control_{run.id}", control, name, icon=":material/casino:", tip=tip, on_submit=both)
