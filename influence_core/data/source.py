"""What every source of rows offers: rows as they stand, their columns and class names; nothing is judged here."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from influence_core.data.dataset import Modality

SAMPLE = 200  # first rows that columns are guessed from
ESCAPED = range(0xDC80, 0xDD00)  # lone surrogates that stand for bytes (PEP 383)
SHOWN = 80  # characters of a row that is shown as an example


class Columns(NamedTuple):
    """The columns that are read."""

    input: str
    label: str
    id: str | None
    modality: Modality


class Row(NamedTuple):
    """One row as the source has it. Bytes that are no UTF-8 stand in its texts as lone surrogates (PEP 383)."""

    place: int | str  # number from 1, or a file's name inside the folder
    content: str | bytes = ""
    label: str = ""  # as text; empty where it is missing
    id: str = ""
    broken: str = ""  # why it cannot be read; then only place and shown count
    shown: str = ""


class Source(ABC):
    """The rows of one split, read as often as needed and never held."""

    kind: str  # for people: "CSV file"
    name: str  # for people: "train.csv"
    origin: str  # where it lies: a path, or a name on the hub
    columns: tuple[str, ...] = ()  # to choose from; empty where nothing is to be chosen
    image_columns: tuple[str, ...] = ()  # those of them that hold image files
    modality: Modality | None = None  # where nothing is to be chosen
    of_files = False  # whether each row is a file, and its place that file's name
    numbered = False  # whether the class names stand for numbers that the data's maker gave

    @property
    @abstractmethod
    def size(self) -> int:
        """How many rows there are; an estimate where counting would mean reading."""

    @abstractmethod
    def rows(self, columns: Columns, contents: bool = True) -> Iterator[Row]:
        """Yield all rows in order; without contents where only labels and ids are looked at."""

    def class_names(self, label: str) -> tuple[str, ...]:
        """Return the class names that the source carries for a label column, in order of their numbers."""
        return ()

    def notes(self) -> tuple[str, ...]:
        """Say what a person should know of the source, one sentence each."""
        return ()

    def sample(self) -> dict[str, list[Any]]:
        """Return the first values of each column that holds no images."""
        return {}

    def position(self, place: int | str) -> str:
        """Say where a row is, so that a person finds it."""
        return f"{self.name}, row {place}" if isinstance(place, int) else place


def as_text(value: Any) -> str:
    """Return a cell as text; a missing one is empty, bytes that are no UTF-8 become lone surrogates."""
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


@lru_cache(maxsize=1024, typed=True)  # there are few
def as_label(value: Any) -> str:
    """Return a label as text: trimmed, and 1.0 as 1."""
    text = as_text(value).strip()
    return text[:-2] if text.endswith(".0") and re.fullmatch(r"-?\d+\.0", text) else text


def as_row(place: int, content: Any, label: Any, own_id: Any, modality: Modality) -> Row:
    """Return a row of three cells."""
    if modality == "text" and type(content) is str and type(label) is str and own_id is None:  # nearly all
        return Row(place, content, as_label(label))
    for what, cell in (("label", label), ("id", own_id), ("text", content)):
        if type(cell) in (list, dict) and not (what == "text" and modality == "image"):
            return Row(place, broken=f"the {what} is a {type(cell).__name__}", shown=beginning(str(cell)))
    if modality == "text":
        return Row(place, as_text(content), as_label(label), as_text(own_id))
    held = content.get("bytes") if isinstance(content, dict) else content
    if not held and isinstance(content, dict) and content.get("path"):
        reason = "the image is given as a path, not as the image itself"
        return Row(place, broken=reason, shown=beginning(str(content["path"])))
    return Row(place, held if isinstance(held, bytes) else b"", as_label(label), as_text(own_id))


def beginning(content: str | bytes) -> str:
    """Return what is shown of a row: the first characters of a text, the size of an image."""
    if isinstance(content, bytes):
        return f"{len(content):,} bytes"
    return printable(content[:SHOWN].replace("\0", "␀"))


def printable(text: str) -> str:
    """Return a text in which lone surrogates, which no file or page takes, are question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def not_text(text: str) -> str:
    """Name the first byte (or half of a pair) that no text in UTF-8 has; empty where there is none."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        what = f"byte 0x{code - 0xDC00:02x}" if code in ESCAPED else f"the lone surrogate U+{code:04X}"
        return f"{what} at character {error.start + 1}"
    return ""
