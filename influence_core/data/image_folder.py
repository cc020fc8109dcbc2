"""A folder of image files, one folder a class."""

import os
from collections.abc import Iterator
from pathlib import Path

from influence_core.data.source import Columns, Row, Source, not_text, printable
from influence_core.errors import UserError

LIMIT = 50_000_000  # bytes of one file


class ImageFolder(Source):
    """Every file under a class's folder is a row, in order of names; hidden files are none."""

    kind = "image folder"
    modality = "image"

    def __init__(self, path: Path, prefix: str = "") -> None:
        self.path, self.prefix = path, prefix  # the prefix is shown before the files' names
        self.name, self.origin = path.name, str(path)
        self.classes = tuple(folders(path))
        for name in self.classes:
            if not_text(name):
                raise UserError(f"{self.path} has a folder whose name is not UTF-8 ({name!a}): rename it")

    @property
    def size(self) -> int:
        """How many files there are."""
        return sum(1 for name in self.classes for _ in files(self.path / name))

    def class_names(self, label: str) -> tuple[str, ...]:
        """Return the folders' names; their order is that of the usual loaders, by name."""
        return self.classes

    def rows(self, columns: Columns, contents: bool = True) -> Iterator[Row]:
        """Yield all rows; a file that cannot be read is one that says why."""
        for label in self.classes:
            for file in files(self.path / label):
                place = printable(self.prefix + str(file.relative_to(self.path)))
                if not contents:
                    yield Row(place, b"", label)
                elif not file.is_file():
                    yield Row(place, broken="it is not a plain file")
                elif (size := file.stat().st_size) > LIMIT:
                    yield Row(place, broken=f"the file has {size:,} bytes, at most {LIMIT:,} are read")
                else:
                    try:
                        yield Row(place, file.read_bytes(), label)
                    except OSError as error:
                        yield Row(place, broken=f"the file cannot be read ({error.strerror})")


def folders(path: Path) -> list[str]:
    """Return the names of the folders in a folder, in order."""
    with os.scandir(path) as found:
        return sorted(each.name for each in found if each.is_dir() and not each.name.startswith("."))


def files(path: Path) -> Iterator[Path]:
    """Yield what lies under a folder and is no folder, in order of names, one folder's names in memory at a time."""
    try:
        with os.scandir(path) as found:
            entries = sorted((each.name, each.is_dir(follow_symlinks=False)) for each in found)
    except OSError as error:
        raise UserError(f"the folder {path} cannot be read ({error.strerror}): check its permissions") from None
    for name, is_folder in entries:
        if not name.startswith("."):
            if is_folder:
                yield from files(path / name)
            else:
                yield path / name


def open_folder(path: Path, split_names: frozenset[str]) -> dict[str, Source]:
    """Open an image folder: its splits, where folders named as splits hold the classes' folders, else one nameless."""
    named = [name for name in folders(path) if name.casefold() in split_names and folders(path / name)]
    if named:
        return {name: ImageFolder(path / name, f"{name}/") for name in named}
    return {"": ImageFolder(path)}
