"""What a demo is, and which there are; no torch."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from influence_core.data.dataset import Dataset
from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.training.recipes import Recipe

ASSETS = Path(__file__).resolve().parents[2] / "assets"
CHECKPOINT = "shipped"

Writer = Callable[["Demo", Path, Mapping[str, np.ndarray], tuple[str, ...]], None]


@dataclass(frozen=True)
class Demo:
    """One demo: where its data comes from, how its checkpoint was trained, and what is shipped of it."""

    name: str  # of its workspace
    recipe: Recipe
    base: str  # what it was trained from, for the record
    scope: str  # of its workspace
    weights: str  # the file of shipped tensors, in half precision
    load: Callable[[], Iterator[Progress | Dataset]]
    write_model: Writer  # (demo, folder, shipped tensors, class names) ─► a plain checkpoint
    base_folder: Callable[[], Path] | None = None  # where the base is installed, unless the recipe makes it
    side_files: tuple[str, ...] = ()  # shipped beside the weights: of the checkpoint, unless the base has them
    tracin: bool = True  # whether TracIn's products are shipped (of two classes)

    @property
    def folder(self) -> Path:
        """The assets."""
        return ASSETS / self.name.removeprefix("demo:")

    @property
    def recipe_file(self) -> Path:
        """How the shipped files were made, and what they have to fit."""
        return self.folder / "recipe.json"

    @property
    def weights_file(self) -> Path:
        """The shipped tensors."""
        return self.folder / self.weights

    @property
    def predictions_file(self) -> Path:
        """Predictions of every split."""
        return self.folder / "predictions.parquet"

    @property
    def abif_file(self) -> Path:
        """The index, with the products of the mispredicted test rows."""
        return self.folder / "abif.safetensors"

    @property
    def tracin_file(self) -> Path:
        """TracIn's products of the mispredicted test rows."""
        return self.folder / "tracin.safetensors"


def demos() -> dict[str, Demo]:
    """Return all demos by name."""
    from influence_core.demo.fashion import FASHION
    from influence_core.demo.movies import MOVIES

    return {demo.name: demo for demo in (MOVIES, FASHION)}


def find(name: str) -> Demo:
    """Return a demo by its name, with or without ``demo:``; raises `UserError` naming those that exist."""
    known = demos()
    full = f"demo:{name.removeprefix('demo:')}"
    if full not in known:
        names = " and ".join(own.removeprefix("demo:") for own in known)
        raise UserError(f"there is no demo {name!r}: the demos are {names}")
    return known[full]
