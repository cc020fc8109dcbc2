"""A training's folder: its checkpoints, each whole or not there, and which one was chosen."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from influence_core.errors import UserError
from influence_core.home import read_json, write_json
from influence_core.training.bases import save
from influence_core.training.loop import BETA1, BETA2, EPS, Reached
from influence_core.training.recipes import Recipe

ABOUT = "training.json"
OPTIMIZER = "optimizer.safetensors"
UNFINISHED = ".unfinished-"


@dataclass(frozen=True)
class TrainingFolder:
    """``start/``, ``checkpoint-<step>/``, ``epoch-<n>/``, ``about.json`` and ``selected.json`` in one folder."""

    path: Path

    @property
    def start(self) -> Path:
        """The checkpoint that the training starts from."""
        return self.path / "start"

    def prepare(self, about: dict[str, Any], resume: bool) -> None:
        """Make the folder for a training that ``about`` describes, or hold it against the one in the folder.

        Raises `UserError` for a folder in use without ``resume``, or for a training that differs.
        """
        file = self.path / "about.json"
        if file.exists():
            if not resume:
                raise UserError(f"{self.path} holds a training already: add --resume, or give another folder")
            recorded = read_json(file)
            odd = next((name for name in about if recorded.get(name) != about[name]), None)
            if odd is not None:
                raise UserError(
                    f"the training in {self.path} has {odd} {recorded.get(odd)}, not {about[odd]}: "
                    "resume it with what it began with, or give another folder"
                )
        elif self.path.exists() and any(self.path.iterdir()):
            raise UserError(f"{self.path} holds other files: give a folder that is empty or new")
        for left in self.path.glob(f"{UNFINISHED}*"):
            shutil.rmtree(left)
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(file, about)

    @contextmanager
    def whole(self, name: str) -> Iterator[Path]:
        """Give a temporary folder that becomes ``name`` when the block ends well."""
        temporary = self.path / f"{UNFINISHED}{name}"
        shutil.rmtree(temporary, ignore_errors=True)
        yield temporary
        temporary.replace(self.path / name)

    def checkpoints(self) -> list[str]:
        """Names of the whole checkpoints, by step."""
        found = [place.parent.name for place in self.path.glob(f"checkpoint-*/{ABOUT}")]
        return sorted(found, key=lambda name: int(name.removeprefix("checkpoint-")))

    def about(self, name: str) -> dict[str, Any]:
        """Return what a checkpoint records of its training."""
        return dict(read_json(self.path / name / ABOUT))

    def last(self) -> tuple[Path, Reached] | None:
        """Return the last whole checkpoint's folder and the point it was reached at, or None."""
        names = self.checkpoints()
        if not names:
            return None
        about, folder = self.about(names[-1]), self.path / names[-1]
        rate, loss = about["mean_learning_rate"], about["training_loss"]
        return folder, Reached(about["step"], about["epoch"], load_file(folder / OPTIMIZER), rate, loss)

    def write(self, module: nn.Module, reached: Reached, about: dict[str, Any], kept_as: str | None) -> str:
        """Write a checkpoint (a second time as ``kept_as``); returns its name."""
        name = f"checkpoint-{reached.step}"
        with self.whole(name) as folder:
            save(module, self.start, folder)
            save_file(reached.optimizer, folder / OPTIMIZER)
            write_json(folder / ABOUT, about)
        if kept_as is not None:
            with self.whole(kept_as) as folder:
                shutil.copytree(self.path / name, folder)
        return name

    def select(self, how: str) -> str:
        """Record and return the chosen checkpoint: the last, or the best on validation, of equals the earlier."""
        names = self.checkpoints()
        chosen = names[-1]
        if how == "best-validation":
            chosen = max(names, key=lambda name: float(self.about(name)["validation"]["accuracy"]))
        write_json(self.path / "selected.json", {"checkpoint": chosen, "by": how})
        return chosen


def describe(recipe: Recipe, reached: Reached, rate: float, validation: dict[str, float] | None) -> dict[str, Any]:
    """Return a checkpoint's ``training.json``; ``rate`` is that of its last step, the recipe's base the one it had."""
    return {
        "step": reached.step,
        "epoch": reached.epoch,
        "optimizer": {
            "kind": recipe.optimizer,
            "learning_rate": rate,
            "weight_decay": recipe.weight_decay,
            "decoupled": recipe.decoupled,
            "momentum": recipe.momentum,
            "beta1": BETA1,
            "beta2": BETA2,
            "eps": EPS,
            "undecayed": [],
        },
        "schedule": recipe.schedule,
        "mean_learning_rate": reached.learning_rate,
        "training_loss": reached.loss,
        "recipe": recipe.as_json(),
        "validation": validation,
        "seed": recipe.seed,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
