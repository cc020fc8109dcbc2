"""The SQL behind the store: append, look up, and fold."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, select

from influence_core.labels.database import label_events
from influence_core.labels.events import LabelEvent

_columns = label_events.c


def insert(connection: Connection, events: Iterable[LabelEvent]) -> list[LabelEvent]:
    """Append events and return them with the sequence numbers that the database gave."""
    stored = []
    for event in events:
        values: dict[str, Any] = event.model_dump(exclude={"seq"})
        result = connection.execute(label_events.insert().values(**values).returning(_columns.seq))
        stored.append(event.model_copy(update={"seq": int(result.scalar_one())}))
    return stored


def _select(connection: Connection, condition: ColumnElement[bool]) -> list[LabelEvent]:
    rows = connection.execute(select(label_events).where(condition).order_by(_columns.seq)).mappings()
    return [LabelEvent.model_validate(dict(row)) for row in rows]


def by_id(connection: Connection, event_id: str) -> LabelEvent | None:
    """Return the event with this id."""
    found = _select(connection, _columns.event_id == event_id)
    return found[0] if found else None


def events_of(connection: Connection, data_fingerprint: str, example: str | None) -> list[LabelEvent]:
    """Return a dataset's events, or one example's, oldest first."""
    condition: ColumnElement[bool] = _columns.data_fingerprint == data_fingerprint
    if example is not None:
        condition = and_(condition, _columns.example == example)
    return _select(connection, condition)


def bounds(data_fingerprint: str, cursor: int | None) -> Select[tuple[int, int]]:
    """Select each example's first and last sequence number up to a cursor."""
    query = select(func.min(_columns.seq).label("first"), func.max(_columns.seq).label("last"))
    query = query.where(_columns.data_fingerprint == data_fingerprint).group_by(_columns.example)
    return query if cursor is None else query.where(_columns.seq <= cursor)


def last_labels(connection: Connection, data_fingerprint: str) -> dict[str, str]:
    """Return the label after the last event of every example that has events."""
    ends = bounds(data_fingerprint, None).subquery()
    query = select(_columns.example, _columns.new).join(ends, _columns.seq == ends.c.last)
    return {example: new for example, new in connection.execute(query)}
