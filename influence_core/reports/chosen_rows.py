"""The rows of B one by one: the label that each had, the one it was trained with, who had decided on it."""

from collections.abc import Iterable
from dataclasses import dataclass

from influence_core.labels.events import LabelEvent
from influence_core.rankings import Ranking
from influence_core.reports.facts import Correction


@dataclass(frozen=True)
class ChosenRow:
    """A row of B; labels by name."""

    id: str
    label: str  # as it stood
    trained: str  # that l_B uses
    decided: LabelEvent | None = None  # the last decision on it
    stale: bool = False  # the ranking scored it by a label that it no longer had
    group: str | None = None  # of several


def chosen_rows(correction: Correction) -> list[ChosenRow]:
    """Return the rows that a correction was trained on, [k]; one that several groups have is there as often."""
    last = {event.example: event for event in correction.label_events}
    changed = {row for ranking in correction.rankings for row in stale_ids(ranking)}
    groups = [each["name"] for each in correction.manifest.get("groups", ()) for _ in each["rows"]]
    columns = (correction.rows, correction.labels, correction.row_labels, groups or [None] * len(correction.rows))
    return [
        ChosenRow(row, label, trained, last.get(row), row in changed, group)
        for row, label, trained, group in zip(*columns, strict=True)
    ]


def stale_ids(ranking: Ranking) -> set[str]:
    """Return which of the rows that a ranking lists it scored by a label that they no longer had."""
    return {row.id for row in (*ranking.proponents, *ranking.opponents) if row.stale}


def stale_words(correction: Correction, rows: Iterable[ChosenRow]) -> str | None:
    """Say how many training rows a correction's ranking scored by earlier labels, and how many of B; None for none.

    Which they are is known where the ranking was recorded.
    """
    if not (stale := correction.manifest["stale"]):
        return None
    said = scored_before(stale)
    among = f" (in B: {len({row.id for row in rows if row.stale}) or 'none'})" if correction.rankings else ""
    return f"{said}{among}: build the index to refresh."


def scored_before(stale: int) -> str:
    """Say that so many training rows, at least one, were scored by earlier labels."""
    if stale == 1:
        return "1 training row was scored by a label it no longer has"
    return f"{stale:,} training rows were scored by labels they no longer have"
