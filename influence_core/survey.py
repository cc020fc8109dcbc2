"""What a look at a checkpoint and data finds before anything is made of them. No torch: pages show it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from influence_core.preparation import Kind
from influence_core.specs import Split


class Found(BaseModel):
    """Base of what is found; frozen, JSON on disk."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CheckpointFound(Found):
    """One checkpoint, read from its configuration and the headers of its files; no tensor was allocated."""

    path: str  # the folder (or file) that was given
    kind: Kind
    family: str  # bert, roberta, distilbert, t5, resnet, vit, torchvision
    classes: tuple[str, ...]  # in order of the logits; empty where the checkpoint names none (T5)
    parameters: int
    step: int | None = None  # of its training, where it is known
    optimizer: dict[str, Any] | None = None  # kind, constants, schedule; "state": a file's name
    notes: tuple[str, ...] = ()  # what a person should know, one sentence each


class BrokenRow(Found):
    """A row that cannot be used."""

    split: Split
    position: str  # "train.csv, row 12", "cat/3.png": where to fix it
    reason: str  # "the text is empty"
    shown: str = ""  # the beginning of what stands there


class SplitFound(Found):
    """One split."""

    rows: int  # good ones
    broken: int
    duplicates: int  # rows whose input stood before in this split
    leaks: int  # rows whose input stands in the training split as well (0 for that)


class DataFound(Found):
    """The data."""

    source: str  # "CSV file", "image folder"
    modality: Literal["text", "image"]
    columns: tuple[str, ...]  # those that a user can choose from; empty where there are none (IDX, image folders)
    input_column: str
    label_column: str
    id_column: str | None  # None: ids are made from split, content and occurrence
    splits: dict[Split, SplitFound]
    held_out: bool  # no test split was given, every fifth training row is one
    labels: dict[str, int]  # the data's labels as text, how many rows have each
    matched: Literal["name", "number", "given", "none"]  # how they were matched to the classes
    classes: dict[str, str | None]  # data label → class name; None where nothing matches
    broken: tuple[BrokenRow, ...]  # the first 200
    sample: tuple[tuple[str, str], ...]  # first rows: (beginning of the text or the file's name, label)
    notes: tuple[str, ...] = ()  # what a person should know, one sentence each


class Survey(Found):
    """What `check` finds: the result of its run."""

    checkpoints: tuple[CheckpointFound, ...]  # the one to start with first
    data: DataFound
    label_names: tuple[str, ...]  # the classes as the workspace will name them, in order of the logits
    problems: tuple[str, ...]  # why this cannot be opened as it is, one line each; empty: it can
