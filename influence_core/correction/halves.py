"""Which of the rows whose predictions should stay are most similar to those corrected (paper, Sec. 7)."""

import numpy as np


def nearest_half(rows: np.ndarray, corrected: np.ndarray) -> np.ndarray:
    """Return [n] bool: the half of ``rows`` [n, d] with the largest cosine to one of ``corrected`` [q, d].

    Of an odd number the median row is in this half; of equal ones the earlier rows are. A zero vector has
    cosine 0 with everything.
    """
    cosines = (_unit(rows) @ _unit(corrected).T).max(axis=1)
    near = np.zeros(len(rows), dtype=bool)
    near[np.argsort(-cosines, kind="stable")[: (len(rows) + 1) // 2]] = True
    return near


def _unit(rows: np.ndarray) -> np.ndarray:
    """Return rows [n, d] of length 1 in float64; rows of zeros stay."""
    wide = rows.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(wide, norms, out=np.zeros_like(wide), where=norms > 0)
    return unit
