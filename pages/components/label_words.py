"""Label events in words. No Streamlit."""

from collections.abc import Sequence

from influence_core.labels import LabelEvent, Verdict

VERDICTS: dict[Verdict, str] = {
    "change": "changed",
    "confirm": "confirmed",
    "unsure": "unsure",
    "skip": "skipped",
    "undo": "undone",
}
ICONS: dict[Verdict, str] = {
    "change": ":material/edit:",
    "confirm": ":material/check:",
    "unsure": ":material/help:",
    "skip": ":material/skip_next:",
}


def event_words(event: LabelEvent) -> str:
    """Say what an event did to a label, as plain text."""
    if event.verdict == "change":
        return f"changed {event.old} → {event.new}"
    if event.verdict == "undo":
        return f"undone, the label is {event.new} again" if event.old != event.new else "undone"
    return {"confirm": f"confirmed {event.new}", "unsure": "marked unsure", "skip": "skipped"}[event.verdict]


def clock(event: LabelEvent) -> str:
    """Write when an event happened: "2026-03-01 14:02:11 UTC"."""
    return f"{event.at[:10]} {event.at[11:19]} UTC"


def standing(history: Sequence[LabelEvent]) -> LabelEvent | None:
    """Return the last decision that was not undone: the one that an undo would undo; None without one."""
    undone = {event.undoes for event in history}
    open_ = (event for event in reversed(history) if event.verdict != "undo" and event.event_id not in undone)
    return next(open_, None)
