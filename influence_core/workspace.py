"""A dataset, its checkpoints and everything derived from them: the library's front door."""

import datetime
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import BaseModel, ConfigDict

from influence_core.artefacts import CODE_VERSION, Artefacts
from influence_core.data.arrow import BLOCK
from influence_core.data.dataset import Dataset, places_of, words_column
from influence_core.data.pictures import decode
from influence_core.errors import UserError
from influence_core.fingerprints import companions_fingerprint, tensors_fingerprint
from influence_core.home import folder, read_json, write_json
from influence_core.in_process import InProcess
from influence_core.labels.events import LabelEvent, Verdict
from influence_core.labels.store import LabelStore
from influence_core.preparation import Kind, Preparation
from influence_core.specs import PredictSpec, Split

WEIGHTS = "model.safetensors"
ABOUT = ("name", "scope", "data", "created")  # what a workspace.json says
DEMOS = ("demo:movie-reviews", "demo:fashion-mnist")


class Checkpoint(BaseModel):
    """A checkpoint of a workspace; its manifest on disk."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    parent: str | None = None  # the checkpoint that a correction started from
    kind: Kind = "text"  # which loader reads it
    preparation: Preparation = Preparation()  # of its inputs
    path: str  # the model's own folder, readable by plain transformers
    fingerprint: str  # of its tensors
    companions: str = ""  # of its configuration, tokenizer and image processor; "" where nobody recorded it
    created: str
    accuracy: dict[str, float] = {}  # share of right predictions, by split
    optimizer: dict[str, Any] | None = None  # settings, and "state": file name, where known
    notes: dict[str, Any] = {}  # recipe, correction, provenance

    @property
    def key(self) -> dict[str, Any]:
        """Return what everything computed with it depends on: its tensors, what lies beside them, the preparation."""
        further = {"companions": self.companions, "preparation": self.preparation.key}
        return {"checkpoint": self.fingerprint, **{name: value for name, value in further.items() if value}}


@dataclass(frozen=True)
class Labels:
    """The training labels as they stand at one point of the event log."""

    values: np.ndarray  # [N] int64, indices into the label names
    cursor: int  # sequence number of the last event counted


class Workspace(InProcess):
    """One dataset (ids, inputs, original labels) and a tree of checkpoints."""

    def __init__(self, path: Path) -> None:
        about = read_about(path / "workspace.json")
        self.path = path
        self.name: str = about["name"]
        self.scope: str = about["scope"]
        self.about: dict[str, Any] = about
        self.artefacts = Artefacts(path / "artefacts")
        self._places: dict[str, tuple[Split, int]] = {}  # of ids that were asked for

    # opening and making

    @staticmethod
    def location(name: str) -> Path:
        """Return the folder that a workspace of this name has."""
        return folder("workspaces") / re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".")

    @classmethod
    def open(cls, name: str) -> "Workspace":
        """Open a workspace by name; raises `UserError` naming those that exist."""
        path = cls.location(name)
        if (path / "workspace.json").is_file():
            found = cls(path)
            if found.name == name:
                return found
        if name in DEMOS:
            raise UserError(f"{name} is not prepared yet: run python -m influence_core demo prepare {name[5:]}")
        known = ", ".join(cls.names()) or "none yet"
        raise UserError(f"there is no workspace {name!r} (there are: {known}): open a checkpoint and data first")

    @classmethod
    def names(cls) -> list[str]:
        """Names of all workspaces, in order of making."""
        found = []
        for file in folder("workspaces").glob("[!.]*/workspace.json"):  # not those that are being put together
            with suppress(UserError):  # a damaged one must not hide the others
                about = read_about(file)
                found.append((about["created"], about["name"]))
        return [name for _, name in sorted(found)]

    @classmethod
    def create(cls, name: str, dataset: Dataset, scope: str) -> "Workspace":
        """Make a workspace for a dataset, or return the one that already has this data."""
        path = cls.location(name)
        if not (path / "workspace.json").exists():
            dataset.save(path / "data")
            about = {"name": name, "scope": scope, "data": dataset.fingerprint, "created": now()}
            write_json(path / "workspace.json", about)
        found = cls(path)
        if found.about["data"] != dataset.fingerprint:
            raise UserError(
                f"the workspace {name!r} holds other data ({found.about['data'][:16]}, not "
                f"{dataset.fingerprint[:16]}): delete {path} or choose another name"
            )
        return found

    @classmethod
    def install(cls, name: str, staged: Path, dataset: Dataset, scope: str) -> "Workspace":
        """Make a workspace of a folder with this dataset's splits in ``data``: moved to its place as a whole."""
        path = cls.location(name)
        dataset.describe(staged / "data")
        about = {"name": name, "scope": scope, "data": dataset.fingerprint, "created": now()}
        write_json(staged / "workspace.json", about)
        try:
            staged.rename(path)
        except OSError:  # another process made it meanwhile
            return cls.create(name, dataset, scope)
        return cls(path)

    # data and labels

    @cached_property
    def dataset(self) -> Dataset:
        """The dataset with its original labels."""
        return Dataset.load(self.path / "data")

    @property
    def data_fingerprint(self) -> str:
        """Fingerprint of ids, inputs and original labels."""
        return str(self.about["data"])

    @property
    def label_names(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.dataset.label_names

    @property
    def train(self) -> pd.DataFrame:
        """Training rows with their original labels."""
        return self.dataset.splits["train"]

    def locate(self, example: str) -> tuple[Split, int]:
        """Return (split, row number) of an example id."""
        if example not in self._places:
            found = self.places([example])
            if not found:
                raise UserError(f"there is no example {example!r} in {self.name}: take an id that mispredictions lists")
            self._places.update(found)
        return self._places[example]

    def look_up(self, examples: Iterable[str]) -> None:
        """Find many ids by one scan, so that `locate` need not scan for each; those that are not there are left out."""
        self._places.update(self.places(example for example in examples if example not in self._places))

    def places(self, examples: Iterable[str]) -> dict[str, tuple[Split, int]]:
        """Return (split, row number) of those ids that exist; one scan of the ids for all of them."""
        wanted = list(examples)
        return {
            example: (split, row)
            for split, frame in self.dataset.splits.items()
            for example, row in places_of(frame["id"], wanted).items()
        }

    def image(self, example: str) -> Image.Image:
        """Return an example's image."""
        split, row = self.locate(example)
        return decode(self.dataset.splits[split]["image"].iloc[row], example)

    def example(self, example: str) -> dict[str, Any]:
        """Return one example's columns and its split."""
        split, row = self.locate(example)
        return {"split": split, **{str(k): v for k, v in self.dataset.splits[split].iloc[row].items()}}

    def truth(self, example: str) -> int:
        """Return an example's true label: gold where it is known, else its own label."""
        split, row = self.locate(example)
        frame = self.dataset.splits[split]
        return int((frame["gold"] if "gold" in frame else frame["label"]).iloc[row])

    def original_labels(self, examples: Iterable[str]) -> dict[str, str]:
        """Return the own labels of those ids that are training rows."""
        rows = {example: row for example, (split, row) in self.places(examples).items() if split == "train"}
        return {example: self.label_names[self.train["label"].iloc[row]] for example, row in rows.items()}

    def training_rows(self) -> Iterator[tuple[str, str, str]]:
        """Yield (id, text or image file's name, own label) of each training row, a block of them in memory."""
        for start in range(0, len(self.train), BLOCK):
            block = self.train.iloc[start : start + BLOCK]
            texts = repeat("", len(block)) if (column := words_column(block)) is None else block[column]
            yield from zip(block["id"], texts, (self.label_names[label] for label in block["label"]), strict=True)

    def label_index(self, name: str) -> int:
        """Return the class number of a label's name."""
        if name not in self.label_names:
            raise UserError(f"there is no label {name!r}: choose one of {', '.join(self.label_names)}")
        return self.label_names.index(name)

    def labels(self, cursor: int | None = None) -> Labels:
        """Training labels as they stand, or as they stood at a cursor."""
        store = LabelStore()
        at = store.cursor(self.data_fingerprint) if cursor is None else cursor
        values = self.train["label"].to_numpy(dtype=np.int64, copy=True)
        current = store.current(self.data_fingerprint, at)
        for example, row in places_of(self.train["id"], list(current)).items():
            values[row] = self.label_index(current[example])
        return Labels(values, at)

    def relabel(
        self,
        example: str,
        label: str,
        *,
        expect: str,
        annotator: str,
        note: str = "",
        verdict: Verdict | None = None,
        event_id: str | None = None,
        source: str = "",
    ) -> LabelEvent:
        """Record a label event for a training row; ``expect`` is the label that the annotator saw."""
        split, row = self.locate(example)
        if split != "train":
            raise UserError(f"example {example!r} is in {split}: only training rows are relabelled")
        self.label_index(label)
        self.label_index(expect)
        return LabelStore().relabel(
            workspace=self.name,
            data_fingerprint=self.data_fingerprint,
            example=example,
            new=label,
            expect=expect,
            original=self.label_names[int(self.train["label"].iloc[row])],
            annotator=annotator,
            note=note,
            verdict=verdict,
            event_id=event_id,
            source=source,
        )

    # checkpoints

    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoints, the first one first."""
        files = self.path.glob("checkpoints/*/manifest.json")
        return sorted((Checkpoint(**read_json(file)) for file in files), key=lambda entry: entry.created)

    def checkpoint(self, name: str | None = None) -> Checkpoint:
        """Return a checkpoint by name, by default the first."""
        found = self.checkpoints()
        if not found:
            raise UserError(f"{self.name} has no checkpoint: open one first")
        for entry in found:
            if name is None or entry.name == name:
                return entry
        names = ", ".join(entry.name for entry in found)
        raise UserError(f"{self.name} has no checkpoint {name!r}: choose one of {names}")

    def checkpoint_folder(self, name: str) -> Path:
        """Return the folder for a new checkpoint of this name; refuses names in use or unfit for a folder."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
            raise UserError(f"{name!r} cannot name a checkpoint: use 1 to 64 letters, digits, '.', '_' or '-'")
        path = self.path / "checkpoints" / name
        if path.exists():
            raise UserError(f"{self.name} already has a checkpoint {name!r}: choose another name")
        return path

    def add_checkpoint(
        self, name: str, model: Path | None = None, draft: Path | None = None, **fields: Any
    ) -> Checkpoint:
        """Write a checkpoint's manifest.

        The model lies in the checkpoint's own folder, or elsewhere in ``model``. A ``draft`` is a
        temporary folder with model and manifest that the caller then moves to its place.
        """
        path = self.path / "checkpoints" / name
        weights = (model or draft or path).resolve() / WEIGHTS
        home, fingerprint = (model or path).resolve(), tensors_fingerprint(weights)
        fields["companions"] = companions_fingerprint(weights.parent)
        entry = Checkpoint(name=name, path=str(home), fingerprint=fingerprint, created=now(), **fields)
        write_json((draft or path) / "manifest.json", entry.model_dump())
        return entry

    def change_checkpoint(self, name: str, **fields: Any) -> Checkpoint:
        """Record what is known now of a checkpoint: that its model lies elsewhere, its optimizer, notes."""
        entry = self.checkpoint(name).model_copy(update=fields)
        write_json(self.path / "checkpoints" / name / "manifest.json", entry.model_dump())
        return entry

    def set_scope(self, scope: str) -> None:
        """Change the scope that is used unless another is asked for."""
        self.scope = self.about["scope"] = scope
        write_json(self.path / "workspace.json", self.about)

    # predictions

    def prediction_key(self, split: Split, checkpoint: str | None = None) -> dict[str, Any]:
        """Return the key of one split's predictions."""
        return {
            **self.checkpoint(checkpoint).key,
            "data": self.data_fingerprint,
            "split": split,
            "code": CODE_VERSION,
        }

    def predictions(self, split: Split = "test", checkpoint: str | None = None) -> pd.DataFrame | None:
        """Return cached predictions of a split, or None: columns id, prediction, loss, p0 … p(C-1)."""
        file = self.artefacts.path("predictions", self.prediction_key(split, checkpoint)) / "predictions.parquet"
        try:
            return pd.read_parquet(file) if file.exists() else None
        except (ValueError, OSError):  # damaged: as if it were not there, and so made again
            return None

    def predict(self, split: Split = "test", checkpoint: str | None = None) -> pd.DataFrame:
        """Return a split's predictions, computing them here when they are not cached."""
        if split not in self.dataset.splits:
            raise UserError(f"{self.name} has no {split} split: choose one of {', '.join(self.dataset.splits)}")
        if (cached := self.predictions(split, checkpoint)) is not None:
            return cached
        self.outcome(PredictSpec(workspace=self.name, checkpoint=checkpoint, split=split))
        made = self.predictions(split, checkpoint)
        assert made is not None
        return made

    def examples(self, split: Split = "test", checkpoint: str | None = None) -> pd.DataFrame:
        """Return a split's rows with their predictions.

        Columns id, text (images stay where they are: `image`), label, gold (where known), prediction
        (class numbers), confidence (probability of the prediction), margin (to the runner-up), loss
        (nats, of the label).
        """
        predictions = self.predict(split, checkpoint)
        rows = self.dataset.splits[split]
        if not (len(rows) == len(predictions) and (rows["id"].array == predictions["id"].array).all()):
            raise UserError(
                f"the predictions of {split} are of other rows: delete {self.artefacts.folder} and predict again"
            )
        rows = rows.drop(columns="image", errors="ignore")
        frame = pd.concat([rows, predictions.drop(columns="id")], axis=1)  # texts stay where they are
        probabilities = np.sort(frame[[f"p{c}" for c in range(len(self.label_names))]].to_numpy(), axis=1)
        frame["confidence"] = probabilities[:, -1]
        frame["margin"] = probabilities[:, -1] - probabilities[:, -2]
        return frame

    def mispredictions(self, split: Split = "test", checkpoint: str | None = None) -> pd.DataFrame:
        """Return the wrongly predicted rows of a split, most confident first (columns as `examples`)."""
        frame = self.examples(split, checkpoint)
        wrong = frame[frame["prediction"] != frame["label"]]
        return wrong.sort_values("confidence", ascending=False, kind="stable").reset_index(drop=True)


def read_about(file: Path) -> dict[str, Any]:
    """Read a ``workspace.json``; raises `UserError` for one that is missing, damaged or lacks what it must say."""
    about = read_json(file)
    if not isinstance(about, dict) or not all(isinstance(about.get(name), str) for name in ABOUT):
        raise UserError(f"{file} is damaged (it must say {', '.join(ABOUT)}): delete {file.parent} and open it again")
    return about


def now() -> str:
    """The time in UTC, ISO format."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
