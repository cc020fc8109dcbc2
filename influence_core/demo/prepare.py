"""``demo prepare``: a demo's shipped assets become a workspace. No torch, under half a minute."""

import time
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from influence_core.artefacts import base_key, check_same, write_parquet
from influence_core.attribution.base import Query
from influence_core.attribution.tables import IndexArrays, Table, write_arrays
from influence_core.data.dataset import Dataset
from influence_core.demo import assets
from influence_core.demo.demos import CHECKPOINT, Demo, find
from influence_core.errors import UserError
from influence_core.events import Events, Progress, Result, through
from influence_core.home import read_json
from influence_core.workspace import Workspace


def prepare(name: str = "demo:movie-reviews") -> Events:
    """Make (or complete) a demo's workspace; the result is what the command line prints."""
    started = time.monotonic()
    demo = find(name)
    for file in (demo.recipe_file, demo.weights_file):
        if not file.exists():
            raise UserError(f"{file} is missing: restore it from the repository, or make it with demo build {name}")
    recipe = read_json(demo.recipe_file)
    dataset = yield from through(demo.load(), Dataset)
    check_same(f"the data of {demo.name}", recipe["fingerprints"]["data"], dataset.fingerprint)
    workspace = Workspace.create(demo.name, dataset, demo.scope)
    phase = "unpacking the demo"
    yield Progress(phase=phase, done=0, total=3, unit="parts")
    install_checkpoint(demo, workspace, recipe)
    yield Progress(phase=phase, done=1, total=3, unit="parts")
    install_predictions(demo, workspace)
    yield Progress(phase=phase, done=2, total=3, unit="parts")
    install_index(demo, workspace, recipe)
    if demo.tracin:
        install_tracin(demo, workspace, recipe)
    yield Progress(phase=phase, done=3, total=3, unit="parts")
    accuracy = recipe["accuracy"]["test"]
    yield Result(value={"workspace": demo.name, "accuracy": accuracy, "seconds": time.monotonic() - started})


def install_checkpoint(demo: Demo, workspace: Workspace, recipe: dict[str, Any]) -> None:
    """Write the shipped checkpoint unless it is there, and hold it against its recorded fingerprint."""
    if not any(entry.name == CHECKPOINT for entry in workspace.checkpoints()):
        folder = workspace.path / "checkpoints" / CHECKPOINT
        demo.write_model(demo, folder, load_file(demo.weights_file), workspace.label_names)
        notes = {"recipe": recipe["recipe"]}
        workspace.add_checkpoint(CHECKPOINT, kind=demo.recipe.kind, accuracy=recipe["accuracy"], notes=notes)
    found = workspace.checkpoint(CHECKPOINT).fingerprint
    check_same(f"the checkpoint of {demo.name}", recipe["fingerprints"]["checkpoint"], found)


def install_predictions(demo: Demo, workspace: Workspace) -> None:
    """Split the shipped predictions into the workspace's artefacts."""
    if not demo.predictions_file.exists():
        return
    table = pd.read_parquet(demo.predictions_file)
    table = table.astype(dict.fromkeys(table.select_dtypes("float32"), np.float64))
    for split, frame in workspace.dataset.splits.items():
        folder = workspace.artefacts.make("predictions", workspace.prediction_key(split, CHECKPOINT))
        if not (folder / "predictions.parquet").exists():
            part = table.set_index("id").loc[frame["id"].to_list()].reset_index()
            write_parquet(folder / "predictions.parquet", part)


def queries(workspace: Workspace) -> list[Query]:
    """Return the mispredicted test rows by id, each for its predicted and its gold label: those that are shipped."""
    wrong = workspace.mispredictions("test", CHECKPOINT).sort_values("id", kind="stable")
    pairs = zip(wrong["id"], wrong["prediction"], wrong["label"], strict=True)
    return [Query(example, int(target)) for example, predicted, gold in pairs for target in (predicted, gold)]


def install_index(demo: Demo, workspace: Workspace, recipe: dict[str, Any]) -> None:
    """Unpack the shipped index, with the mispredicted test rows' query files."""
    if not demo.abif_file.exists():
        return
    arrays, about = load_file(demo.abif_file), recipe["abif"]
    key = {**base_key(workspace, CHECKPOINT, demo.scope), "method": "abif", **about["key"], "origin": "shipped"}
    table = Table(workspace.artefacts.make("abif", key), key)
    if table.complete:
        return
    labels = workspace.train["label"].to_numpy(dtype=np.int64)
    index = IndexArrays(table.folder, len(labels), key["k"])
    rows = assets.unpacked(arrays, "index")
    for shard, start, stop in index.missing():
        index.write(shard, rows[start:stop], arrays["sqnorms"][start:stop], labels[start:stop])
    for query, products in zip(queries(workspace), assets.unpacked(arrays, "queries"), strict=True):
        table.write_query(query, {"products": products})
    table.finish({**about["manifest"], "cursor": 0, "rows": len(labels)})


def install_tracin(demo: Demo, workspace: Workspace, recipe: dict[str, Any]) -> None:
    """Unpack the shipped TracIn products of the mispredicted test rows."""
    if not demo.tracin_file.exists():
        return
    arrays, key = load_file(demo.tracin_file), {**base_key(workspace, CHECKPOINT, demo.scope), "method": "tracin"}
    table = Table(workspace.artefacts.make("tracin", key), key)
    if table.complete:
        return
    labels = workspace.train["label"].to_numpy(dtype=np.int64)
    products = assets.unpacked(arrays, "products")
    for query, own, norm in zip(queries(workspace), products, arrays["query_norms"], strict=True):
        table.write_query(query, {"products": own, "norm": norm[None]})
    write_arrays(table.folder / "train.safetensors", {"norms": arrays["norms"], "labels": labels})
    table.finish({**recipe["tracin"]["manifest"], "cursor": 0, "rows": len(labels), "notes": {}})
