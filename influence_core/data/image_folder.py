"""A folder of image files, one folder a class."""

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

from influence_core.data.source import Columns, Row, Source, not_text, printable
from influence_core.errors import UserError

LIMIT = 50_000_000  # bytes of one file
# Endings of images, those that are not read included: such a file is a row that somebody has to convert.
ENDING = re.compile(
    r"\.(png|jpe?g|jpe|jfif|p[pgbn]m|gif|bmp|webp|tiff?|eps|svg|hei[cf]|avif|jp2|ico|tga|psd)", re.IGNORECASE
)
SIGNATURES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")  # of files without such an ending


class ImageFolder(Source):
    """Every image file under a class's folder is a row, in order of names; hidden files are none."""

    kind = "image folder"
    modality = "image"
    of_files = True

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
        return sum(1 for name in self.classes for _ in images(self.path / name))

    def class_names(self, label: str) -> tuple[str, ...]:
        """Return the folders' names; their order is that of the usual loaders, by name."""
        return self.classes

    def notes(self) -> tuple[str, ...]:
        """Say which files are passed over."""
        others = [file for name in self.classes for file in files(self.path / name) if not is_image(file)]
        if not others:
            return ()
        first = printable(self.prefix + str(others[0].relative_to(self.path)))
        some = f"{len(others):,} files are no images" if len(others) > 1 else "1 file is no image"
        return (f"{some} and passed over in {self.path} (first: {first}).",)

    def rows(self, columns: Columns, contents: bool = True) -> Iterator[Row]:
        """Yield all rows; a file that cannot be read is one that says why."""
        for label in self.classes:
            for file in images(self.path / label):
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


def images(path: Path) -> Iterator[Path]:
    """Yield those of a folder's `files` that are images."""
    return (file for file in files(path) if is_image(file))


def has_image_ending(file: Path) -> bool:
    """Whether a file is called as images are."""
    return ENDING.fullmatch(file.suffix) is not None


def is_image(file: Path) -> bool:
    """Whether a file is called as images are, or begins as one does."""
    if has_image_ending(file):
        return True
    try:
        with file.open("rb") if file.is_file() else io.BytesIO() as begun:
            return begun.read(8).startswith(SIGNATURES)
    except OSError:
        return False


def open_folder(path: Path, split_names: frozenset[str]) -> dict[str, Source]:
    """Open an image folder: its splits, where folders named as splits hold the classes' folders, else one nameless."""
    named = [name for name in folders(path) if name.casefold() in split_names and folders(path / name)]
    if named:
        return {name: ImageFolder(path / name, f"{name}/") for name in named}
    return {"": ImageFolder(path)}
