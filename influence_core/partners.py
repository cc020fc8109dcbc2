"""Who gets whose proponents under ``permuted``, the control of App. I; torch-free."""

import numpy as np

from influence_core.errors import UserError
from influence_core.workspace import Workspace


def permuted(rows: np.ndarray, predicted: int, desired: int, seed: int) -> dict[int, int]:
    """Return by row whose proponents it gets: a permutation without fixed points of a set of mispredictions.

    ``rows`` [n] int64 are row numbers of those with one prediction and one desired label; the seed and the
    two class numbers draw an order of them, and each gets the one before it. Empty for a set of one.
    """
    own = np.unique(rows)
    if len(own) < 2:
        return {}
    order = np.random.default_rng([seed, predicted, desired]).permutation(own)
    return {int(row): int(other) for row, other in zip(order, np.roll(order, 1), strict=True)}


def partner(workspace: Workspace, checkpoint: str | None, example: str, predicted: int, desired: int, seed: int) -> str:
    """Return whose proponents an example gets, among the mispredictions of its predicted split.

    The set has those with its prediction whose true label is the desired one, and the example itself.
    Raises `UserError` where there is no other.
    """
    split, row = workspace.locate(example)
    frame = workspace.dataset.splits[split]
    truth = (frame["gold"] if "gold" in frame else frame["label"]).to_numpy(dtype=np.int64)
    found = workspace.predict(split, checkpoint)["prediction"].to_numpy(dtype=np.int64)
    like = np.flatnonzero((found == predicted) & (truth == desired))
    others = permuted(np.append(like, row), predicted, desired, seed)
    if row not in others:
        names = workspace.label_names
        raise UserError(
            f"example {example!r} is the only {split} row that is predicted {names[predicted]} and should be "
            f"{names[desired]}: there is no other's proponents to take, choose another strategy"
        )
    return str(frame["id"].iloc[others[row]])
