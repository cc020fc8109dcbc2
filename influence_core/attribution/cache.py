"""Rankings' scores kept between questions, as plain bytes."""

import sqlite3
from contextlib import suppress
from typing import Any, BinaryIO

import diskcache
import numpy as np

from influence_core.attribution.base import Scores
from influence_core.fingerprints import key_hash
from influence_core.home import folder

BROKEN = (sqlite3.Error, diskcache.Timeout, ValueError, OSError)  # a cache that fails is a cache that is empty
ROW_LIMIT = 200_000
SIZE_LIMIT = 2**30  # bytes; the least recently used go first


class BytesDisk(diskcache.Disk):
    """A diskcache store that neither writes nor reads a pickle (CVE-2025-69872).

    Keys are text and values bytes; anything else, planted files included, is refused.
    """

    def put(self, key: Any) -> Any:
        """Accept text keys only."""
        if not isinstance(key, str):
            raise TypeError(f"a cache key must be text, got {type(key).__name__}")
        return super().put(key)

    def get(self, key: Any, raw: bool) -> Any:
        """Refuse a key that was pickled."""
        if not raw:
            raise ValueError("a pickled cache key is refused: delete the cache folder")
        return super().get(key, raw)

    def store(self, value: Any, read: bool, key: Any = diskcache.UNKNOWN) -> Any:
        """Accept bytes only."""
        if not isinstance(value, bytes):
            raise TypeError(f"a cached value must be bytes, got {type(value).__name__}")
        return super().store(value, read, key=key)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> bytes | BinaryIO:
        """Refuse a value that was pickled."""
        if mode not in (diskcache.core.MODE_RAW, diskcache.core.MODE_BINARY):
            raise ValueError(f"a cached value of mode {mode} is refused: delete the cache folder")
        found: bytes | BinaryIO = super().fetch(mode, filename, value, read)
        return found


def _open() -> diskcache.Cache:
    return diskcache.Cache(str(folder("cache", "rankings")), disk=BytesDisk, size_limit=SIZE_LIMIT)


def get(key: dict[str, Any]) -> Scores | None:
    """Return the scores kept under a key, or None."""
    kept = None
    with suppress(*BROKEN), _open() as cache:
        kept = cache.get(key_hash(key))
    if kept is None:
        return None
    table = np.frombuffer(kept, dtype=np.float64).reshape(4, -1)
    return Scores(table[0], table[1], table[2].astype(bool), table[3].astype(np.int64))


def put(key: dict[str, Any], scores: Scores) -> None:
    """Keep scores under a key; those of very many rows are made again faster than they are kept."""
    if len(scores.scores) > ROW_LIMIT:
        return
    table = np.stack([scores.scores, scores.cosines, scores.zero_norm, scores.labels]).astype(np.float64)
    with suppress(*BROKEN), _open() as cache:
        cache.set(key_hash(key), table.tobytes())
