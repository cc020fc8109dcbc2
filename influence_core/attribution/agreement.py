"""How well two sets of scores agree: overlap of the lists at both ends, and rank correlation."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def agreement(pairs: Sequence[tuple[np.ndarray, np.ndarray]], top: int) -> dict[str, float]:
    """Return the mean share that the top lists have in common and the mean Spearman correlation, over pairs of [N].

    Both ends count: the ``top`` largest values and the ``top`` smallest.
    """
    overlaps, correlations = [], []
    for pair in pairs:
        for sign in (1, -1):
            first, second = (set(np.argsort(-sign * each, kind="stable")[:top].tolist()) for each in pair)
            overlaps.append(len(first & second) / top)
        one, two = (pd.Series(each).rank() for each in pair)
        correlations.append(float(one.corr(two)))
    return {"overlap": float(np.mean(overlaps)), "spearman": float(np.mean(correlations))}
