"""BERT-like text classifiers from a Hugging Face checkpoint directory."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from influence_core.models.classifier import Batch, Classifier
from influence_core.models.layout import layout_of
from influence_core.models.padding import additive_mask, padded

MAX_LENGTH = 256  # tokens; longer texts are cut, as in training


class TextClassifier(Classifier):
    """A sequence classifier with its tokenizer.

    Every input carries the batch dimension, positions and segment ids included, and the attention
    mask is the prepared additive one ([B, 1, 1, T]): transforms over transformers' own mask code
    fail, and a broadcast position would mix examples in per-example gradients.
    """

    def __init__(self, module: nn.Module, tokenizer: Any, label_names: Sequence[str]) -> None:
        super().__init__(module, label_names, layout=layout_of(module))
        self.tokenizer = tokenizer
        self.accepts = frozenset(inspect.signature(module.forward).parameters)
        self.padding = int(tokenizer.pad_token_id or 0)
        # RoBERTa counts positions from the one after its padding token's number.
        config: Any = module.config
        self.first_position = config.pad_token_id + 1 if config.model_type == "roberta" else 0
        limit = getattr(config, "max_position_embeddings", MAX_LENGTH + self.first_position)
        self.max_length = min(MAX_LENGTH, int(limit) - self.first_position)

    def encode(self, raw: Sequence[Any]) -> list[Any]:
        """Tokenise texts; returns a list of int64 arrays of token ids."""
        ids = self.tokenizer(list(raw), truncation=True, max_length=self.max_length)["input_ids"]
        return [np.asarray(row, dtype=np.int64) for row in ids]

    def size(self, item: Any) -> int:
        """Tokens of one text."""
        return len(item)

    def collate(self, items: Sequence[Any], labels: Sequence[int] | np.ndarray) -> Batch:
        """Pad to the longest text of the batch."""
        input_ids = torch.from_numpy(padded(items, self.padding, np.int64))
        rows, longest = input_ids.shape
        inputs = {
            "input_ids": input_ids,
            "attention_mask": additive_mask([len(item) for item in items], self.dtype),
            "token_type_ids": torch.zeros_like(input_ids),
            "position_ids": (self.first_position + torch.arange(longest)).expand(rows, longest).contiguous(),
        }
        return self.place({name: value for name, value in inputs.items() if name in self.accepts}, labels)


def load_text(folder: Path, label_names: Sequence[str]) -> TextClassifier:
    """Load a checkpoint directory; safetensors only, no code from it, eager attention.

    Eager, because scaled-dot-product attention has neither the double backward nor the forward-mode
    derivative that curvature and tangents need on every device (DESIGN, Numerics 5).
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    module = AutoModelForSequenceClassification.from_pretrained(
        folder,
        attn_implementation="eager",
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        dtype=torch.float32,
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    return TextClassifier(module, tokenizer, label_names)
