"""What is typed on the Load page: its entries, and the way from texts to a spec and back. No Streamlit."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from influence_core.errors import UserError
from influence_core.specs import CheckSpec, Sources, one_line


@dataclass(frozen=True)
class Entry:
    """One entry of a form; its name is that of a field of `Sources`."""

    name: str
    label: str
    placeholder: str = ""
    help: str | None = None
    lines: bool = False  # several, one a line


CLASSES = (
    Entry("text_column", "Text column", "guessed"),
    Entry("image_column", "Image column", "guessed"),
    Entry("label_column", "Label column", "guessed"),
    Entry("id_column", "Id column", "guessed, else made from the contents"),
    Entry(
        "label_words",
        "Label words (T5), one a line",
        "positive = great\nnegative = terrible",
        "what the decoder says for each class; the class's own name unless given",
        lines=True,
    ),
    Entry(
        "prefix", "Prefix (T5)", "sst2 sentence: ", "put before every text; what the checkpoint records unless given"
    ),
    Entry("max_length", "Maximum length in tokens", "the checkpoint's own, at most 256"),
    Entry("scope", "Parameter scope", "last:2", "which parameters the scores speak of: head, last:n or all"),
)
ALSO = Entry(
    "also",
    "More checkpoints of the same training, one a line",
    help="for TracIn over several checkpoints; of a Trainer's output folder all are found without this",
    lines=True,
)
FILES = (
    Entry("checkpoint", "Checkpoint", "/models/my-classifier", "a folder, a Trainer's output folder or a weights file"),
    Entry("data", "Training data", "/data/train.csv", "CSV, TSV, JSON lines or Parquet; a folder of images; IDX files"),
    Entry("test", "Test data (optional)", "every fifth row is held out", "a path, or a split's own name"),
    Entry("validation", "Validation data (optional)", help="a path, or a split's own name"),
)
FILES_MORE = (
    *CLASSES,
    Entry("architecture", "Architecture", "resnet18, resnet18-cifar, …", "of a weights file without a configuration"),
    ALSO,
    Entry("train", "Training split", "train", "its own name, in a saved data set with several splits"),
    Entry("revision", "Revision", help="of a checkpoint from the hub"),
    Entry("configuration", "Configuration", help="of a data set from the hub, where it has several"),
    Entry("data_revision", "Revision of the data", help="of a data set from the hub"),
)
HUB = (
    Entry("checkpoint", "Model", "owner/model"),
    Entry("revision", "Revision", "main", "a branch, a tag or a commit of the model; a commit never changes"),
    Entry("data", "Data set", "owner/dataset"),
    Entry("configuration", "Configuration (optional)", help="a part of the data set, where it has several"),
    Entry("train", "Training split", "train"),
    Entry("test", "Test split", "test", "choose validation where the test split has no labels"),
    Entry("validation", "Validation split", "validation"),
)
HUB_MORE = (Entry("data_revision", "Revision of the data set", "main"), *CLASSES, ALSO)  # no weights files there
NEEDED = {"checkpoint": "the checkpoint", "data": "the training data"}


def spec_of(typed: Mapping[str, str], before: Sources | None = None) -> CheckSpec:
    """Return the check of what was typed; raises `UserError`.

    Confirmed classes of the check ``before`` are kept while checkpoint, data and label column stay. Rows
    that cannot be used are only listed: whether they may be left out is asked with the list.
    """
    values: dict[str, Any] = {name: text.strip() for name, text in typed.items() if text.strip()}
    for name, words in NEEDED.items():
        if name not in values:
            raise UserError(f"{words} is empty: type a path or a name")
    if typed.get("prefix"):
        values["prefix"] = typed["prefix"]  # its last blank counts
    if "also" in values:
        values["also"] = tuple(line.strip() for line in values["also"].splitlines() if line.strip())
    if "label_words" in values:
        values["label_words"] = dict(_pair(line) for line in values["label_words"].splitlines() if line.strip())
    same = ("checkpoint", "data", "label_column")
    if before is not None and all(getattr(before, name) == values.get(name) for name in same):
        values["classes"] = before.classes
    try:
        return CheckSpec(**values, drop_broken=True)
    except ValidationError as error:
        raise UserError(one_line(error)) from None


def _pair(line: str) -> tuple[str, str]:
    name, equals, words = line.partition("=")
    if not (name.strip() and equals and words.strip()):
        raise UserError(f"the label words {line.strip()!r} are not read: write them as class = words, one a line")
    return name.strip(), words.strip()


def typed_of(spec: Sources) -> dict[str, str]:
    """Return what is typed for a spec, by the names of the entries; the inverse of `spec_of`."""
    found = {}
    for name, value in spec.model_dump(exclude={"kind", "classes", "drop_broken"}).items():
        if isinstance(value, dict):
            found[name] = "\n".join(f"{key} = {words}" for key, words in value.items())
        else:
            found[name] = "\n".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
    return found


def from_hub(spec: Sources) -> bool:
    """Whether both model and data are written as names on the hub."""
    return all(
        text.count("/") == 1 and not text.startswith(("/", ".", "~")) and not Path(text).exists()
        for text in (spec.checkpoint, spec.data)
    )
