"""CSV and TSV files."""

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from influence_core.data.lines import LIMIT, TOO_LONG, TooLong, estimated, lines
from influence_core.data.source import SAMPLE, Columns, Row, Source, as_row, beginning
from influence_core.errors import UserError

SIGNS = {",": "commas", "\t": "tabs", ";": "semicolons"}  # between cells; the last is never read
SPAN = 1000  # lines of one row; more means that a quotation mark was not closed
UNCLOSED = "a quotation mark is opened and not closed"


class Delimited(Source):
    """A file with a header line; cells are read as text, so that an id 001 stays 001 and NA is a word."""

    def __init__(self, path: Path, delimiter: str) -> None:
        self.path, self.delimiter = path, delimiter
        self.kind = "TSV file" if delimiter == "\t" else "CSV file"
        self.name, self.origin = path.name, str(path)
        header = next(self._records(), None)
        if header is None or isinstance(header, Row):
            said = header.broken if header else "it is empty"
            raise UserError(f"{path} cannot be read (no header line: {said}): check the file")
        other = next((what for sign, what in SIGNS.items() if sign != delimiter and sign in header[0]), None)
        if len(header) == 1 and other is not None:
            raise UserError(
                f"{path} has one column, {beginning(header[0])!r}, with {other} in its name: save it with "
                f"{SIGNS[delimiter]} between the cells"
            )
        self.header = [name.strip() or f"column {number}" for number, name in enumerate(header, start=1)]
        self.columns = tuple(dict.fromkeys(self.header))

    @property
    def size(self) -> int:
        """An estimate from the file's size."""
        return estimated(self.path)

    def rows(self, columns: Columns, contents: bool = True) -> Iterator[Row]:
        """Yield all rows; a line that is no row is one that says why."""
        content, label = self.header.index(columns.input), self.header.index(columns.label)
        own = None if columns.id is None else self.header.index(columns.id)
        for place, found in enumerate(islice(self._records(), 1, None), start=1):
            if isinstance(found, Row):
                yield found._replace(place=place)
            elif len(found) != len(self.header):
                reason = f"it has {len(found)} cells, the header has {len(self.header)}"
                yield Row(place, broken=reason, shown=beginning(self.delimiter.join(found)))
            else:
                yield as_row(place, found[content], found[label], None if own is None else found[own], "text")

    def sample(self) -> dict[str, list[Any]]:
        """Return the first cells of each column."""
        whole = [each for each in islice(self._records(), 1, SAMPLE) if len(each) == len(self.header)]
        return {name: [each[self.header.index(name)] for each in whole] for name in self.columns}

    def _records(self) -> Iterator[list[str] | Row]:
        """Yield the cells of each row that is not blank, the header first, or a `Row` that says what is wrong."""
        csv.field_size_limit(2 * LIMIT)
        feed = _Feed(lines(self.path))
        reader = csv.reader(feed, delimiter=self.delimiter)
        width = 0
        while True:
            feed.taken.clear()
            reason = ""
            found: list[str] = []
            try:
                found = next(reader)
            except StopIteration:
                return
            except (_InterruptedError, csv.Error) as error:
                reason = str(error)
            many = len(feed.taken) > 1
            if reason or feed.ended or (many and width and len(found) != width):
                # only the first line is lost: those after it are read again, each as a row of its own
                first = feed.taken[0]
                shown = beginning(first.start if isinstance(first, TooLong) else first)
                yield Row(0, broken=UNCLOSED if many or not reason else reason, shown=shown)
                feed.give_back(feed.taken[1:])
            elif found:
                width = width or len(found)
                yield found
                continue
            reader = csv.reader(feed, delimiter=self.delimiter)


class _InterruptedError(Exception):
    """The reader asked for a line that cannot be part of the row."""


class _Feed:
    """Lines for a csv reader; remembers those of the row being read, which can be given back."""

    def __init__(self, source: Iterable[str | TooLong]) -> None:
        self.source = iter(source)
        self.back: deque[str | TooLong] = deque()
        self.taken: list[str | TooLong] = []
        self.ended = False  # inside a row

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        line = self.back.popleft() if self.back else next(self.source, None)
        if line is None:
            self.ended = bool(self.taken)
            raise StopIteration
        self.taken.append(line)
        if isinstance(line, TooLong):
            raise _InterruptedError(TOO_LONG)
        if len(self.taken) > SPAN:
            raise _InterruptedError(UNCLOSED)
        return line

    def give_back(self, taken: list[str | TooLong]) -> None:
        """Let lines be read again."""
        self.back.extendleft(reversed(taken))
        self.ended = False
