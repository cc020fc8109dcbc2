"""Checkpoints and datasets from the Hugging Face hub, by name."""

import re
from pathlib import Path

from influence_core.data.hugging_face import splits_of
from influence_core.data.source import Source
from influence_core.errors import UserError

CHECKPOINT_FILES = ("*.json", "*.txt", "model.safetensors")  # no code, no pickles
NAME = re.compile(r"\w[\w.-]{0,95}/[\w.-]{1,96}", re.ASCII)  # owner/name
FILE_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet", ".safetensors", ".bin", ".pt", ".pth")
SAID = 300  # characters of the library's own words in ours


def looks_like_hub_name(text: str) -> bool:
    """Whether a text that is no existing path could be ``owner/name``."""
    if not NAME.fullmatch(text) or text.lower().endswith(FILE_ENDINGS):
        return False
    return not Path(text).exists()


def fetch_checkpoint(name: str, revision: str | None = None) -> Path:
    """Fetch a model repository's configuration, tokenizer and safetensors; returns its folder."""
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(name, revision=revision, allow_patterns=list(CHECKPOINT_FILES))
    except Exception as error:  # the hub client raises its own, requests' and the network's errors alike
        raise UserError(unreachable("model", name, error)) from None
    return Path(found)


def open_dataset(name: str, configuration: str | None = None, revision: str | None = None) -> dict[str, Source]:
    """Fetch a data set into the library's own cache; returns its splits, mapped from there.

    The library runs no code of the data set's own (since its version 4).
    """
    from datasets import config, load_dataset

    asked = {key: value for key, value in (("name", configuration), ("revision", revision)) if value is not None}
    try:
        loaded = load_dataset(name, **asked)
    except Exception as error:  # see fetch_checkpoint
        raise UserError(unreachable("dataset", name, error)) from None
    return splits_of(loaded, name, "hub data set", Path(config.HF_CACHE_HOME).expanduser())


def unreachable(what: str, name: str, error: Exception) -> str:
    """Say in one line why the hub did not give it."""
    said = " ".join(str(error).split())[:SAID]
    return (
        f"could not fetch the {what} {name!r} from the Hugging Face hub ({type(error).__name__}"
        f"{': ' + said if said else ''}): check the name and the network, or give a local path"
    )
