"""Lines of a text file, however long they are: a line beyond the limit is passed over, not held."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from influence_core.errors import UserError

LIMIT = 10_000_000  # bytes of one line
PIECE = 2**16  # bytes of a passed-over line in memory at a time
TOO_LONG = f"the line is longer than {LIMIT // 10**6} MB"
LOOK = 2**16  # bytes at the beginning that a file's row count is estimated from


class TooLong(NamedTuple):
    """Stands for a line that was passed over."""

    start: str


def lines(path: Path) -> Iterator[str | TooLong]:
    """Yield a UTF-8 file's lines; bytes that are no UTF-8 become lone surrogates (PEP 383).

    Raises `UserError` for a file in UTF-16 or one that cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(3)
            if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise UserError(f"{path} is UTF-16, not UTF-8: save it as UTF-8")
            file.seek(3 if head == b"\xef\xbb\xbf" else 0)
            while line := file.readline(LIMIT + 1):
                if len(line) > LIMIT and not line.endswith(b"\n"):
                    start = line[:PIECE]
                    while (line := file.readline(PIECE)) and not line.endswith(b"\n"):
                        pass
                    yield TooLong(start.decode("utf-8", "surrogateescape"))
                else:
                    yield line.decode("utf-8", "surrogateescape")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the file") from None


def estimated(path: Path) -> int:
    """Estimate how many lines a file has from its size and its beginning."""
    with path.open("rb") as file:
        head = file.read(LOOK)
    return path.stat().st_size * max(head.count(b"\n"), 1) // max(len(head), 1)
