"""Models and tokenizers of transformers from a local folder: no code from it, nothing from the network."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from influence_core.errors import UserError
from influence_core.preparation import Kind

LOCAL = {"trust_remote_code": False, "local_files_only": True}


def auto_class(kind: Kind) -> Any:
    """Return transformers' class that makes a model of a kind from a configuration or a folder."""
    from transformers import (
        AutoModelForImageClassification,
        AutoModelForSeq2SeqLM,
        AutoModelForSequenceClassification,
    )

    return {
        "text": AutoModelForSequenceClassification,
        "image": AutoModelForImageClassification,
        "seq2seq": AutoModelForSeq2SeqLM,
    }[kind]


def model(folder: Path, kind: Kind, *, safe: bool = True) -> Any:
    """Load a model in float32 with eager attention, from safetensors, or from pickles that were scanned (``safe``).

    Eager, because scaled-dot-product attention has neither the double backward nor the forward-mode
    derivative that curvature and tangents need on every device (DESIGN, Numerics 5). Raises
    `UserError` for weights that do not fit the configuration: transformers would fill them in at random.
    """
    with in_one_line(folder, "model"):
        module, about = auto_class(kind).from_pretrained(
            folder,
            attn_implementation="eager",
            use_safetensors=safe,
            dtype=torch.float32,
            output_loading_info=True,
            **LOCAL,
        )
    for what in ("missing_keys", "mismatched_keys"):
        if about[what]:
            first = min(str(name) for name in about[what])
            raise UserError(
                f"{folder} has no fitting weights for {first} ({len(about[what])} such): its config.json is of another "
                "model, or it was never fine-tuned as a classifier"
            )
    return module


def empty_model(folder: Path, kind: Kind) -> Any:
    """Build the model of a folder's configuration without memory for its weights."""
    from transformers import AutoConfig

    with in_one_line(folder, "model"), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, **LOCAL)
        return auto_class(kind).from_config(config, attn_implementation="eager", trust_remote_code=False)


def tokenizer(folder: Path) -> Any:
    """Load a folder's tokenizer."""
    from transformers import AutoTokenizer

    with in_one_line(folder, "tokenizer"):
        return AutoTokenizer.from_pretrained(folder, **LOCAL)


def image_processor(folder: Path) -> Any:
    """Load a folder's image processor."""
    from transformers import AutoImageProcessor

    with in_one_line(folder, "image processor"):
        load: Any = AutoImageProcessor.from_pretrained
        return load(folder, **LOCAL)


@contextmanager
def in_one_line(folder: Path, what: str) -> Iterator[None]:
    """Turn what transformers raises for a folder that does not fit into a `UserError`; its progress bars are off."""
    import transformers

    quiet: Any = transformers.utils.logging
    quiet.disable_progress_bar()
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # its classes raise whatever a wrong configuration makes them run into
        said = str(error).strip().splitlines()
        raise UserError(
            f"the {what} in {folder} cannot be loaded ({type(error).__name__}{': ' + said[0][:200] if said else ''}): "
            "save the checkpoint again with save_pretrained, with all its files"
        ) from None
