"""One decision about one label: who, when, from what to what."""

import uuid
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from influence_core.errors import UserError

Verdict = Literal["change", "confirm", "unsure", "skip", "undo"]

_Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class LabelEvent(BaseModel):
    """A row of the insert-only log; labels are label *names*.

    After the event the example's label is ``new``, whatever the verdict: "confirm", "unsure" and
    "skip" carry ``new == old``, "undo" carries the label from before the event that it undoes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_id: _Hex  # UUID; the same id twice is one event
    seq: int | None = None  # the cursor: assigned by the database, growing
    at: str  # UTC, ISO 8601
    annotator: str  # as typed, unverified unless the app runs behind a login
    workspace: str
    data_fingerprint: str
    example: str
    old: str
    new: str
    verdict: Verdict
    note: str = ""
    source: str = ""  # where it came from: a run's id, "cli", a file's name
    undoes: _Hex | None = None  # the event that an "undo" compensates


class LabelConflictError(UserError):
    """The label is not what the annotator saw; carries both values, and nothing was written."""

    def __init__(self, message: str, *, example: str, expected: str, current: str) -> None:
        super().__init__(message)
        self.example = example
        self.expected = expected
        self.current = current


LabelConflict = LabelConflictError


def stale(example: str, expected: str, current: str) -> LabelConflict:
    """Say that a compare-and-set failed, with both values."""
    message = (
        f"the label of {example!r} is {current!r} now, not {expected!r} as you saw: look at it again, nothing was saved"
    )
    return LabelConflict(message, example=example, expected=expected, current=current)


def uuid_hex(value: str | None) -> str:
    """Return a UUID as 32 hex digits, a new one for None; raises `UserError` for anything else."""
    if value is None:
        return uuid.uuid4().hex
    try:
        return uuid.UUID(value).hex
    except ValueError:
        raise UserError(f"event id {value!r} is not a UUID: give 32 hex digits") from None


def checked_text(name: str, value: str, *, empty: bool = False) -> str:
    """Return the text if every database can hold it (no NUL, no lone surrogate), else `UserError`."""
    if not value and not empty:
        raise UserError(f"{name} is empty: give one")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{name} {value!r} is not valid Unicode text: type it again") from None
    if "\0" in value:
        raise UserError(f"{name} {value!r} contains a NUL character: remove it")
    return value
