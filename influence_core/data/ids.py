"""Example ids and content hashes: which ids a split's rows get, and which rows have the same input."""

import hashlib
from array import array
from collections.abc import Iterable

import numpy as np

SHIFT = 16  # an id carries the upper 48 bits of the 64 that duplicates are found by


def content_hash(content: str | bytes) -> int:
    """Return the first 8 bytes of the SHA-256 of a text in UTF-8, or of an image's bytes."""
    held = content.encode() if isinstance(content, str) else content
    return int.from_bytes(hashlib.sha256(held).digest()[:8], "big")


def as_hashes(values: "array[int]") -> np.ndarray:
    """Return collected hashes [N] uint64 or int64, not copied."""
    return np.frombuffer(values, dtype=np.uint64 if values.typecode == "Q" else np.int64)


def repeated(hashes: np.ndarray) -> np.ndarray:
    """Return those hashes that stand more than once [M], sorted."""
    ordered = np.sort(hashes)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def duplicates(hashes: np.ndarray) -> int:
    """Count rows whose hash stood before."""
    ordered = np.sort(hashes)
    return int((ordered[1:] == ordered[:-1]).sum())


def first_again(ids: Iterable[str]) -> str | None:
    """Return the first text that stands a second time, or None; those that cannot be it are best left out."""
    seen: set[str] = set()
    for each in ids:
        if each in seen:
            return each
        seen.add(each)
    return None


def shared(hashes: np.ndarray, others: np.ndarray) -> int:
    """Count rows whose hash stands among others."""
    if not len(others):
        return 0
    ordered = np.sort(others)
    at = np.minimum(np.searchsorted(ordered, hashes), len(ordered) - 1)
    return int((ordered[at] == hashes).sum())


class Naming:
    """Names one split's rows from content and occurrence, so that reordering rows keeps the ids.

    ``twice`` are the hashes (48 bits, sorted) that stand more than once in the split; only they are
    counted, in 8 bytes each.
    """

    def __init__(self, split: str, twice: np.ndarray) -> None:
        self.split, self.twice = split, twice
        self.seen = np.zeros(len(twice), dtype=np.uint64)

    def name(self, hashed: int) -> str:
        """Return the id of the next row with this content hash."""
        short = hashed >> SHIFT
        name = f"{self.split}-{short:012x}"
        if len(self.twice):
            at = int(np.searchsorted(self.twice, np.uint64(short)))
            if at < len(self.twice) and int(self.twice[at]) == short:
                self.seen[at] += np.uint64(1)
                return name if self.seen[at] == 1 else f"{name}-{self.seen[at]}"
        return name


def stable_ids(contents: Iterable[str | bytes], split: str) -> list[str]:
    """Return the ids of a split's rows from split, content hash and occurrence."""
    hashes = [content_hash(content) for content in contents]
    naming = Naming(split, repeated(np.array(hashes, dtype=np.uint64) >> np.uint64(SHIFT)))
    return [naming.name(each) for each in hashes]
