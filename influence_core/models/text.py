"""BERT-like text classifiers from a Hugging Face checkpoint directory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from influence_core.errors import UserError
from influence_core.models.classifier import Batch, Classifier, Scope

MAX_LENGTH = 256  # tokens; longer texts are cut, as in training


class TextClassifier(Classifier):
    """A sequence classifier with its tokenizer.

    Every input carries the batch dimension, positions and segment ids included, and the attention
    mask is the prepared additive one ([B, 1, 1, T]): transforms over transformers' own mask code
    fail, and a broadcast position would mix examples in per-example gradients.
    """

    def __init__(self, module: nn.Module, tokenizer: Any, label_names: Sequence[str]) -> None:
        super().__init__(module, label_names)
        self.tokenizer = tokenizer
        limit = getattr(module.config, "max_position_embeddings", MAX_LENGTH)
        self.max_length = min(MAX_LENGTH, int(limit))

    def encode(self, raw: Sequence[Any]) -> list[Any]:
        """Tokenise texts; returns a list of int64 arrays of token ids."""
        ids = self.tokenizer(list(raw), truncation=True, max_length=self.max_length)["input_ids"]
        return [np.asarray(row, dtype=np.int64) for row in ids]

    def size(self, item: Any) -> int:
        """Tokens of one text."""
        return len(item)

    def collate(self, items: Sequence[Any], labels: Sequence[int] | np.ndarray) -> Batch:
        """Pad to the longest text of the batch."""
        longest = max(len(item) for item in items)
        padding = self.tokenizer.pad_token_id or 0
        ids = np.full((len(items), longest), padding, dtype=np.int64)
        hidden = np.ones((len(items), longest), dtype=bool)
        for row, item in enumerate(items):
            ids[row, : len(item)] = item
            hidden[row, : len(item)] = False
        mask = torch.zeros(len(items), 1, 1, longest, dtype=self.dtype)
        mask.masked_fill_(torch.from_numpy(hidden)[:, None, None, :], torch.finfo(self.dtype).min)
        input_ids = torch.from_numpy(ids)
        inputs = {
            "input_ids": input_ids,
            "attention_mask": mask,
            "token_type_ids": torch.zeros_like(input_ids),
            "position_ids": torch.arange(longest).expand(len(items), longest).contiguous(),
        }
        batch = Batch(inputs, torch.as_tensor(np.asarray(labels), dtype=torch.int64))
        if self.device.type == "cuda":
            pinned = {name: value.pin_memory() for name, value in batch.inputs.items()}
            batch = Batch(pinned, batch.labels.pin_memory())
        return batch.to(self.device)

    def scope(self, name: str) -> Scope:
        """``head``: pooler and classifier; ``last:n``: n last blocks and the head; ``all``."""
        if name == "all":
            return super().scope(name)
        base = str(self.module.base_model_prefix)
        blocks = cast(nn.ModuleList, self.module.get_submodule(f"{base}.encoder.layer"))
        first = len(blocks)
        if name != "head" and not name.startswith("last:"):
            raise UserError(f"scope {name!r} is not one of head, last:n, all: choose one")
        if name.startswith("last:"):
            count = int(name.removeprefix("last:"))
            if count > len(blocks):
                raise UserError(f"scope {name} asks for {count} blocks, the model has {len(blocks)}: use last:{first}")
            first -= count
        roots = [f"{base}.encoder.layer.{index}" for index in range(first, len(blocks))]
        roots += [f"{base}.pooler", "dropout", "classifier"]
        owned = tuple(
            parameter
            for parameter, _ in self.module.named_parameters()
            if any(parameter.startswith(f"{root}.") for root in roots)
        )
        return Scope(name, owned, tuple(roots))


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
