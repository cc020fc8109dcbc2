"""JSON lines: one object a line."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from influence_core.data.lines import TOO_LONG, TooLong, estimated, lines
from influence_core.data.source import SAMPLE, Columns, Row, Source, as_row, beginning
from influence_core.errors import UserError


class JsonLines(Source):
    """A file of objects; its columns are the keys of the first ones."""

    kind = "JSON lines file"

    def __init__(self, path: Path) -> None:
        self.path, self.name, self.origin = path, path.name, str(path)
        self.columns = tuple(self.sample())
        if not self.columns:
            raise UserError(f"{path} has no rows: its first lines hold no JSON object with values")

    @property
    def size(self) -> int:
        """An estimate from the file's size."""
        return estimated(self.path)

    def rows(self, columns: Columns, contents: bool = True) -> Iterator[Row]:
        """Yield all rows; a line that is no object is one that says why."""
        for place, found in enumerate(self._records(), start=1):
            if isinstance(found, Row):
                yield found._replace(place=place)
            else:
                own = None if columns.id is None else found.get(columns.id)
                yield as_row(place, found.get(columns.input), found.get(columns.label), own, "text")

    def sample(self) -> dict[str, list[Any]]:
        """Return the first values of each key."""
        first = [each for each in islice(self._records(), SAMPLE) if isinstance(each, dict)]
        return {key: [each.get(key) for each in first] for key in dict.fromkeys(key for each in first for key in each)}

    def _records(self) -> Iterator[dict[str, Any] | Row]:
        """Yield the object of each line that is not blank, or a `Row` that says what is wrong."""
        for line in lines(self.path):
            if isinstance(line, TooLong):
                yield Row(0, broken=TOO_LONG, shown=beginning(line.start))
            elif line.strip():
                try:
                    found = json.loads(line)
                except (ValueError, RecursionError) as error:
                    said = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
                    yield Row(0, broken=f"the line is not JSON ({said})", shown=beginning(line))
                    continue
                if isinstance(found, dict):
                    yield found
                else:
                    reason = f"the line is a {type(found).__name__}, not an object"
                    yield Row(0, broken=reason, shown=beginning(line))
