"""A small T5 that says the movie reviews' labels, trained from nothing, for the studies in docs/results.

``python -m benchmarks.small_t5 FOLDER`` writes FOLDER/data (train, validation and test as CSV),
FOLDER/base (a tokenizer of the training rows' word pieces, and weights drawn at random) and
FOLDER/trained (a checkpoint each epoch, with the optimizer's state), and goes on where it was stopped.
Then: ``python -m influence_core open FOLDER/trained FOLDER/data/train.csv --validation … --test …``.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

from influence_core.data import reviews
from influence_core.data.dataset import Dataset
from influence_core.events import Events, Progress, Result, through
from influence_core.training.recipes import Recipe, find
from influence_core.training.run import fit

VOCABULARY, SPECIAL = 8000, ("<pad>", "</s>", "<unk>")


def recipe() -> Recipe:
    """Return the paper's recipe of T5 (Table 5), with a rate and epochs for weights that begin at random."""
    return replace(find("t5-sst2"), name="movie-reviews-t5", learning_rate=1e-3, epochs=6, batch_size=32, max_length=64)


def write_base(dataset: Dataset, folder: Path) -> None:
    """Write tokenizer and random weights: 2 + 2 blocks, d = 128, 1.7 M parameters of which 1 M are embeddings."""
    asked = recipe()
    said = [f"{asked.prefix}{text}" for text in dataset.splits["train"]["text"]] + list(asked.label_words) * 200
    learnt = Tokenizer(models.Unigram())
    learnt.pre_tokenizer = pre_tokenizers.Metaspace()
    learnt.train_from_iterator(
        said, trainers.UnigramTrainer(vocab_size=VOCABULARY, special_tokens=list(SPECIAL), unk_token="<unk>")
    )
    pieces = sorted(learnt.get_vocab(), key=learnt.get_vocab().__getitem__)
    scores = dict(json.loads(learnt.to_str())["model"]["vocab"])
    tokenizer = T5Tokenizer(vocab=[(piece, scores[piece]) for piece in pieces], extra_ids=0)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(asked.seed)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
    )
    config.update({"decoder_start_token_id": tokenizer.pad_token_id})
    T5ForConditionalGeneration(config).save_pretrained(folder)


def make(folder: Path) -> Events:
    """Write data, base and checkpoints."""
    dataset = yield from through(reviews.load(), Dataset)
    data, base = folder / "data", folder / "base"
    data.mkdir(parents=True, exist_ok=True)
    for split, frame in dataset.splits.items():
        columns = {name: frame[name].to_numpy() for name in ("id", "text")}
        labels = [dataset.label_names[int(label)] for label in frame["label"].to_numpy()]
        pd.DataFrame({**columns, "label": labels}).to_csv(data / f"{split}.csv", index=False)
    if not (base / "model.safetensors").exists():
        write_base(dataset, base)
    yield from fit(recipe(), dataset, folder / "trained", str(base), resume=(folder / "trained").exists())


if __name__ == "__main__":
    for event in make(Path(sys.argv[1])):
        if isinstance(event, Progress) and event.done % 50 == 0:
            print(event.phase, event.done, event.total, flush=True)
        elif isinstance(event, Result):
            print(event.value)
