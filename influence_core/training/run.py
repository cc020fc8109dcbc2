"""``train``: a recipe, data and a base become checkpoints in a folder."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import transformers

from influence_core.data import fashion
from influence_core.data.dataset import Dataset, Modality
from influence_core.data.surveying import DataSurvey, survey_data
from influence_core.data.writing import write
from influence_core.errors import RunFailedError, UserError
from influence_core.events import Events, Progress, Result, through
from influence_core.models.classifier import Classifier, Rows
from influence_core.models.image import load_image
from influence_core.models.loading import device
from influence_core.models.seq2seq import load_t5
from influence_core.models.text import load_text
from influence_core.specs import OpenSpec, Split
from influence_core.training.bases import write_start
from influence_core.training.folder import TrainingFolder, describe
from influence_core.training.loop import train
from influence_core.training.recipes import Recipe

Select = Literal["best-validation", "last"]
DEMO = "demo:fashion-mnist"
BATCH = 256  # rows evaluated together


def run(
    recipe: Recipe,
    out: Path,
    data: str | None = None,
    base: str | None = None,
    resume: bool = False,
    select: Select = "last",
    every: int | None = None,
) -> Events:
    """Train by a recipe; ``data`` and ``base`` take the place of the recipe's.

    The result is {"checkpoint", "step", "epoch", "validation", "checkpoints"}. Raises `UserError`
    for what cannot be trained, `RunFailedError` when the loss is no finite number.
    """
    with tempfile.TemporaryDirectory() as temporary:
        dataset = yield from through(read(recipe, data, base, Path(temporary)), Dataset)
        yield from fit(recipe, dataset, out, base, resume, select, every)


def read(recipe: Recipe, data: str | None, base: str | None, folder: Path) -> Iterator[Progress | Dataset]:
    """Read a recipe's data; yields progress, then the dataset, which lies in ``folder``."""
    if data is None and recipe.data == DEMO:
        yield from fashion.load()
        return
    spec = OpenSpec(checkpoint=base or recipe.base, data=data or recipe.data, test=recipe.test)
    modality: Modality = "image" if recipe.kind == "image" else "text"
    surveyed = yield from through(survey_data(spec, recipe.label_words, modality), DataSurvey)
    yield from write(spec, surveyed, folder / "data")


def fit(
    recipe: Recipe,
    dataset: Dataset,
    out: Path,
    base: str | None = None,
    resume: bool = False,
    select: Select = "last",
    every: int | None = None,
) -> Events:
    """Train on a dataset; see `run`."""
    if every is not None and every < 1:
        raise UserError(f"select every {every} steps: give 1 or more")
    if select == "best-validation" and recipe.evaluated not in dataset.splits:
        raise UserError(f"{dataset.name} has no {recipe.evaluated} split to choose by: select last, or give one")
    place = TrainingFolder(out.expanduser().resolve())
    given = {"data": dataset.fingerprint, "base": base or recipe.base, "select-every": every}
    place.prepare({**recipe.as_json(), **given}, resume)
    if not place.start.is_dir():
        with place.whole("start") as folder:
            write_start(recipe, base, dataset.label_names, folder)
    quiet: Any = transformers.utils.logging
    quiet.disable_progress_bar()  # its own, for every file that it writes
    last = place.last()
    classifier = classifier_of(recipe, place.start if last is None else last[0], dataset.label_names)
    rows = rows_of(classifier, dataset, "train")
    held = rows_of(classifier, dataset, recipe.evaluated) if recipe.evaluated in dataset.splits else None
    per_epoch = -(-len(rows) // recipe.batch_size)
    refuse_without_space(recipe, classifier, place, 0 if last is None else last[1].step, per_epoch, every)
    if last is None or last[1].step < recipe.total(per_epoch):
        for event in train(classifier, rows, recipe, every, None if last is None else last[1]):
            if isinstance(event, Progress):
                yield event
                continue
            validation = None if held is None else (yield from through(evaluate(classifier, held), dict))
            made = replace(recipe, base=base or recipe.base)
            written = describe(made, event, recipe.rate(event.step - 1, per_epoch), validation)
            epoch, rest = divmod(event.step, per_epoch)
            kept_as = f"epoch-{epoch}" if rest == 0 and epoch in recipe.keep_epochs else None
            place.write(classifier.module, event, written, kept_as)
            place.select(select)
    chosen = place.select(select)
    found = place.about(chosen)
    yield Result(
        value={
            "checkpoint": str(place.path / chosen),
            **{name: found[name] for name in ("step", "epoch", "validation")},
            "checkpoints": place.checkpoints(),
        }
    )


def refuse_without_space(
    recipe: Recipe, classifier: Classifier, place: TrainingFolder, done: int, per_epoch: int, every: int | None
) -> None:
    """Refuse, before a long training, checkpoints that the disk cannot hold; all are kept."""
    left = -(-(recipe.total(per_epoch) - done) // (every or per_epoch)) + 2 * len(recipe.keep_epochs)
    moments = 2 if recipe.optimizer == "adam" else int(recipe.momentum > 0)
    numbers = sum(value.numel() for value in classifier.module.parameters())
    needed, free = 4 * (1 + moments) * numbers * left, shutil.disk_usage(place.path).free
    if needed > free:
        raise UserError(
            f"{left} checkpoints take about {needed / 1e9:.1f} GB, {place.path} has {free / 1e9:.1f} GB free: "
            "write them less often (--select-every), or give a folder on another disk"
        )


def classifier_of(recipe: Recipe, folder: Path, label_names: tuple[str, ...]) -> Classifier:
    """Load a checkpoint to train it; nobody else has this copy."""
    classifier: Classifier
    if recipe.kind == "image":
        classifier = load_image(folder, label_names)
    elif recipe.kind == "seq2seq":
        classifier = load_t5(folder, label_names, recipe.preparation)
    else:
        classifier = load_text(folder, label_names, recipe.preparation)
    classifier.module.to(device())
    return classifier


def rows_of(classifier: Classifier, dataset: Dataset, split: Split) -> Rows:
    """Encode a split."""
    frame = dataset.splits[split]
    column: Any = frame[dataset.modality]  # mapped; encoded in blocks
    return Rows(classifier, classifier.encode(column), frame["label"].to_numpy())


def evaluate(classifier: Classifier, rows: Rows) -> Iterator[Progress | dict[str, float]]:
    """Yield progress, then accuracy and mean loss (nats); raises `RunFailedError` for one that is not finite."""
    total, right, done = torch.zeros((), dtype=torch.float64), 0, 0
    for _, batch in rows.buckets(0, len(rows), BATCH):
        with torch.no_grad():
            logits = classifier.logits(batch)
            total += classifier.losses_of(logits.double(), batch.labels).sum().cpu()
            right += int((logits.argmax(1) == batch.labels).sum())
        done += len(batch)
        yield Progress(phase="evaluating", done=done, total=len(rows))
    if not torch.isfinite(total):
        raise RunFailedError(
            f"the loss on the held-out rows is {float(total)}: lower the learning rate, or start from another base"
        )
    yield {"accuracy": right / len(rows), "loss": float(total) / len(rows)}
