"""``demo prepare``: the shipped assets become a workspace. No torch, under half a minute."""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from influence_core.artefacts import base_key, check_same, write_parquet
from influence_core.attribution.base import Query
from influence_core.attribution.tables import IndexArrays, Table, write_arrays
from influence_core.data import reviews
from influence_core.data.dataset import Dataset
from influence_core.demo import assets
from influence_core.errors import UserError
from influence_core.events import Events, Progress, Result, through
from influence_core.home import read_json, write_json, write_text
from influence_core.workspace import WEIGHTS, Workspace

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def check_name(name: str) -> None:
    """Refuse a demo that does not exist; accepts the name with or without ``demo:``."""
    if name.removeprefix("demo:") != assets.NAME.removeprefix("demo:"):
        raise UserError(f"there is no demo {name!r}: the demo is {assets.NAME.removeprefix('demo:')}")


def write_model(folder: Path, delta: dict[str, np.ndarray], label_names: tuple[str, ...]) -> None:
    """Write a plain Hugging Face checkpoint: the base encoder with the delta's tensors in place."""
    from safetensors.numpy import save_file

    base = assets.base_folder()
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"bert.{name}": value for name, value in load_file(base / WEIGHTS).items() if not name.endswith("position_ids")
    }
    tensors.update({name: value.astype(np.float32) for name, value in delta.items()})
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


def prepare(name: str = assets.NAME) -> Events:
    """Make (or complete) the demo workspace; the result is what the command line prints."""
    started = time.monotonic()
    check_name(name)
    for file in (assets.RECIPE, assets.DELTA):
        if not file.exists():
            raise UserError(f"{file} is missing: restore it from the repository, or make it with demo build {name}")
    recipe = read_json(assets.RECIPE)
    dataset = yield from through(reviews.load(), Dataset)
    check_same("the movie-review data", recipe["fingerprints"]["data"], dataset.fingerprint)
    workspace = Workspace.create(assets.NAME, dataset, recipe["recipe"]["scope"])
    phase = "unpacking the demo"
    yield Progress(phase=phase, done=0, total=3, unit="parts")
    install_checkpoint(workspace, recipe)
    yield Progress(phase=phase, done=1, total=3, unit="parts")
    install_predictions(workspace)
    yield Progress(phase=phase, done=2, total=3, unit="parts")
    install_products(workspace, recipe)
    yield Progress(phase=phase, done=3, total=3, unit="parts")
    accuracy = recipe["accuracy"]["test"]
    yield Result(value={"workspace": assets.NAME, "accuracy": accuracy, "seconds": time.monotonic() - started})


def install_checkpoint(workspace: Workspace, recipe: dict[str, Any]) -> None:
    """Write the shipped checkpoint unless it is there, and hold it against its recorded fingerprint."""
    if not any(entry.name == assets.CHECKPOINT for entry in workspace.checkpoints()):
        folder = workspace.path / "checkpoints" / assets.CHECKPOINT
        write_model(folder, load_file(assets.DELTA), workspace.label_names)
        workspace.add_checkpoint(assets.CHECKPOINT, accuracy=recipe["accuracy"], notes={"recipe": recipe["recipe"]})
    found = workspace.checkpoint(assets.CHECKPOINT).fingerprint
    check_same("the demo checkpoint", recipe["fingerprints"]["checkpoint"], found)


def install_predictions(workspace: Workspace) -> None:
    """Split the shipped predictions into the workspace's artefacts."""
    if not assets.PREDICTIONS.exists():
        return
    table = pd.read_parquet(assets.PREDICTIONS)
    for split, frame in workspace.dataset.splits.items():
        folder = workspace.artefacts.make("predictions", workspace.prediction_key(split, assets.CHECKPOINT))
        if not (folder / "predictions.parquet").exists():
            part = table.set_index("id").loc[frame["id"].to_list()].reset_index()
            write_parquet(folder / "predictions.parquet", part)


def install_products(workspace: Workspace, recipe: dict[str, Any]) -> None:
    """Unpack the shipped index and TracIn products, with the mispredicted test rows' query files."""
    base = base_key(workspace, assets.CHECKPOINT, recipe["recipe"]["scope"])
    labels = workspace.train["label"].to_numpy(dtype=np.int64)
    if assets.ABIF.exists():
        arrays, about = load_file(assets.ABIF), recipe["abif"]
        key = {**base, "method": "abif", **about["key"], "origin": "shipped"}
        table = Table(workspace.artefacts.make("abif", key), key)
        if not table.complete:
            index = IndexArrays(table.folder, len(labels), key["k"])
            products = unpack_rows(arrays, "index")
            for shard, start, stop in index.missing():
                index.write(shard, products[start:stop], arrays["sqnorms"][start:stop], labels[start:stop])
            queries = unpack_rows(arrays, "queries")
            for place, (example, target) in enumerate(recipe["queries"]):
                table.write_query(Query(example, target), {"products": queries[place]})
            table.finish({**about["manifest"], "cursor": 0, "rows": len(labels)})
    if assets.TRACIN.exists():
        arrays, key = load_file(assets.TRACIN), {**base, "method": "tracin"}
        table = Table(workspace.artefacts.make("tracin", key), key)
        if not table.complete:
            products = unpack_rows(arrays, "products")
            for place, (example, target) in enumerate(recipe["queries"]):
                norm = arrays["query_norms"][place : place + 1]
                table.write_query(Query(example, target), {"products": products[place], "norm": norm})
            write_arrays(table.folder / "train.safetensors", {"norms": arrays["norms"], "labels": labels})
            table.finish({**recipe["tracin"]["manifest"], "cursor": 0, "rows": len(labels), "notes": {}})


def unpack_rows(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Return a packed table, [R, C] float32."""
    return assets.unpack(arrays[name], arrays[f"{name}_scale"])
