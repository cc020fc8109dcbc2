"""Fingerprints of tensors and keys, without loading torch."""

import hashlib
import json
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

from influence_core.errors import UserError

HEADER_LIMIT = 100 * 2**20  # bytes; the format's own limit


def key_hash(key: dict[str, Any]) -> str:
    """Return 16 hex digits that name an artefact key (canonical JSON, SHA-256)."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def tensors_fingerprint(path: Path) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a safetensors file, in order of names.

    Independent of the header's spelling and the tensors' order in the file, so a rewritten file
    with the same weights has the same fingerprint. Raises `UserError` for a file that is none.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: a checkpoint needs its weights as safetensors there")
    stat = path.stat()
    return _tensors_fingerprint(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _tensors_fingerprint(path: Path, _changed: int, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        try:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(HEADER_LIMIT, size - 8):
                raise ValueError(f"header of {length} bytes in a file of {size}")
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            for name in sorted(header):
                entry = header[name]
                begin, end = entry["data_offsets"]
                digest.update(f"{name}\x1f{entry['dtype']}\x1f{entry['shape']}\x1e".encode())
                stream.seek(8 + length + begin)
                digest.update(stream.read(end - begin))
        except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is not a safetensors file ({error}): save the checkpoint again") from None
    return digest.hexdigest()
