"""How a checkpoint came to be, as far as it is recorded: by which recipe, from where. No torch."""

import sysconfig
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from influence_core.artefacts import CODE_VERSION
from influence_core.errors import UserError
from influence_core.fingerprints import companions_fingerprint, key_hash, tensors_fingerprint
from influence_core.home import home, read_json
from influence_core.specs import DEFAULT_RATE, RetrainSpec
from influence_core.training.recipes import Recipe

if TYPE_CHECKING:
    from influence_core.workspace import Checkpoint, Workspace

WEIGHTS = "model.safetensors"
BATCH_SIZE, EPOCHS = 32, 1  # of a training that goes on from a checkpoint


@dataclass(frozen=True)
class Origin:
    """A training that can be made again."""

    recipe: Recipe
    start: str  # a base (folder, hub name or architecture of `bases.SCRATCH`), or a checkpoint's folder
    checkpoint: bool  # which of the two

    @property
    def shown(self) -> str:
        """The base as a result names it: one that a package or the home holds without this machine's folders."""
        for name, root in (("package", Path(sysconfig.get_path("purelib"))), ("home", home())):
            if Path(self.start).is_relative_to(root):
                return f"{name}: {Path(self.start).relative_to(root).as_posix()}"
        return self.start

    def key(self, workspace: "Workspace", labels: list[int], seed: int) -> dict[str, Any]:
        """Return all that the weights depend on, for training labels [N] and a seed in place of the recipe's."""
        told = {"name", "data", "test", "evaluated", "keep_epochs", "base", "seed"}  # of no influence here, or below
        folder = Path(self.start)
        weights = sorted(folder.glob("*.safetensors"))  # several where they are kept in parts
        return {
            "recipe": {name: value for name, value in self.recipe.as_json().items() if name not in told},
            "start": [tensors_fingerprint(file) for file in weights] or self.start,
            "companions": companions_fingerprint(folder) if folder.is_dir() else "",
            "goes_on": self.checkpoint,
            "seed": seed,
            "data": workspace.data_fingerprint,
            "labels": key_hash({"labels": labels}),
            "code": CODE_VERSION,
        }


def origin_of(workspace: "Workspace", spec: RetrainSpec) -> Origin:
    """Return the training that made a checkpoint, or one that goes on from it, with the spec's own numbers.

    Raises `UserError` for a checkpoint that records no recipe, or one whose base is not known.
    """
    entry = workspace.checkpoint(spec.checkpoint)
    if spec.start == "checkpoint":
        return Origin(_going_on(workspace, entry, spec), entry.path, True)
    recipe, base = _recorded(workspace, entry)
    changes: dict[str, Any] = {} if spec.epochs is None else {"epochs": spec.epochs, "steps": None}
    for name in ("learning_rate", "batch_size"):
        if getattr(spec, name) is not None:
            changes[name] = getattr(spec, name)
    return Origin(replace(recipe, **changes), base, False)


def _going_on(workspace: "Workspace", entry: "Checkpoint", spec: RetrainSpec) -> Recipe:
    """Return a training from a checkpoint with its own optimizer, at a rate that does not change, Adam from zeros."""
    known = entry.optimizer or {}
    kind = known.get("kind", "adam")
    return Recipe(
        name="from-checkpoint",
        kind=entry.kind,
        scope=spec.scope or workspace.scope,
        epochs=spec.epochs or EPOCHS,
        batch_size=spec.batch_size or BATCH_SIZE,
        learning_rate=spec.learning_rate or DEFAULT_RATE[kind],
        optimizer=kind,
        momentum=known.get("momentum", 0.0) if kind == "sgd" else 0.0,
        weight_decay=known.get("weight_decay", 0.0),
        decoupled=bool(known.get("decoupled", False)) and kind == "adam",
        max_length=entry.preparation.max_length,
        prefix=entry.preparation.prefix,
        label_words=entry.preparation.label_words,
        seed=spec.seed,
    )


def _recorded(workspace: "Workspace", entry: "Checkpoint") -> tuple[Recipe, str]:
    """Return recipe and base as recorded; in a demo's workspace what was left unsaid is the demo's."""
    from influence_core.demo.demos import demos  # which imports the recipes

    asked = f"checkpoint {entry.name} of {workspace.name}"
    advice = "start from the checkpoint itself (--from checkpoint)"
    told = entry.notes.get("recipe")
    if not isinstance(told, dict) or not told:
        before = f", name its parent {entry.parent} (--checkpoint)" if entry.parent else ""
        raise UserError(
            f"{asked} records no recipe of its training, as train writes into training.json: {advice}{before}"
        )
    demo = demos().get(workspace.name)
    known = {**(demo.recipe.as_json() if demo else {}), **told}
    names = {field.name for field in fields(Recipe)}
    odd, missing = sorted(known.keys() - names), sorted({"name", "learning_rate", "batch_size"} - known.keys())
    if odd or missing:
        what = f"records {odd[0]} of its training, which no recipe of train has" if odd else f"lacks {missing[0]}"
        raise UserError(f"{asked}: its recipe {what}, so it cannot be trained again: {advice}")
    values: dict[str, Any] = {name: tuple(own) if isinstance(own, list) else own for name, own in known.items()}
    recipe = Recipe(**values)
    base = _given(entry) or recipe.base
    if not base and demo is not None and demo.base_folder is not None:
        base = str(demo.base_folder())
    if not base:
        raise UserError(f"{asked} records a recipe but no base that its training started from: {advice}")
    return recipe, base


def _given(entry: "Checkpoint") -> str | None:
    """Return the base that the training's folder names, where the checkpoint still lies in it: --base goes before."""
    about = Path(entry.path).parent / "about.json"
    found = read_json(about) if (Path(entry.path) / "training.json").is_file() and about.is_file() else {}
    base = found.get("base") if isinstance(found, dict) else None
    return base if isinstance(base, str) and base else None
