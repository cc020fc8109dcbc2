"""What tensors a checkpoint's files hold, read from their headers; nothing is allocated, nothing executed. No torch."""

import json
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from influence_core.errors import UserError
from influence_core.fingerprints import HEADER_LIMIT

DEFAULT_LIMIT_GB = "8"
JSON_LIMIT = 10 * 2**20  # bytes of a configuration or an index
BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
BYTES |= {"I8": 1, "U8": 1, "BOOL": 1}
FLOATING = ("F64", "F32", "F16", "BF16")
STATISTICS = ("running_mean", "running_var")  # buffers that are kept beside parameters


@dataclass(frozen=True)
class TensorHeader:
    """One tensor as its file declares it."""

    dtype: str  # as safetensors names it: F32, I64, …
    shape: tuple[int, ...]
    storage: str = ""  # tensors of one pickle with the same one share memory

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


Headers = dict[str, TensorHeader]


def read_limited(file: Path, most: int = JSON_LIMIT) -> dict[str, Any]:
    """Read a JSON object; raises `UserError` for a file that is missing, above so many bytes, or something else."""
    try:
        if file.stat().st_size > most:
            raise UserError(
                f"{file} has {file.stat().st_size:,} bytes, more than any configuration: check where it is from"
            )
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} is missing: save the checkpoint again") from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{file} is not JSON ({_first_line(error)}): save the checkpoint again") from None
    if not isinstance(found, dict):
        raise UserError(f"{file} holds a {type(found).__name__}, not a configuration: save the checkpoint again")
    return found


def safetensors_headers(file: Path) -> Headers:
    """Return the tensors of a safetensors file, by name.

    Raises `UserError` for a header that is damaged or declares other bytes than the file holds.
    """
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(HEADER_LIMIT, size - 8):
                raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
            entries: dict[str, Any] = json.loads(stream.read(length))
        entries.pop("__metadata__", None)
        found: Headers = {}
        spans = []
        for name, entry in entries.items():
            begin, end = entry["data_offsets"]
            shape = tuple(entry["shape"])
            if not all(isinstance(each, int) and each >= 0 for each in (begin, end, *shape)):
                raise ValueError(f"{name} has sizes that are none")
            found[name] = TensorHeader(str(entry["dtype"]), shape)
            if end - begin != found[name].count * BYTES[found[name].dtype] or end > size - 8 - length:
                raise ValueError(f"{name} declares {shape} {entry['dtype']}, which its bytes in the file do not hold")
            spans.append((begin, end))
        if any(
            begin != before
            for (begin, _), before in zip(sorted(spans), (0, *(e for _, e in sorted(spans))), strict=False)
        ):
            raise ValueError("tensors overlap or leave gaps")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{file} is not a sound safetensors file ({_first_line(error)}): save the checkpoint again"
        ) from None
    return found


def limit() -> float:
    """Return the bytes of float32 parameters that ``INFLUENCE_MODEL_LIMIT_GB`` (default 8) allows a checkpoint."""
    given = os.environ.get("INFLUENCE_MODEL_LIMIT_GB", DEFAULT_LIMIT_GB)
    try:
        gigabytes = float(given)
    except ValueError:
        gigabytes = math.nan
    if not gigabytes > 0:
        raise UserError(f"INFLUENCE_MODEL_LIMIT_GB = {given!r} is not a number of gigabytes: set one above 0")
    return gigabytes * 1e9


def refuse_too_large(where: Path, numbers: int) -> None:
    """Raise `UserError` where so many numbers, each as float32, are more than `limit` allows."""
    if 4 * numbers > limit():
        raise UserError(
            f"{where} declares {numbers:,} numbers, {4 * numbers / 1e9:,.1f} GB as float32, more than "
            f"INFLUENCE_MODEL_LIMIT_GB = {limit() / 1e9:g}: check where it is from, or raise the limit"
        )


def numbers_of(headers: Headers) -> int:
    """Return how many numbers the tensors hold; memory that tensors share counts once."""
    return sum(header.count for header in _apart(headers).values())


def parameters_of(headers: Headers) -> int:
    """Return how many of them are parameters: floating-point, and no running statistics."""
    return sum(
        header.count
        for name, header in _apart(headers).items()
        if header.dtype in FLOATING and not name.endswith(STATISTICS)
    )


def _apart(headers: Headers) -> Headers:
    """Leave out tensors whose memory stands under another name before."""
    seen: set[str] = set()
    kept: Headers = {}
    for name, header in headers.items():
        if header.storage not in seen:
            kept[name] = header
        if header.storage:
            seen.add(header.storage)
    return kept


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
