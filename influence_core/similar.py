"""Nearest training rows by the model's own features: a control beside a ranking, no influence."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from influence_core.specs import Split

if TYPE_CHECKING:
    from influence_core.workspace import Workspace

BLOCK = 4096  # rows converted to float64 at a time


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows, most similar first."""

    rows: np.ndarray  # [top] int64, row numbers
    cosines: np.ndarray  # [top] float64 in [−1, 1]


def nearest(features: np.ndarray, query: np.ndarray, top: int) -> Neighbours:
    """Return the rows of ``features`` [N, d] with the largest cosine to ``query`` [d]; ties in row order.

    A zero vector has cosine 0 with everything. ``top`` is cut to N.
    """
    wanted = query.astype(np.float64)
    length = float(np.linalg.norm(wanted))
    cosines = np.zeros(len(features))
    for first in range(0, len(features), BLOCK):
        block = features[first : first + BLOCK].astype(np.float64)
        norms = np.linalg.norm(block, axis=1) * length
        products = block @ wanted
        np.divide(products, norms, out=cosines[first : first + BLOCK], where=norms > 0)
    order = np.argsort(-cosines, kind="stable")[:top]
    return Neighbours(order.astype(np.int64), np.clip(cosines[order], -1, 1))


def features(workspace: "Workspace", split: Split, checkpoint: str | None = None) -> np.ndarray | None:
    """Return a split's kept features, [N, d] float16 in row order, or None where they were not computed."""
    folder = workspace.artefacts.path("predictions", workspace.prediction_key(split, checkpoint))
    file = folder / "features.npy"
    if not file.exists():
        return None
    found: np.ndarray = np.load(file, allow_pickle=False)
    return found if len(found) == len(workspace.dataset.splits[split]) else None


def missing(workspace: "Workspace", splits: tuple[Split, ...], checkpoint: str | None = None) -> list[Split]:
    """Return those of the splits whose features were not computed yet."""
    return [split for split in splits if features(workspace, split, checkpoint) is None]


def similar(workspace: "Workspace", example: str, top: int = 50, checkpoint: str | None = None) -> Neighbours | None:
    """Return the training rows nearest to an example, or None where features are missing (`missing`)."""
    split, row = workspace.locate(example)
    train, own = features(workspace, "train", checkpoint), features(workspace, split, checkpoint)
    return None if train is None or own is None else nearest(train, own[row], top)
