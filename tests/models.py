"""Small models for tests, and the slow, plain way to what the library does fast."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from influence_core.models.classifier import Batch, Classifier, Parameters, Scope

HIDDEN = 16
VOCABULARY = 40


def tiny_bert(
    *, layers: int = 2, classes: int = 3, dtype: torch.dtype = torch.float64, seed: int = 0, dropout: float = 0.1
) -> Classifier:
    """A random BertForSequenceClassification (hidden 16) with scopes head, last:1 … last:layers, all."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        num_labels=classes,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation="eager",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = BertForSequenceClassification(config).to(dtype)
        for parameter in module.parameters():  # biases and norms off their special values, gradients not tiny
            parameter.data += 0.3 * torch.randn_like(parameter)
    head = ["bert.pooler", "dropout", "classifier"]
    scopes = {}
    for last in range(layers + 1):
        roots = [f"bert.encoder.layer.{index}" for index in range(layers - last, layers)] + head
        owned = tuple(n for n, _ in module.named_parameters() if any(n.startswith(f"{root}.") for root in roots))
        name = f"last:{last}" if last else "head"
        scopes[name] = Scope(name, owned, tuple(roots))
    return Classifier(module, [f"class {index}" for index in range(classes)], scopes)


def token_batch(
    ids: Sequence[Sequence[int]], labels: Sequence[int], *, padding: int = 0, dtype: torch.dtype = torch.float64
) -> Batch:
    """Token ids padded to the longest row plus ``padding``, with a prepared additive 4-D mask."""
    longest = max(len(row) for row in ids) + padding
    input_ids = torch.zeros(len(ids), longest, dtype=torch.int64)
    mask = torch.full((len(ids), 1, 1, longest), torch.finfo(dtype).min, dtype=dtype)
    for index, row in enumerate(ids):
        input_ids[index, : len(row)] = torch.tensor(row)
        mask[index, ..., : len(row)] = 0
    inputs = {
        "input_ids": input_ids,
        "token_type_ids": (torch.arange(longest) > 3).long().expand(len(ids), -1).contiguous(),
        "position_ids": torch.arange(longest).expand(len(ids), -1).contiguous(),
        "attention_mask": mask,
    }
    return Batch(inputs, torch.tensor(labels))


def random_tokens(count: int, *, classes: int = 3, seed: int = 0) -> tuple[list[list[int]], list[int]]:
    """Rows of 3 to 9 tokens, most of them with a token that occurs more than once, and labels."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, size: int) -> list[int]:
        return torch.randint(low, high, (size,), generator=generator).tolist()

    ids = []
    for length in draw(3, 10, count):
        row = draw(1, VOCABULARY, length)
        row[-1] = row[0]
        ids.append(row)
    return ids, draw(0, classes, count)


class Mlp(nn.Module):
    """Two tanh layers and logits, on x [B, inputs]."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))


def seeded(build: type[nn.Module], *arguments: object, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Build a module from a seed, leaving the global random state alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(*arguments).to(dtype)


def mlp(*, inputs: int = 4, hidden: int = 5, classes: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64):
    """A small `Mlp` as a Classifier, with scopes head (the last layer) and all."""
    module = seeded(Mlp, inputs, hidden, classes, seed=seed, dtype=dtype)
    head = Scope("head", ("last.weight", "last.bias"), ("last",))
    return Classifier(module, [f"class {index}" for index in range(classes)], {"head": head})


def vector_batch(count: int, *, inputs: int = 4, classes: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64):
    """Gaussian inputs x [count, inputs] with random labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, inputs, generator=generator, dtype=torch.float64).to(dtype)
    return Batch({"x": x}, torch.randint(0, classes, (count,), generator=generator))


def split(batch: Batch, size: int) -> list[Batch]:
    """Cut a batch into batches of ``size`` rows (the last may be smaller)."""
    return [
        Batch(
            {name: value[start : start + size] for name, value in batch.inputs.items()},
            batch.labels[start : start + size],
        )
        for start in range(0, len(batch), size)
    ]


def loop_gradients(classifier: Classifier, scope: Scope, batch: Batch) -> Parameters:
    """Per-row gradients [B, *shape] by one ``backward`` a row through a plain copy of the module."""
    import copy

    module = copy.deepcopy(classifier.module).eval().requires_grad_(True)
    own = dict(module.named_parameters())
    gradients: dict[str, list[Tensor]] = {name: [] for name in scope.parameters}
    for one in split(batch, 1):
        module.zero_grad()
        output = module(**one.inputs)
        logits = output if isinstance(output, Tensor) else output.logits
        nn.functional.cross_entropy(logits, one.labels).backward()
        for name, found in gradients.items():
            gradient = own[name].grad
            found.append(torch.zeros_like(own[name]) if gradient is None else gradient.clone())
    return {name: torch.stack(found) for name, found in gradients.items()}


def random_directions(classifier: Classifier, scope: Scope, count: int, *, seed: int = 1) -> Parameters:
    """Gaussian directions {name: [count, *shape]} in the classifier's dtype."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(count, *value.shape, generator=generator, dtype=torch.float64).to(value.dtype)
        for name, value in classifier.parameters(scope).items()
    }


def random_metric(classifier: Classifier, scope: Scope, *, seed: int = 2) -> Parameters:
    """A positive diagonal {name: shape}."""
    return {name: value[0].abs() + 0.1 for name, value in random_directions(classifier, scope, 1, seed=seed).items()}
