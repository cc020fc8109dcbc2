"""How the numbers of shipped tables are packed.

Rows of large tables are kept in half precision, each with its own float32 scale (its largest
absolute value), so that a row's relative accuracy does not depend on the row's size.
"""

import numpy as np


def pack(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ([R, C] float16, [R] float32 scales) of a table."""
    scales = np.abs(rows).max(axis=1).astype(np.float32)
    scales[scales == 0] = 1
    return (rows / scales[:, None]).astype(np.float16), scales


def unpack(halves: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return the table of `pack`, [R, C] float32."""
    return halves.astype(np.float32) * scales[:, None].astype(np.float32)


def packed(name: str, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return a table as two arrays to ship."""
    halves, scales = pack(rows)
    return {name: halves, f"{name}_scale": scales}


def unpacked(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Return the table of `packed`, [R, C] float32."""
    return unpack(arrays[name], arrays[f"{name}_scale"])
