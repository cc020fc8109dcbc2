"""The list of training rows that an annotator works through; ids only, never positions."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Queue:
    """Training row ids in the order to review, and which of them are reviewed."""

    ids: tuple[str, ...]
    reviewed: frozenset[str]

    @classmethod
    def of(cls, ids: Sequence[str], reviewed: Collection[str]) -> "Queue":
        """Make a queue; reviewed rows outside the list do not count."""
        return cls(tuple(ids), frozenset(reviewed) & frozenset(ids))

    @property
    def done(self) -> int:
        """How many rows of the list are reviewed."""
        return len(self.reviewed)

    def first(self) -> str | None:
        """Return the first row that is not reviewed yet; None when all are."""
        return next((row for row in self.ids if row not in self.reviewed), None)

    def after(self, row: str) -> str | None:
        """Return the next row that is not reviewed, from ``row`` on and around; None when all others are."""
        start = self.ids.index(row) + 1 if row in self.ids else 0
        around = [*self.ids[start:], *self.ids[:start]]
        return next((other for other in around if other != row and other not in self.reviewed), None)

    def words(self) -> str:
        """Say how far the review is."""
        return f"{self.done:,} of {len(self.ids):,} reviewed"
