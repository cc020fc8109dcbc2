"""Checkpoints and datasets from the Hugging Face hub, by name."""

from pathlib import Path

import pandas as pd

from influence_core.errors import UserError
from influence_core.home import folder
from influence_core.specs import Split

HUB_SPLITS: dict[Split, tuple[str, ...]] = {"train": ("train",), "validation": ("validation",), "test": ("test",)}
CHECKPOINT_FILES = ("*.json", "*.txt", "model.safetensors")  # no code, no pickles


def looks_like_hub_name(text: str) -> bool:
    """Whether a text that is no existing path could be ``owner/name``."""
    parts = text.split("/")
    return not Path(text).exists() and len(parts) == 2 and all(parts) and not text.startswith((".", "/", "~"))


def fetch_checkpoint(name: str) -> Path:
    """Fetch a model repository's configuration, tokenizer and safetensors; returns its folder."""
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(name, allow_patterns=list(CHECKPOINT_FILES))
    except Exception as error:  # the hub client raises its own, requests' and the network's errors alike
        raise UserError(unreachable("model", name, error)) from None
    return Path(found)


def fetch_dataset(name: str) -> dict[Split, Path]:
    """Fetch a dataset's splits; returns a Parquet file for each, in the home."""
    from datasets import DatasetDict, load_dataset

    try:
        loaded = load_dataset(name, trust_remote_code=False)
    except Exception as error:  # see fetch_checkpoint
        raise UserError(unreachable("dataset", name, error)) from None
    if not isinstance(loaded, DatasetDict):
        raise UserError(f"the hub dataset {name!r} has no splits: choose one with train and test")
    place = folder("downloads", "hub", name.replace("/", "--"))
    paths: dict[Split, Path] = {}
    for split, names in HUB_SPLITS.items():
        for own in names:
            if own in loaded:
                table = pd.DataFrame(loaded[own].to_pandas())
                paths[split] = place / f"{split}.parquet"
                table.to_parquet(paths[split], index=False)
    if "train" not in paths:
        raise UserError(f"the hub dataset {name!r} has no train split (it has {', '.join(loaded)}): choose another")
    return paths


def unreachable(what: str, name: str, error: Exception) -> str:
    """Say in one line why the hub did not give it."""
    said = str(error).strip().splitlines()
    return (
        f"could not fetch the {what} {name!r} from the Hugging Face hub ({type(error).__name__}"
        f"{': ' + said[0] if said else ''}): check the name and the network, or give a local path"
    )
