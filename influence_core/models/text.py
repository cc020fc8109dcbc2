"""BERT-like text classifiers from a Hugging Face checkpoint directory."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from influence_core.models import pretrained
from influence_core.models.classifier import Batch, Classifier
from influence_core.models.items import Tokens, blocks
from influence_core.models.layout import layout_of
from influence_core.models.padding import additive_mask, padded
from influence_core.preparation import MAX_LENGTH, Preparation


class TextClassifier(Classifier):
    """A sequence classifier with its tokenizer.

    Every input carries the batch dimension, positions and segment ids included, and the attention
    mask is the prepared additive one ([B, 1, 1, T]): transforms over transformers' own mask code
    fail, and a broadcast position would mix examples in per-example gradients. A family whose parts
    are not known gets a plain mask ([B, T]) and counts positions by its own rules.
    """

    def __init__(
        self, module: nn.Module, tokenizer: Any, label_names: Sequence[str], preparation: Preparation | None = None
    ) -> None:
        super().__init__(module, label_names, layout=layout_of(module))
        given = preparation or Preparation()
        self.tokenizer = tokenizer
        self.prefix = given.prefix
        self.accepts = frozenset(inspect.signature(module.forward).parameters)
        self.padding = int(tokenizer.pad_token_id or 0)
        # RoBERTa counts positions from the one after its padding token's number.
        config: Any = module.config
        self.first_position = config.pad_token_id + 1 if config.model_type == "roberta" else 0
        wanted = given.max_length or MAX_LENGTH
        limit = getattr(config, "max_position_embeddings", None) or wanted + self.first_position
        self.max_length = min(wanted, int(limit) - self.first_position)

    def encode(self, raw: Sequence[Any]) -> Sequence[Any]:
        """Tokenise texts, each behind the prefix; returns token ids in one flat array (`Tokens`)."""
        return Tokens.joined(self._tokenised(texts) for texts in blocks(raw))

    def _tokenised(self, texts: list[Any]) -> Sequence[Sequence[int]]:
        if self.prefix:
            texts = [f"{self.prefix}{text}" for text in texts]
        found: Sequence[Sequence[int]] = self.tokenizer(texts, truncation=True, max_length=self.max_length)["input_ids"]
        return found

    def size(self, item: Any) -> int:
        """Tokens of one text."""
        return len(item)

    def sizes(self, items: Sequence[Any]) -> np.ndarray:
        """Tokens of each text, [N]."""
        return items.lengths if isinstance(items, Tokens) else super().sizes(items)

    def collate(self, items: Sequence[Any], labels: Sequence[int] | np.ndarray) -> Batch:
        """Pad to the longest text of the batch."""
        input_ids = torch.from_numpy(padded(items, self.padding, np.int64))
        rows, longest = input_ids.shape
        lengths = [len(item) for item in items]
        inputs = {"input_ids": input_ids, "token_type_ids": torch.zeros_like(input_ids)}
        if self.layout is None:
            if "token_type_ids" not in self.tokenizer.model_input_names:
                del inputs["token_type_ids"]  # GPT-2 would add the embedding of token 0
            inputs["attention_mask"] = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
        else:
            inputs["attention_mask"] = additive_mask(lengths, self.dtype)
            inputs["position_ids"] = (self.first_position + torch.arange(longest)).expand(rows, longest).contiguous()
        return self.place({name: value for name, value in inputs.items() if name in self.accepts}, labels)


def load_text(folder: Path, label_names: Sequence[str], preparation: Preparation | None = None) -> TextClassifier:
    """Load a checkpoint directory; safetensors only, no code from it, eager attention (see `pretrained`)."""
    module = pretrained.model(folder, "text")
    return TextClassifier(module, pretrained.tokenizer(folder), label_names, preparation)
