"""Rows as a dataset can hold them, or why not: the same judgement for a look and for writing."""

import re
from collections.abc import Callable, Iterator, Set
from typing import NamedTuple

from influence_core.data.labels import short
from influence_core.data.pictures import decode
from influence_core.data.source import Columns, Row, Source, beginning, not_text
from influence_core.errors import UserError


class Usable(NamedTuple):
    """A row that can be used; the class number is None where its label's class is yet to be chosen."""

    place: int | str
    content: str | bytes
    label: str
    number: int | None
    id: str


def checked(
    source: Source,
    columns: Columns,
    index: Callable[[str], int | None],
    few: Set[str],
    broken: Set[int] | None = None,
) -> Iterator[Usable | Row]:
    """Yield every row, either `Usable` or as a `Row` with the reason in ``broken``.

    ``index`` gives a label's class number, ``few`` are labels that make a row broken. ``broken`` are
    the numbers of rows (from 0) found broken at an earlier look: with it, images are not decoded again.
    """
    for number, row in enumerate(source.rows(columns)):
        reason = row.broken or fault(row, columns, few, look=broken is None)
        if not reason and broken is not None and number in broken:
            reason = "it could not be used before"
        if reason:
            yield row._replace(broken=reason, shown=row.shown or beginning(row.content))
        else:
            yield Usable(row.place, row.content, row.label, index(row.label), row.id)


def fault(row: Row, columns: Columns, few: Set[str], look: bool = True) -> str:
    """Say why a row cannot be used; empty where it can."""
    if isinstance(row.content, str):
        if not row.content.strip():
            return "the text is empty"
        if "\0" in row.content:
            return f"the text has a NUL byte (character {row.content.index(chr(0)) + 1})"
    elif not row.content:
        return "the image is empty"
    for what, text in (("text", row.content), ("label", row.label), ("id", row.id)):
        if not text.isascii() and isinstance(text, str) and (wrong := not_text(text)):
            return f"the {what} is not UTF-8 ({wrong})"
    if not row.label:
        return "the label is missing"
    if row.label in few:
        return f"label {short(row.label)!r} is none of the classes"
    if columns.id is not None and not row.id.strip():
        return "the id is empty"
    if isinstance(row.content, bytes) and look:
        return unreadable(row.content)
    return ""


def unreadable(content: bytes) -> str:
    """Say why an image cannot be decoded; empty where it can."""
    try:
        decode(content, "it")
    except UserError as error:
        said = re.sub(r" <[^>]*>", "", str(error)).rpartition(": ")[0]
        return said.replace("the image it ", "the image ")
    return ""
