"""``demo build``: train a demo's checkpoint and make everything that is shipped with it.

About forty minutes on 2 cores for the movie reviews, fifteen for Fashion-MNIST. Each part is
skipped when it is already there and fits, so an interrupted build goes on where it stopped.
"""

import platform
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file, save_file

from influence_core.attribution.abif import Abif
from influence_core.attribution.indexing import index_key
from influence_core.attribution.indexing import run as build_index
from influence_core.attribution.tables import IndexArrays, Table, write_arrays
from influence_core.attribution.tracin import TracIn
from influence_core.checkpoints.recorded import recorded
from influence_core.data.dataset import Dataset
from influence_core.demo import assets
from influence_core.demo.demos import CHECKPOINT, Demo, find
from influence_core.demo.prepare import install_checkpoint, queries
from influence_core.errors import UserError
from influence_core.events import Events, Progress, Result, through
from influence_core.home import folder, read_json, write_json
from influence_core.models.loading import load, rows_of
from influence_core.models.predict import Predictions, predict, save
from influence_core.models.tensor_names import file_names
from influence_core.specs import IndexSpec, RankSpec
from influence_core.training.folder import TrainingFolder
from influence_core.training.run import classifier_of, fit
from influence_core.workspace import WEIGHTS, Workspace, now


def build(name: str = "demo:movie-reviews", keep_epochs: bool = False) -> Events:
    """Build all assets; the result is what the command line prints."""
    started = time.monotonic()
    demo = find(name)
    dataset = yield from through(demo.load(), Dataset)
    demo.folder.mkdir(parents=True, exist_ok=True)
    recipe: dict[str, Any] = read_json(demo.recipe_file) if demo.recipe_file.exists() else {}
    check_recipe(demo, recipe)
    place = TrainingFolder(folder("training") / demo.folder.name)
    if keep_epochs or not demo.weights_file.exists():
        yield from train(demo, dataset, place)
    if not demo.weights_file.exists():
        ship_weights(demo, place, dataset.label_names)
        recipe["recipe"] = demo.recipe.as_json()
    recipe["base"] = demo.base
    recipe["data"] = dict(dataset.notes)
    workspace = Workspace.create(demo.name, dataset, demo.scope)
    if not any(entry.name == CHECKPOINT for entry in workspace.checkpoints()):
        where = workspace.path / "checkpoints" / CHECKPOINT
        demo.write_model(demo, where, load_arrays(demo.weights_file), dataset.label_names)
        workspace.add_checkpoint(CHECKPOINT, kind=demo.recipe.kind, notes={"recipe": recipe["recipe"]})
    if keep_epochs:
        keep(demo, workspace, place)
    fingerprint = workspace.checkpoint(CHECKPOINT).fingerprint
    recipe["fingerprints"] = {"data": dataset.fingerprint, "checkpoint": fingerprint}
    yield from _predictions(demo, workspace, recipe)
    write_json(demo.recipe_file, recipe)
    if demo.tracin:
        yield from _tracin(demo, workspace, recipe)
        write_json(demo.recipe_file, recipe)
    yield from _abif(demo, workspace, recipe)
    versions = {"torch": torch.__version__, "threads": torch.get_num_threads(), "python": platform.python_version()}
    recipe["made"] = {"when": now(), **versions}
    write_json(demo.recipe_file, recipe)
    install_checkpoint(demo, workspace, recipe)
    accuracy = recipe["accuracy"]["test"]
    yield Result(value={"workspace": demo.name, "accuracy": accuracy, "seconds": time.monotonic() - started})


def check_recipe(demo: Demo, made: dict[str, Any]) -> None:
    """Refuse shipped weights of another recipe than the demo's."""
    asked = demo.recipe.as_json()
    for field, value in made.get("recipe", {}).items():
        if demo.weights_file.exists() and asked[field] != value:
            raise UserError(
                f"{demo.weights_file} was trained with {field} {value}, the recipe says {asked[field]}: "
                "delete that file to train again"
            )


def train(demo: Demo, dataset: Dataset, place: TrainingFolder) -> Iterator[Progress]:
    """Train, or go on with the training that was interrupted; a checkpoint each epoch."""
    base = None if demo.base_folder is None else str(demo.base_folder())
    yield from (
        event for event in fit(demo.recipe, dataset, place.path, base, resume=True) if isinstance(event, Progress)
    )


def ship_weights(demo: Demo, place: TrainingFolder, label_names: tuple[str, ...]) -> None:
    """Write the last checkpoint's trained tensors in half precision, and the files beside them that a demo ships."""
    chosen = place.path / place.checkpoints()[-1]
    tensors = load_file(chosen / WEIGHTS)
    if demo.recipe.scope != "all":
        classifier = classifier_of(demo.recipe, chosen, label_names)
        names = file_names(classifier.module, classifier.scope(demo.recipe.scope).parameters, tensors)
        tensors = {name: tensors[name] for name in names.values()}
    halves = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    save_file(halves, demo.weights_file)
    for file in demo.side_files:
        shutil.copyfile(chosen / file, demo.folder / file)


def keep(demo: Demo, workspace: Workspace, place: TrainingFolder) -> None:
    """Make each epoch a checkpoint of the workspace, with the optimizer state that training left.

    Where it was trained by the shipped checkpoint's recipe, it is noted as that one's is, which may record fewer
    fields: then TracIn over checkpoints takes them for one training (`tracin_multi`), as they are up to rounding.
    """
    shipped = workspace.checkpoint(CHECKPOINT).notes["recipe"]
    for name in place.checkpoints():
        about = place.about(name)
        same = all(about["recipe"].get(field) == value for field, value in shipped.items())
        notes = {"recipe": shipped if same else about["recipe"], "epoch": about["epoch"], "step": about["step"]}
        where = workspace.path / "checkpoints" / f"epoch-{about['epoch']:g}"
        if where.exists():
            if any(entry.name == where.name for entry in workspace.checkpoints()):
                workspace.change_checkpoint(where.name, notes=notes)
            continue
        shutil.copytree(place.path / name, where)
        optimizer = recorded(where).optimizer
        workspace.add_checkpoint(where.name, kind=demo.recipe.kind, optimizer=optimizer, notes=notes)


def _predictions(demo: Demo, workspace: Workspace, recipe: dict[str, Any]) -> Iterator[Progress]:
    """Predict every split with the rounded weights; keep the table and the accuracies."""
    classifier = load(workspace, CHECKPOINT)
    tables, accuracy = [], {}
    for split in workspace.dataset.splits:
        rows = rows_of(workspace, classifier, split)
        for event in predict(classifier, rows, phase=f"predicting the {split} split"):
            if isinstance(event, Predictions):
                table = save(workspace, split, CHECKPOINT, event)
                accuracy[split] = float((table["prediction"].to_numpy() == rows.labels).mean())
                tables.append(table)
            else:
                yield event
    whole = pd.concat(tables)
    whole = whole.astype(dict.fromkeys(whole.select_dtypes("float64"), np.float32))
    whole.to_parquet(
        demo.predictions_file,
        index=False,
        compression="zstd",
        use_dictionary=False,
        use_byte_stream_split=list(whole.select_dtypes("float32")),
    )
    recipe["accuracy"] = accuracy


def _tracin(demo: Demo, workspace: Workspace, recipe: dict[str, Any]) -> Iterator[Progress]:
    """Make and pack TracIn's products for all queries of two classes, with the gradient norms of both sides."""
    method, asked = TracIn(), queries(workspace)
    spec = RankSpec(workspace=workspace.name, example=asked[0].example, method="tracin")
    table = method.table(workspace, spec)
    pairs = list(zip(asked[::2], asked[1::2], strict=True))  # predicted and gold of one row
    yield from method.compute(workspace, spec, [predicted for predicted, _ in pairs])
    predictions = workspace.predict("test", CHECKPOINT)
    probabilities = dict(zip(predictions["id"], predictions[["p0", "p1"]].to_numpy(), strict=True))
    for predicted, gold in pairs:
        # Two classes: g_y = ±(1 − p_y)(∇f_1 − ∇f_0), so one label's products are the other's, scaled.
        of = probabilities[predicted.example]
        ratio = np.float32((1 - of[gold.target]) / (1 - of[predicted.target]))
        arrays = table.query(predicted)
        assert arrays is not None
        table.write_query(gold, {"products": -ratio * arrays["products"], "norm": ratio * arrays["norm"]})
    kept = [arrays for query in asked if (arrays := table.query(query)) is not None]
    packed = assets.packed("products", np.stack([arrays["products"] for arrays in kept]))
    packed["query_norms"] = np.concatenate([arrays["norm"] for arrays in kept])
    packed["norms"] = table.read_arrays("train")["norms"]
    write_arrays(demo.tracin_file, packed)
    recipe["tracin"] = {"manifest": {"made": table.manifest["made"]}}


def _abif(demo: Demo, workspace: Workspace, recipe: dict[str, Any]) -> Iterator[Progress]:
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
    products = [arrays["products"] for query in asked if (arrays := table.query(query)) is not None]
    packed = {**assets.packed("index", index.read("products")), **assets.packed("queries", np.stack(products))}
    write_arrays(demo.abif_file, {**packed, "sqnorms": index.read("sqnorms")})
    recipe["abif"] = {"key": settings, "manifest": table.manifest}
