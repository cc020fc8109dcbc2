"""A small workspace made of files only, for tests of pages: no torch, rankings known by construction."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from safetensors.numpy import save_file
from streamlit.testing.v1 import AppTest

from influence_core.artefacts import base_key
from influence_core.attribution.base import Query
from influence_core.attribution.methods import METHODS
from influence_core.attribution.tables import IndexArrays, Table, write_arrays
from influence_core.data.dataset import Dataset
from influence_core.data.pictures import netpbm
from influence_core.runs import client
from influence_core.runs.directory import RunDirectory
from influence_core.specs import RankSpec
from influence_core.workspace import Workspace, now

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("negative", "positive")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
TRAIN, TEST = 40, 24
HOSTILE = "<img src=x onerror=alert(1)> **bold** ![remote](https://example.org/x.png) $x^2$ :red[no]"


def use_home(monkeypatch, tmp_path: Path) -> Path:
    """Point INFLUENCE_HOME at a fresh folder."""
    home = tmp_path / "home"
    monkeypatch.setenv("INFLUENCE_HOME", str(home))
    monkeypatch.delenv("INFLUENCE_DATABASE_URL", raising=False)
    return home


def tiny_workspace(
    name: str = "tiny", *, names: tuple[str, str] = NAMES, predicted: bool = True, tracin: bool = True
) -> Workspace:
    """Make the workspace: 40 training rows (every fifth label differs from gold), 24 test rows, 8 of them wrong.

    Test row ``test-i`` is wrong where i is a multiple of 3; its confidence is 0.95 − 0.01·i. The text of
    ``test-0`` and of ``train-0`` is `HOSTILE`.
    """
    rng = np.random.default_rng(0)
    gold = np.arange(TRAIN) % 2
    label = np.where(np.arange(TRAIN) % 5 == 0, 1 - gold, gold)
    train = pd.DataFrame(
        {"id": [f"train-{i}" for i in range(TRAIN)], "text": texts("train", TRAIN), "label": label, "gold": gold}
    )
    truth = np.arange(TEST) % 2
    test = pd.DataFrame(
        {"id": [f"test-{i}" for i in range(TEST)], "text": texts("test", TEST), "label": truth, "gold": truth}
    )
    workspace = Workspace.create(name, Dataset(name, names, {"train": train, "test": test}), "head")
    add_checkpoint(workspace, "first", rng)
    if predicted:
        add_predictions(workspace)
    if tracin:
        add_tracin(workspace, rng)
    return workspace


def tiny_image_workspace(name: str = "tiny-images", *, predicted: bool = True, tracin: bool = True) -> Workspace:
    """Make the same of images in ten classes: row i has the label i % 10, every fifth training label is one too high.

    Row i is a 28 × 28 square of the grey 5·i + 20, as PGM where i is even and as PNG where it is odd;
    ``train-7`` and ``test-9`` (a wrong one) cannot be read.
    """
    rng = np.random.default_rng(0)
    splits = {}
    for split, count, unreadable in (("train", TRAIN, 7), ("test", TEST, 9)):
        gold = np.arange(count) % 10
        label = np.where(np.arange(count) % 5 == 0, (gold + 1) % 10, gold) if split == "train" else gold
        files = [square(5 * i + 20, png=bool(i % 2)) for i in range(count)]
        files[unreadable] = b"no image"
        ids = [f"{split}-{i}" for i in range(count)]
        splits[split] = pd.DataFrame({"id": ids, "image": files, "label": label, "gold": gold})
    workspace = Workspace.create(name, Dataset(name, CLOTHES, splits), "head")
    add_checkpoint(workspace, "first", rng, kind="image")
    if predicted:
        add_predictions(workspace)
    if tracin:
        add_tracin(workspace, rng)
    return workspace


def square(grey: int, *, png: bool = False, side: int = 28) -> bytes:
    """Return the file of an image of one grey."""
    pixels = np.full((side, side), grey, dtype=np.uint8)
    if not png:
        return netpbm(pixels)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def texts(split: str, count: int) -> list[str]:
    """Texts with distinct words; the first one is hostile."""
    return [HOSTILE] + [f"{split} review number {i}, which is {'good' if i % 2 else 'bad'}" for i in range(1, count)]


def add_checkpoint(workspace: Workspace, name: str, rng: np.random.Generator, **fields) -> None:
    """Write a model of one tensor and its manifest."""
    folder = workspace.path / "checkpoints" / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"weight": rng.normal(size=(2, 3)).astype(np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"num_labels": 2}))
    workspace.add_checkpoint(name, accuracy={"test": 2 / 3}, **fields)


def add_predictions(workspace: Workspace, split: str = "test", checkpoint: str | None = None) -> pd.DataFrame:
    """Write predictions: row i is wrong where i % 3 == 0, with confidence 0.95 − 0.01·i (at least 0.55)."""
    frame = workspace.dataset.splits[split]
    number = np.arange(len(frame))
    label = frame["label"].to_numpy()
    classes = len(workspace.label_names)
    prediction = np.where(number % 3 == 0, (label + 1) % classes, label)
    confidence = np.maximum(0.55, 0.95 - 0.01 * number)
    table = pd.DataFrame({"id": frame["id"], "prediction": prediction})
    own = np.where(prediction == label, confidence, 1 - confidence)
    table["loss"] = -np.log(own)
    second = np.where(prediction == label, (label + 1) % classes, label)  # has the rest of the probability
    for value in range(classes):
        table[f"p{value}"] = np.where(prediction == value, confidence, np.where(second == value, 1 - confidence, 0))
    folder = workspace.artefacts.make("predictions", workspace.prediction_key(split, checkpoint))
    table.to_parquet(folder / "predictions.parquet", index=False)
    return table


def add_features(workspace: Workspace, split: str, dimension: int = 4) -> np.ndarray:
    """Write features beside a split's predictions (which are written if absent)."""
    if workspace.predictions(split) is None:
        add_predictions(workspace, split)
    values = np.random.default_rng(len(split)).normal(size=(len(workspace.dataset.splits[split]), dimension))
    folder = workspace.artefacts.path("predictions", workspace.prediction_key(split))
    np.save(folder / "features.npy", values.astype(np.float16), allow_pickle=False)
    return values.astype(np.float16).astype(np.float64)


def wrong_ids() -> list[str]:
    """Ids of the mispredicted test rows, most confident first."""
    return [f"test-{i}" for i in range(0, TEST, 3)]


def add_tracin(workspace: Workspace, rng: np.random.Generator) -> None:
    """Write TracIn products of all wrong test rows for both targets.

    Norms are 1 and the product of training row i is (20 − i) / 20, so that by cosine and by score
    ``train-0`` is the first proponent of the predicted label and ``train-39`` its first opponent.
    """
    key = {**base_key(workspace, None, None), "method": "tracin"}
    table = Table(workspace.artefacts.make("tracin", key), key)
    labels = workspace.train["label"].to_numpy(dtype=np.int64)
    write_arrays(table.folder / "train.safetensors", {"norms": np.ones(TRAIN, dtype=np.float32), "labels": labels})
    products = ((20 - np.arange(TRAIN)) / 20).astype(np.float32)
    one = np.ones(1, dtype=np.float32)
    predictions = workspace.predictions("test")
    for example in wrong_ids():
        predicted, other = 0, 1
        if predictions is not None:
            predicted = int(predictions.set_index("id").loc[example, "prediction"])
            other = workspace.truth(example)
        table.write_query(Query(example, predicted), {"products": products, "norm": one})
        table.write_query(Query(example, other), {"products": -products, "norm": one})
    table.finish({"made": now(), "cursor": 0, "rows": TRAIN, "notes": {}})


def add_index(workspace: Workspace, k: int = 2, examples: Sequence[str] = ("test-0",)) -> None:
    """Write an ABIF index without its basis, as the demo ships it, with products of some test rows only."""
    key = {**base_key(workspace, None, None), "method": "abif", "k": k, "iterations": 4, "hessian_rows": 8, "seed": 0}
    key["origin"] = "shipped"
    table = Table(workspace.artefacts.make("abif", key), key)
    rng = np.random.default_rng(1)
    index = IndexArrays(table.folder, TRAIN, k)
    labels = workspace.train["label"].to_numpy(dtype=np.int64)
    for shard, first, end in index.missing():
        rows = end - first
        index.write(shard, rng.normal(size=(rows, k)).astype(np.float32), np.ones(rows), labels[first:end])
    for query in (Query(example, target) for example in examples for target in range(len(workspace.label_names))):
        table.write_query(query, {"products": np.ones(k, dtype=np.float32)})
    spectrum = {"eigenvalues": [2.0, -1.0], "residuals": [0.0, 0.25], "orthogonality": 1e-9, "l2": 0.0}
    table.finish({"made": now(), "cursor": 0, "rows": TRAIN, **spectrum})


def add_solve(workspace: Workspace, method: str, example: str, *, target: int = 0, settings=None, **solve) -> None:
    """Write what a Hessian-based method keeps of one query: products as `add_tracin`'s, and how the solve went.

    Without ``solve`` it converged at its second iteration; its arrays are those that `attribution.hif` names.
    """
    spec = RankSpec(workspace=workspace.name, example=example, method=method, settings=settings or {})
    table, rows = METHODS[method].table(workspace, spec), len(workspace.train)
    workspace.artefacts.make(method, table.key)
    labels = workspace.train["label"].to_numpy(dtype=np.int64)
    write_arrays(table.folder / "train.safetensors", {"norms": np.ones(rows, dtype=np.float32), "labels": labels})
    products = ((rows / 2 - np.arange(rows)) * 2 / rows).astype(np.float32)
    kept = {"residuals": [1.0, 0.5, 5e-4], "curvatures": [2.0, 1.0], "best": 2, "converged": 1, "negative": -1}
    kept |= {"breakdown": -1, **solve}
    kept.setdefault("true_residuals", kept["residuals"][kept["best"]])
    arrays = {"products": products, "norm": np.ones(1, dtype=np.float32)}
    for name in ("residuals", "curvatures"):
        arrays[name] = np.array(kept[name], dtype=np.float64)
    for name in ("best", "converged", "negative", "breakdown"):
        arrays[name] = np.array([kept[name]], dtype=np.int64)
    arrays["true_residuals"] = np.array([kept["true_residuals"]], dtype=np.float64)
    table.write_query(Query(example, target), arrays)
    table.finish({"made": now(), "cursor": 0, "rows": rows, "notes": {}})


def catch_runs(monkeypatch) -> list[str]:
    """Let pages submit into run directories without an engine; returns the list that ids are added to."""
    made: list[str] = []

    def submit(spec, what="", who="", priority=0):
        made.append(RunDirectory.create(spec, what=what, who=who, priority=priority).id)
        return made[-1]

    monkeypatch.setattr(client, "submit", submit)
    return made


def open_app(page: str = "", **query: str) -> AppTest:
    """Run the app, or as a deep link one of its pages ("influence"), with a query."""
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
    for key, value in query.items():
        app.query_params[key] = value
    return (app.switch_page(f"pages/{page}.py") if page else app).run()


def loaded_modules(statement: str) -> set[str]:
    """Names of all modules in a fresh interpreter after a statement."""
    code = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=ROOT
    )
    return set(json.loads(done.stdout.splitlines()[-1]))
