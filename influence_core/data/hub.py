"""Checkpoints and datasets from the Hugging Face hub, by name."""

import re
from contextlib import nullcontext
from pathlib import Path

from influence_core.data.hub_errors import from_cache_alone, out_of_reach, quietly, unreachable
from influence_core.data.hugging_face import splits_of
from influence_core.data.source import Source
from influence_core.errors import UserError

# No code. Configurations, vocabularies (merges.txt, spiece.model), weights in one file or several, a Trainer's state.
CHECKPOINT_FILES = ("*.json", "*.txt", "*.model", "model*.safetensors", "optimizer.pt", "optimizer.safetensors")
PICKLED_FILES = ("pytorch_model*.bin",)  # scanned before they are read
NAME = re.compile(r"\w[\w.-]{0,95}/[\w.-]{1,96}", re.ASCII)  # owner/name
FILE_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet", ".safetensors", ".bin", ".pt", ".pth")


def looks_like_hub_name(text: str) -> bool:
    """Whether a text that is no existing path could be ``owner/name``."""
    if not NAME.fullmatch(text) or text.lower().endswith(FILE_ENDINGS):
        return False
    return not Path(text).exists()


def fetch_checkpoint(name: str, revision: str | None = None) -> Path:
    """Fetch a model repository's configuration, tokenizer, weights and optimizer state; returns its folder.

    Pickled weights are fetched only where it has no safetensors.
    """
    from huggingface_hub import snapshot_download

    def fetch(*patterns: str) -> Path:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))

    try:
        with quietly():
            found = fetch(*CHECKPOINT_FILES)
            if not any(found.glob("model*.safetensors")):
                found = fetch(*CHECKPOINT_FILES, *PICKLED_FILES)
    except Exception as error:  # the hub client raises its own, requests' and the network's errors alike
        raise UserError(unreachable("model", name, error)) from None
    return found


def open_dataset(name: str, configuration: str | None = None, revision: str | None = None) -> dict[str, Source]:
    """Fetch a data set into the library's own cache; returns its splits, mapped from there.

    The library runs no code of the data set's own (since its version 4).
    """
    from datasets import config, load_dataset

    asked = {key: value for key, value in (("name", configuration), ("revision", revision)) if value is not None}
    with quietly():
        away = out_of_reach(name)
        try:
            with nullcontext() if away is None else from_cache_alone():
                loaded = load_dataset(name, **asked)
        except Exception as error:  # see fetch_checkpoint
            raise UserError(unreachable("dataset", name, away or error)) from None
    return splits_of(loaded, name, "hub data set", Path(config.HF_CACHE_HOME).expanduser())
