"""What keeping a correction would cost, in a sentence (paper, App. L: a correction may break what worked)."""

from typing import Any

from influence_core.charts import number, percent
from influence_core.specs import Split

# More than these is said before a correction is kept; both are part of the sentence.
ACCURACY_DROP = 0.005
LEAST_RETENTION = 0.95
DIGITS = 9  # of a difference of two accuracies, so that a drop by just the limit is not above it


def compared(outcome: dict[str, Any]) -> dict[Split, dict[str, Any]]:
    """Return what a result says of each split, before and after: validation first, then test."""
    found: dict[Split, dict[str, Any]] = {}
    if "validation" in outcome:
        found["validation"] = outcome["validation"]
    if "split" in outcome:
        found[outcome["split"]] = outcome
    return found


def end_retention(outcome: dict[str, Any]) -> float:
    """Return the retention of what would be kept: at the last step, where steps followed the flip."""
    return float(outcome.get("retention_at_end", outcome["retention"]))


def end_halves(outcome: dict[str, Any]) -> tuple[float, float] | None:
    """Return that of the retention rows near to and far from what was corrected; None where it was not read."""
    at = "_at_end" if "retention_at_end" in outcome else ""
    near, far = outcome.get(f"near_retention{at}"), outcome.get(f"far_retention{at}")
    return None if near is None or far is None else (float(near), float(far))


def halves_words(outcome: dict[str, Any], corrected: str = "the corrected one") -> str | None:
    """Say how much of the retention rows near to and far from ``corrected`` was kept; None where it was not read."""
    if (halves := end_halves(outcome)) is None:
        return None
    near, far = map(percent, halves)
    when = " at the end" if "retention_at_end" in outcome else ""
    return (
        f"Retention{when} of the half of these rows most similar to {corrected}, by the model's features: {near}; of "
        f"the others: {far}."
    )


def caution(outcome: dict[str, Any]) -> str | None:
    """Say what got worse by more than the limits, or that nobody looked; None where neither is so.

    ``outcome`` is the run's result, empty where the run ended before its comparison.
    """
    splits = compared(outcome)
    if not splits:
        return (
            "The run ended before the comparison on whole splits: what this does to other rows is not known; run it "
            "again to the end to know it."
        )
    worse = [
        f"accuracy on {split} fell by {number(100 * (about['before'] - about['after']))} points "
        f"({percent(about['before'])} → {percent(about['after'])}; more than {number(100 * ACCURACY_DROP)})"
        for split, about in splits.items()
        if round(about["before"] - about["after"], DIGITS) > ACCURACY_DROP
    ]
    least, halves = f"less than {percent(LEAST_RETENTION)}", end_halves(outcome)
    if (retained := end_retention(outcome)) < LEAST_RETENTION:
        worse.append(f"retention fell to {percent(retained)} ({least})")
    elif halves is not None and min(halves) < LEAST_RETENTION:  # what an average over all rows hides (paper, Sec. 7)
        which = "most" if halves[0] <= halves[1] else "least"
        worse.append(f"retention of the {which} similar rows fell to {percent(min(halves))} ({least})")
    return f"This correction has a price: {'; '.join(worse)}." if worse else None
