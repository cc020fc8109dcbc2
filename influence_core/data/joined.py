"""One split in several files, as the hub keeps large ones: train-00000-of-00002.parquet and so on."""

from collections.abc import Iterator, Sequence
from typing import Any

from influence_core.data.source import Columns, Row, Source
from influence_core.errors import UserError


class Joined(Source):
    """The rows of several sources with the same columns, one after the other."""

    def __init__(self, parts: Sequence[Source], name: str, origin: str) -> None:
        self.parts, self.name, self.origin = tuple(parts), name, origin
        first = self.parts[0]
        self.kind, self.numbered = f"{first.kind}s", first.numbered
        self.columns, self.image_columns = first.columns, first.image_columns
        for part in self.parts:
            if set(part.columns) != set(first.columns):
                raise UserError(
                    f"{part.origin} has the columns {', '.join(part.columns)}, {first.name} has "
                    f"{', '.join(first.columns)}: give parts of the same data"
                )

    @property
    def size(self) -> int:
        """How many rows there are, by the parts' own account."""
        return sum(part.size for part in self.parts)

    def rows(self, columns: Columns, contents: bool = True) -> Iterator[Row]:
        """Yield all rows; their places name the part."""
        for part in self.parts:
            for row in part.rows(columns, contents):
                yield row._replace(place=part.position(row.place))

    def class_names(self, label: str) -> tuple[str, ...]:
        """Return the first part's class names."""
        return self.parts[0].class_names(label)

    def sample(self) -> dict[str, list[Any]]:
        """Return the first part's first values."""
        return self.parts[0].sample()
