"""T5 as a classifier: each class is a label word, a sequence of tokens that the decoder gives a probability to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from influence_core.errors import UserError
from influence_core.models import pretrained
from influence_core.models.classifier import Batch, Parameters
from influence_core.models.padding import padded
from influence_core.models.text import TextClassifier
from influence_core.preparation import Preparation


class T5Classifier(TextClassifier):
    """A T5ForConditionalGeneration with a label word for each class.

    Logits are the log-likelihoods of the classes' label sequences, which need not add up to one.
    The loss is the cross-entropy of the row's own label sequence, summed over its tokens (paper,
    App. J.1; DEFINITIONS, Loss), so it is minus the label's logit, not a softmax over classes.
    """

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Any,
        label_names: Sequence[str],
        label_sequences: Sequence[Sequence[int]],
        preparation: Preparation | None = None,
    ) -> None:
        if len(label_sequences) != len(label_names) or not all(label_sequences):
            raise UserError(
                f"{len(label_sequences)} label words for {len(label_names)} classes: give each class one with a token"
            )
        distinct = {tuple(sequence) for sequence in label_sequences}
        if len(distinct) < len(label_sequences):
            raise UserError(
                f"{len(label_names)} classes share {len(distinct)} label words: give each a word of its own"
            )
        t5: Any = module
        t5.set_attn_implementation("eager")  # as ImageClassifier, and why
        super().__init__(module, tokenizer, label_names, preparation)
        for part in module.modules():
            if getattr(part, "has_relative_attention_bias", False):
                part.register_forward_pre_hook(_bias_by_row, with_kwargs=True)
        self.sequences = torch.from_numpy(padded(label_sequences, -1, "int64"))  # [C, L], −1 behind the end
        start = torch.full((len(label_sequences), 1), int(t5.config.decoder_start_token_id))
        self.decoder_inputs = torch.cat([start, self.sequences[:, :-1].clamp(min=0)], 1)  # [C, L], shifted right

    def logits(self, batch: Batch, parameters: Parameters | None = None, buffers: Parameters | None = None) -> Tensor:
        """Return the log-likelihood of each class's label sequence (nats), [B, C]; the encoder runs once."""
        given = {**(parameters or {}), **(buffers or {})}
        found: list[Tensor] = []
        encoded = batch.inputs.get("encoder_outputs")  # [B, T, d]
        for label in range(len(self.label_names)):
            labels = torch.full_like(batch.labels, label)
            losses, encoded = self._losses(batch.inputs, labels, given, encoded)
            found.append(-losses)
        return torch.stack(found, 1)

    def losses(self, batch: Batch, parameters: Parameters | None = None, buffers: Parameters | None = None) -> Tensor:
        """Return the cross-entropy of each row's label sequence (nats), summed over its tokens, [B]."""
        given = {**(parameters or {}), **(buffers or {})}
        return self._losses(batch.inputs, batch.labels, given, batch.inputs.get("encoder_outputs"))[0]

    def losses_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return minus the labels' log-likelihoods, [B]."""
        return -logits.gather(1, labels[:, None])[:, 0]

    def _losses(
        self, inputs: dict[str, Tensor], labels: Tensor, given: Parameters, encoded: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the losses [B] for labels [B], and the encoder's output [B, T, d] (computed if not given)."""
        targets = self.sequences.to(labels.device)[labels]  # [B, L]
        length = targets.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=labels.device).triu(1)
        causal = torch.zeros(length, length, dtype=self.dtype, device=labels.device)
        causal = causal.masked_fill(later, torch.finfo(self.dtype).min).expand(len(labels), 1, length, length)
        arguments: dict[str, Any] = {
            "attention_mask": inputs["attention_mask"],
            "decoder_input_ids": self.decoder_inputs.to(labels.device)[labels],
            "decoder_attention_mask": causal,
            "use_cache": False,
        }
        if encoded is None:
            arguments["input_ids"] = inputs["input_ids"]
        else:
            arguments["encoder_outputs"] = (encoded,)
        output = torch.func.functional_call(self.module, given, (), arguments)
        logits = output.logits  # [B, L, vocabulary]
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="none")
        return losses.view_as(targets).sum(1), output.encoder_last_hidden_state


def label_sequences(tokenizer: Any, words: Sequence[str]) -> list[list[int]]:
    """Return the label words as token ids, each with the tokenizer's end of sequence."""
    return [list(tokenizer(word)["input_ids"]) for word in words]


def load_t5(folder: Path, label_names: Sequence[str], preparation: Preparation) -> T5Classifier:
    """Load a T5 checkpoint directory; a class without a label word is said by its name.

    Raises `UserError` for label words that the tokenizer does not know, or does not tell apart.
    """
    module, tokenizer = pretrained.model(folder, "seq2seq"), pretrained.tokenizer(folder)
    words = preparation.label_words or tuple(label_names)
    sequences = label_sequences(tokenizer, words)
    for word, sequence in zip(words, sequences, strict=True):
        if tokenizer.unk_token_id in sequence:
            raise UserError(f"the tokenizer in {folder} does not know the label word {word!r}: give another word")
    return T5Classifier(module, tokenizer, label_names, sequences, preparation)


def _bias_by_row(attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any] | None:
    """Give an attention its relative position bias as [B, heads, queries, keys].

    T5 looks the bias up once for the whole batch; looked up for each row, the table has per-example
    gradients like every other layer.
    """
    if kwargs.get("position_bias") is not None or kwargs.get("past_key_values") is not None:
        return None
    states: Tensor = args[0]
    rows, length = states.shape[:2]
    position = torch.arange(length, device=states.device)
    buckets = attention._relative_position_bucket(
        position[None, :] - position[:, None],
        bidirectional=not attention.is_decoder,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    bias = attention.relative_attention_bias(buckets.expand(rows, length, length))  # [B, L, L, heads]
    return args, {**kwargs, "position_bias": bias.permute(0, 3, 1, 2)}
