"""IDX files: pixels and labels as bytes (Y. LeCun, C. Cortes, C. Burges, "The MNIST database", file formats)."""

import gzip
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from influence_core.data.pictures import PIXELS, netpbm
from influence_core.data.source import Columns, Row, Source
from influence_core.errors import UserError

IMAGES = re.compile(r"(?P<split>.+)-images[-.]idx3-ubyte(?P<packed>\.gz)?")
IMAGES_MAGIC, LABELS_MAGIC = 0x803, 0x801  # unsigned bytes in three dimensions, in one
BLOCK = 1024  # labels in memory at a time


class Idx(Source):
    """A file of images and the file of labels beside it."""

    kind = "IDX files"
    modality = "image"

    def __init__(self, images: Path) -> None:
        self.images, self.name, self.origin = images, images.name, str(images)
        self.labels = labels_of(images)
        with opened(images) as file:
            self.count, self.height, self.width = header(file, images, IMAGES_MAGIC, 3)
        with opened(self.labels) as file:
            (count,) = header(file, self.labels, LABELS_MAGIC, 1)
        if count != self.count:
            raise UserError(
                f"{images} has {self.count:,} images, {self.labels} {count:,} labels: give files that match"
            )
        if not 0 < self.height * self.width <= PIXELS:
            raise UserError(f"{images} has images of {self.width} × {self.height} pixels: check the file")

    @property
    def size(self) -> int:
        """How many rows there are."""
        return self.count

    def rows(self, columns: Columns, contents: bool = True) -> Iterator[Row]:
        """Yield all rows; raises `UserError` where a file ends too early."""
        with opened(self.images) as images, opened(self.labels) as labels:
            header(images, self.images, IMAGES_MAGIC, 3)
            header(labels, self.labels, LABELS_MAGIC, 1)
            for start in range(0, self.count, BLOCK):
                block = read(labels, min(BLOCK, self.count - start), self.labels)
                for place, label in enumerate(block, start=start + 1):
                    content = b""
                    if contents:
                        pixels = read(images, self.height * self.width, self.images)
                        content = netpbm(np.frombuffer(pixels, np.uint8).reshape(self.height, self.width))
                    yield Row(place, content, str(label))


def labels_of(images: Path) -> Path:
    """Return the labels file beside an images file, packed or not."""
    plain = images.name.removesuffix(".gz").replace("images-idx3", "labels-idx1").replace("images.idx3", "labels.idx1")
    for name in (plain, f"{plain}.gz"):
        if (images.parent / name).is_file():
            return images.parent / name
    raise UserError(f"there is no {plain} (or {plain}.gz) beside {images}: put the labels there")


def opened(path: Path) -> BinaryIO:
    """Open a file, packed or not; raises `UserError` where it cannot be read."""
    try:
        return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the file") from None


def read(file: BinaryIO, count: int, path: Path) -> bytes:
    """Read exactly so many bytes."""
    try:
        found = file.read(count)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}): fetch it again") from None
    if len(found) < count:
        raise UserError(f"{path} ends too early: fetch it again")
    return found


def header(file: BinaryIO, path: Path, magic: int, dimensions: int) -> tuple[int, ...]:
    """Read a header; returns the sizes."""
    found, *sizes = struct.unpack(f">{1 + dimensions}I", read(file, 4 * (1 + dimensions), path))
    if found != magic:
        raise UserError(f"{path} begins with {found:#x}, not {magic:#x}: it is no IDX file of this kind")
    return tuple(sizes)


def open_folder(path: Path) -> dict[str, Source]:
    """Open the image files in a folder, by the word before ``-images``; empty where there are none."""
    found = [(match, each) for each in sorted(path.iterdir()) if (match := IMAGES.fullmatch(each.name))]
    return {match["split"]: Idx(each) for match, each in found}
