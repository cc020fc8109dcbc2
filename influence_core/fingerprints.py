"""Fingerprints of tensors and keys, without loading torch."""

import hashlib
import json
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

from influence_core.errors import UserError

HEADER_LIMIT = 100 * 2**20  # bytes; the format's own limit
# Files beside the weights that say how inputs are read and what the model computes.
DECIDING = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",  # sentencepiece's
    "preprocessor_config.json",
    "processor_config.json",
)
# What configurations say of where and by whom they were written, and of the dtype, which is float32 here.
VOLATILE = ("transformers_version", "_name_or_path", "name_or_path", "_commit_hash", "dtype", "torch_dtype")


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


def companions(folder: Path) -> list[Path]:
    """Return the files beside a checkpoint's weights that decide what it computes: what a copy of it needs."""
    return sorted({file for pattern in DECIDING for file in folder.glob(pattern) if file.is_file()})


def companions_fingerprint(folder: Path) -> str:
    """SHA-256 over the files beside a checkpoint's weights that decide what it computes; "" where there are none.

    Configurations count by their content without `VOLATILE`, other files by their bytes.
    """
    stats = [(file, file.stat()) for file in companions(folder)]
    return _companions_fingerprint(tuple((file, stat.st_mtime_ns, stat.st_size) for file, stat in stats))


@lru_cache(maxsize=64)
def _companions_fingerprint(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for file, _, _ in files:
        content = file.read_bytes()
        if file.name.endswith("config.json"):
            content = _canonical(content)
        digest.update(f"{file.name}\x1f{len(content)}\x1e".encode())
        digest.update(content)
    return digest.hexdigest() if files else ""


def _canonical(content: bytes) -> bytes:
    """Return a configuration without `VOLATILE`, in one spelling; what is no JSON object as it is."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return content
    if not isinstance(found, dict):
        return content
    return json.dumps({name: found[name] for name in found if name not in VOLATILE}, sort_keys=True).encode()
