"""A safetensors file as arrays in single precision, bfloat16 included, which numpy does not know. No torch."""

import json
import struct
from pathlib import Path

import numpy as np

from influence_core.errors import UserError

FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
OTHERS = {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?"}


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Return all tensors by name, floating-point ones as float32, as models compute here.

    The file is one whose fingerprint was taken, so its header is sound. Raises `UserError` for a dtype
    that no model here has.
    """
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    data = np.memmap(file, np.uint8, mode="r", offset=8 + length) if file.stat().st_size > 8 + length else np.zeros(0)
    found = {}
    for name, entry in header.items():
        dtype = entry["dtype"]
        if dtype not in FLOATS and dtype not in OTHERS:
            raise UserError(f"{file} holds {name} as {dtype}: save the checkpoint in float32")
        begin, end = entry["data_offsets"]
        values = np.frombuffer(data[begin:end].tobytes(), (FLOATS | OTHERS)[dtype]).reshape(entry["shape"])
        if dtype == "BF16":  # the upper half of a float32's bits
            values = (values.astype(np.uint32) << 16).view(np.float32)
        found[name] = values.astype(np.float32) if dtype in FLOATS else values
    return found
