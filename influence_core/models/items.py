"""Encoded examples that take little memory, and columns read a block at a time."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import numpy as np

BLOCK = 4096  # raw inputs that are Python objects together


def blocks(raw: Any, size: int = BLOCK) -> Iterator[list[Any]]:
    """Yield a list or a frame's column in lists of ``size``, so that a mapped column is never in memory whole."""
    column = getattr(raw, "iloc", raw)
    for start in range(0, len(raw), size):
        yield list(column[start : start + size])


class Items(Sequence[np.ndarray]):
    """N arrays by number or slice; negative numbers count from the end, those outside are refused."""

    @abstractmethod
    def item(self, row: int) -> np.ndarray:
        """Return one of them, 0 ≤ row < N."""

    @overload
    def __getitem__(self, row: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, row: slice) -> list[np.ndarray]: ...

    def __getitem__(self, row: int | slice) -> np.ndarray | list[np.ndarray]:
        rows = range(len(self))[row]
        return self.item(rows) if isinstance(rows, int) else [self.item(each) for each in rows]


class Tokens(Items):
    """N texts as token ids, in one flat array; a text is a view into it, [T] int32."""

    def __init__(self, values: np.ndarray, offsets: np.ndarray) -> None:
        self.values = values  # [tokens] int32
        self.offsets = offsets  # [N + 1] int64

    @classmethod
    def joined(cls, parts: Iterator[Sequence[Sequence[int]]]) -> "Tokens":
        """Make it of blocks of token ids."""
        values: list[np.ndarray] = []
        lengths: list[np.ndarray] = []
        for part in parts:
            lengths.append(np.fromiter((len(text) for text in part), np.int64, len(part)))
            values.append(np.fromiter((token for text in part for token in text), np.int32, int(lengths[-1].sum())))
        offsets = np.concatenate([[0], *lengths]).cumsum(dtype=np.int64)
        return cls(np.concatenate(values) if values else np.zeros(0, np.int32), offsets)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, [N]."""
        found: np.ndarray = np.diff(self.offsets)
        return found

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def item(self, row: int) -> np.ndarray:
        """Return a view of one text's token ids."""
        return self.values[self.offsets[row] : self.offsets[row + 1]]


class Lazy(Items):
    """N raw inputs, encoded each time they are looked at."""

    def __init__(self, raw: Any, encode: Callable[[int, Any], np.ndarray]) -> None:
        self.column = getattr(raw, "iloc", raw)
        self.length = len(raw)
        self.encode = encode

    def __len__(self) -> int:
        return self.length

    def item(self, row: int) -> np.ndarray:
        """Encode one input."""
        return self.encode(row, self.column[row])
