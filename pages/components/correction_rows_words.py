"""What is said of the rows of B; no Streamlit, so that each sentence is tested alone."""

from collections.abc import Sequence

from influence_core.reports.chosen_rows import ChosenRow
from influence_core.specs import CorrectionSpec

UNKNOWN = "Which rows these are is known once they are ranked."
DRAWN = "Which rows these are is drawn by the seed when it runs."


def title(count: int) -> str:
    """Name the list of the rows."""
    return "The 1 row of B" if count == 1 else f"The {count:,} rows of B"


def sets(spec: CorrectionSpec) -> bool:
    """Whether the correction sets its rows to the desired label, rather than keeping those that they have."""
    return spec.strategy != "opponents" and not spec.only_annotated


def whose(spec: CorrectionSpec, desired: str) -> str:
    """Say with which labels the rows will be trained."""
    labels = f"are set to “{desired}”, in this run and nowhere else" if sets(spec) else "keep the labels that they have"
    return f"The run trains on B beside each of its batches. These rows {labels}."


def stale_before(stale: int, rows: Sequence[ChosenRow]) -> str | None:
    """Say how many training rows were relabelled since they were scored, and how many of B; None for none."""
    if not stale:
        return None
    among = sum(row.stale for row in rows) or "none"
    were = "1 training row was" if stale == 1 else f"{stale:,} training rows were"
    again = "it" if stale == 1 else "them"
    return (
        f"{were} relabelled since the rows were scored (in B: {among}): the run scores {again} again where it can, and "
        "may then take other rows."
    )


def set_already(spec: CorrectionSpec, rows: Sequence[ChosenRow], desired: str) -> str | None:
    """Say how many rows have the desired label before they are set to it; None for none, or where none is set."""
    count = sum(row.label == desired for row in rows) if sets(spec) else 0
    if not count:
        return None
    which = "All of B's rows are" if count == len(rows) else f"{count:,} of B's rows {'is' if count == 1 else 'are'}"
    them = "it" if count == 1 else "them"
    return f"{which} labelled “{desired}” already: setting {them} changes nothing."
