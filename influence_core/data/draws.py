"""Seeded numbers that belong to ids."""

import hashlib


def draw(seed: int, purpose: str, example: str) -> int:
    """Return a number of 64 bits for one id. A hash: library generators may change their streams between releases."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}/{example}".encode()).digest()[:8], "big")
