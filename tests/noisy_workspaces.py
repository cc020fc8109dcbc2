"""A tiny real workspace whose training labels are known to be wrong in places, for studies of corrections."""

from pathlib import Path

import pandas as pd
import torch
from checkpoints import BAD, GOOD, NAMES, save_tiny_checkpoint, sentences

from influence_core.data.dataset import Dataset
from influence_core.models.classifier import Rows
from influence_core.models.text import load_text
from influence_core.training.loop import train
from influence_core.training.recipes import Recipe
from influence_core.workspace import Workspace


def rows(count: int, seed: int) -> pd.DataFrame:
    """Return id, text, label and gold: the majority of good and bad words; about a tenth of the labels are wrong."""
    frame = sentences(count, seed)
    gold = [int(sum(w in GOOD for w in text.split()) > sum(w in BAD for w in text.split())) for text in frame["text"]]
    return pd.DataFrame({**frame, "label": [NAMES.index(name) for name in frame["label"]], "gold": gold})


def noisy_workspace(folder: Path, name: str = "noisy") -> Workspace:
    """Make it in INFLUENCE_HOME with a checkpoint in ``folder``: 120 training rows, 200 test rows, scope head.

    Trained so far that about a tenth of the test rows is wrong, in both classes.
    """
    frame, test = rows(120, seed=1), rows(200, seed=2).assign(label=lambda each: each["gold"])
    save_tiny_checkpoint(folder, trained=False)
    classifier = load_text(folder, NAMES)
    taught = Rows(classifier, classifier.encode(frame["text"].tolist()), frame["label"].to_numpy())
    recipe = Recipe(name="tiny", epochs=10, batch_size=16, learning_rate=5e-3, schedule="none")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that which rows are wrong does not depend on the machine
    try:
        for _ in train(classifier, taught, recipe):
            pass
    finally:
        torch.set_num_threads(threads)
    classifier.module.save_pretrained(folder)
    workspace = Workspace.create(name, Dataset(name, NAMES, {"train": frame, "test": test}), "head")
    workspace.add_checkpoint("tiny", model=folder)
    return workspace
