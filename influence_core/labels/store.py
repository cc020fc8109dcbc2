"""The label store: compare-and-set into an insert-only log, and folds of that log."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select

from influence_core.errors import UserError
from influence_core.labels.database import Database, label_events
from influence_core.labels.events import LabelConflict, LabelEvent, Verdict, checked_text, stale, uuid_hex
from influence_core.labels.queries import bounds, by_id, events_of, insert, last_labels

_columns = label_events.c


@dataclass(frozen=True)
class LabelChange:
    """A wish to set one example's label; ``expect`` None means "whatever it is now"."""

    example: str
    new: str
    original: str  # the dataset's own label
    expect: str | None = None
    note: str = ""


class LabelStore:
    """Label events in SQL, for any number of processes and threads.

    The current label of an example is the fold of its events over the dataset's own label. Every
    method that takes a ``data_fingerprint`` sees that dataset's events only. Reads take no write
    lock; a write is one short transaction that compares and sets.
    """

    def __init__(self, url: str | None = None) -> None:
        self._database = Database(url)  # None: INFLUENCE_DATABASE_URL, else labels.sqlite in the home

    def relabel(
        self,
        workspace: str,
        data_fingerprint: str,
        example: str,
        new: str,
        expect: str,
        original: str,
        annotator: str,
        note: str = "",
        verdict: Verdict | None = None,
        event_id: str | None = None,
        source: str = "",
    ) -> LabelEvent:
        """Record a decision about one label and return the stored event.

        Args:
            workspace: the workspace's name.
            data_fingerprint: the dataset's fingerprint.
            example: the row's id.
            new: the label from now on (equal to ``expect`` for confirm, unsure, skip).
            expect: the label that the annotator saw.
            original: the dataset's own label, current as long as there is no event.
            annotator: who decides.
            note: free text.
            verdict: None means "change" if the label changes, else "confirm".
            event_id: a UUID made by the form that submits; the same id again returns the first event.
            source: a run's id, "cli", a file's name.

        Raises:
            LabelConflict: the current label is not ``expect``; both values are named.
            UserError: an empty or unstorable text, a verdict that does not fit, a reused event id.
        """
        event = LabelEvent(
            event_id=uuid_hex(event_id),
            at=_now(),
            annotator=checked_text("annotator", annotator),
            workspace=checked_text("workspace", workspace),
            data_fingerprint=checked_text("data fingerprint", data_fingerprint),
            example=checked_text("example", example),
            old=checked_text("expected label", expect),
            new=checked_text("label", new),
            verdict=_fitting_verdict(verdict, new, expect),
            note=checked_text("note", note, empty=True),
            source=checked_text("source", source, empty=True),
        )
        with self._database.writing() as connection:
            stored = by_id(connection, event.event_id)
            if stored is not None:
                return _same_request(stored, event)
            history = events_of(connection, data_fingerprint, example)
            current = history[-1].new if history else original
            if current != expect:
                raise stale(example, expect, current)
            return insert(connection, [event])[0]

    def relabel_many(
        self,
        workspace: str,
        data_fingerprint: str,
        changes: Sequence[LabelChange],
        annotator: str,
        source: str = "",
        dry_run: bool = False,
    ) -> tuple[list[LabelEvent], list[LabelConflict]]:
        """Set many labels in one transaction: all of them or, with any conflict, none.

        Rows that already have the wanted label add no event. Returns the events (with ``dry_run``
        those that would be written, without ``seq``) and the conflicts, both in the order given.
        """
        checked_text("annotator", annotator)
        checked_text("workspace", workspace)
        checked_text("data fingerprint", data_fingerprint)
        for change in changes:
            checked_text("example", change.example)
            checked_text("label", change.new)
            checked_text("note", change.note, empty=True)
        transaction = self._database.reading if dry_run else self._database.writing
        with transaction() as connection:
            labels = last_labels(connection, data_fingerprint)
            events: list[LabelEvent] = []
            conflicts: list[LabelConflict] = []
            for change in changes:
                current = labels.get(change.example, change.original)
                if current == change.new:
                    continue
                if change.expect is not None and change.expect != current:
                    conflicts.append(stale(change.example, change.expect, current))
                    continue
                labels[change.example] = change.new
                events.append(
                    LabelEvent(
                        event_id=uuid_hex(None),
                        at=_now(),
                        annotator=annotator,
                        workspace=workspace,
                        data_fingerprint=data_fingerprint,
                        example=change.example,
                        old=current,
                        new=change.new,
                        verdict="change",
                        note=change.note,
                        source=checked_text("source", source, empty=True),
                    )
                )
            if dry_run:
                return events, conflicts
            return ([] if conflicts else insert(connection, events)), conflicts

    def undo(self, event_id: str, annotator: str, note: str = "", source: str = "") -> LabelEvent:
        """Compensate an event by another that restores the label from before it; both rows stay.

        Undoing twice returns the first undo while it still stands.

        Raises:
            LabelConflict: the label was changed after the event, by a change that still stands.
            UserError: an unknown event, or one that is itself an undo.
        """
        checked_text("annotator", annotator)
        with self._database.writing() as connection:
            target = by_id(connection, uuid_hex(event_id))
            if target is None:
                raise UserError(f"event {event_id!r} is not in the label store: take an id from the history")
            if target.verdict == "undo":
                raise UserError(f"event {event_id!r} is itself an undo: relabel {target.example!r} instead")
            history = events_of(connection, target.data_fingerprint, target.example)
            current = history[-1].new
            undone = {event.undoes: event for event in history if event.undoes}
            after = [event for event in history if _seq(event) > _seq(target)]
            standing = [
                event
                for event in after
                if event.old != event.new and event.verdict != "undo" and event.event_id not in undone
            ]
            if target.event_id in undone and not standing:
                return undone[target.event_id]
            if standing or current != target.new:
                since = (standing or after)[-1]
                raise LabelConflict(
                    f"the label of {target.example!r} is {current!r} now and was changed by {since.annotator!r} "
                    f"after the event to undo set {target.new!r}: look at it again, nothing was saved",
                    example=target.example,
                    expected=target.new,
                    current=current,
                )
            event = LabelEvent(
                event_id=uuid_hex(None),
                at=_now(),
                annotator=annotator,
                workspace=target.workspace,
                data_fingerprint=target.data_fingerprint,
                example=target.example,
                old=current,
                new=target.old,
                verdict="undo",
                note=checked_text("note", note, empty=True),
                source=checked_text("source", source, empty=True),
                undoes=target.event_id,
            )
            return insert(connection, [event])[0]

    def cursor(self, data_fingerprint: str) -> int:
        """Return the sequence number of the dataset's latest event, 0 when there is none."""
        query = select(func.max(_columns.seq)).where(_columns.data_fingerprint == data_fingerprint)
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar() or 0)

    def current(self, data_fingerprint: str, cursor: int | None = None) -> dict[str, str]:
        """Return the label of each example whose label differs from the dataset's own, up to a cursor."""
        ends = bounds(data_fingerprint, cursor).subquery()
        first, last = label_events.alias("first"), label_events.alias("last")
        query = (
            select(last.c.example, last.c.new)
            .join(ends, last.c.seq == ends.c.last)
            .join(first, first.c.seq == ends.c.first)
            .where(first.c.old != last.c.new)
            .order_by(last.c.seq)
        )
        with self._database.reading() as connection:
            return {example: new for example, new in connection.execute(query)}

    def changed_since(self, data_fingerprint: str, cursor: int) -> list[str]:
        """Return the examples whose label now differs from their label at the cursor, in id order.

        These are the rows whose projections made at that cursor are stale; a label that was changed
        and changed back is not among them.
        """
        then, now = self.current(data_fingerprint, cursor), self.current(data_fingerprint)
        return sorted(example for example in then.keys() | now.keys() if then.get(example) != now.get(example))

    def history(self, data_fingerprint: str, example: str | None = None) -> list[LabelEvent]:
        """Return the events of a dataset, or of one example, oldest first."""
        with self._database.reading() as connection:
            return events_of(connection, data_fingerprint, example)

    def reviewed(self, data_fingerprint: str, annotator: str | None = None) -> dict[str, Verdict]:
        """Return each example's last verdict that still stands, by anyone or by one annotator.

        An event that was undone, by whomever, does not stand, so its example returns to the queue.
        """
        events = self.history(data_fingerprint)
        undone = {event.undoes for event in events}
        return {
            event.example: event.verdict
            for event in events
            if event.verdict != "undo" and event.event_id not in undone and annotator in (None, event.annotator)
        }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _seq(event: LabelEvent) -> int:
    assert event.seq is not None  # every stored event has one
    return event.seq


def _fitting_verdict(verdict: Verdict | None, new: str, expect: str) -> Verdict:
    if verdict is None:
        return "confirm" if new == expect else "change"
    if verdict == "undo":
        raise UserError("verdict 'undo' is recorded by undo(event_id): give the event to undo")
    if verdict == "change" and new == expect:
        raise UserError(f"the label is already {new!r}: choose another label, or confirm it")
    if verdict != "change" and new != expect:
        raise UserError(f"verdict {verdict!r} keeps the label, but {new!r} is not {expect!r}: use 'change'")
    return verdict


def _same_request(stored: LabelEvent, event: LabelEvent) -> LabelEvent:
    """Return the stored event if the new one is the same request submitted again."""
    # ``old`` is left out: a form that is submitted twice may have re-read the label in between.
    for name in ("data_fingerprint", "example", "new", "annotator"):
        kept, given = getattr(stored, name), getattr(event, name)
        if kept != given:
            raise UserError(
                f"event id {event.event_id} already records {name.replace('_', ' ')} {kept!r}, "
                f"not {given!r}: use a new event id"
            )
    return stored
