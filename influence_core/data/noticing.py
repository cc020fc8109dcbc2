"""What a person should know of data that can be used nonetheless: one sentence each."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from influence_core.data.finding import Located
from influence_core.data.source import Columns
from influence_core.specs import Split


@dataclass(frozen=True)
class Read:
    """What a look knows when its first pass is done."""

    located: Located
    chosen: Mapping[Split, Columns]  # columns as asked or guessed
    columns: Mapping[Split, Columns]  # columns as read: without an id column that names no rows
    labels: Iterable[str]


def noticed(read: Read, classes: Iterable[str]) -> Iterator[str]:
    """Yield the notes on a look; ``classes`` are the checkpoint's."""
    for source in read.located.splits.values():
        yield from source.notes()
    yield from header_notes(read, classes)
    yield from id_notes(read)


def header_notes(read: Read, classes: Iterable[str]) -> Iterator[str]:
    """Say of which sources the header line looks like a row: its label column is called as a label is."""
    known = {name.casefold() for name in (*classes, *read.labels)}
    for split, source in read.located.splits.items():
        label = read.columns[split].label
        if source.columns and label.casefold() in known:
            yield (
                f"The header of {source.name} looks like a row: its label column is called {label!r}, as a class is. "
                "If that is a row, put a line with the columns' names before it."
            )


def id_notes(read: Read) -> Iterator[str]:
    """Say why a column that is called as ids are is not used for them."""
    for split, source in read.located.splits.items():
        own = read.chosen[split].id
        if own is not None and read.columns[split].id is None:
            yield f"Ids are made from the contents: the column {own!r} of {source.name} repeats or is mostly empty."
