"""A tiny real checkpoint and data files in the layouts that users have: save_pretrained, CSV."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from influence_core.models.classifier import Rows
from influence_core.models.text import load_text
from influence_core.training.loop import train
from influence_core.training.recipes import Recipe

WORDS = [
    "a",
    "film",
    "is",
    "the",
    "plot",
    "good",
    "great",
    "fine",
    "bad",
    "poor",
    "dull",
    "very",
    "not",
    "so",
    "and",
    "this",
    "was",
    "one",
    "of",
    "acting",
]
GOOD, BAD = ("good", "great", "fine"), ("bad", "poor", "dull")
NAMES = ("negative", "positive")


def sentences(count: int, seed: int) -> pd.DataFrame:
    """Texts whose label is the majority of good and bad words; a tenth of the labels are wrong."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        gold = int(rng.integers(2))
        strong, weak = (GOOD, BAD) if gold else (BAD, GOOD)
        fill = list(rng.choice(["a", "film", "the", "plot", "acting", "very", "so"], size=int(rng.integers(2, 9))))
        words = [*fill, *rng.choice(strong, 2), *rng.choice(weak, int(rng.integers(2)))]
        rng.shuffle(words)
        label = 1 - gold if rng.random() < 0.1 else gold
        rows.append((f"{seed}-{number}", " ".join(words), NAMES[label]))
    return pd.DataFrame(rows, columns=["id", "text", "label"])


def save_tiny_checkpoint(folder: Path, names: tuple[str, ...] = NAMES, seed: int = 0, trained: bool = True) -> Path:
    """Write a BertForSequenceClassification (hidden 16, 2 layers) and its tokenizer as save_pretrained does."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    tokenizer = BertTokenizerFast(vocab={word: number for number, word in enumerate(vocabulary)})
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = BertForSequenceClassification(config)
    module.save_pretrained(folder)
    if trained:
        classifier = load_text(folder, names)
        frame = sentences(160, seed=99)
        labels = [names.index(label) for label in frame["label"]]
        rows = Rows(classifier, classifier.encode(frame["text"].tolist()), labels)
        recipe = Recipe(name="tiny", epochs=3, batch_size=16, learning_rate=3e-3, schedule="linear")
        for _ in train(classifier, rows, recipe):
            pass
        classifier.module.save_pretrained(folder)
    return folder


def write_data(folder: Path, train_rows: int = 120, test_rows: int = 40) -> tuple[Path, Path]:
    """Write train.csv and test.csv; returns their paths."""
    paths = folder / "train.csv", folder / "test.csv"
    sentences(train_rows, seed=1).to_csv(paths[0], index=False)
    sentences(test_rows, seed=2).to_csv(paths[1], index=False)
    return paths
