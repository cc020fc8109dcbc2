"""Small classifiers for the tests of the training step."""

import numpy as np
import torch
from models import random_tokens, tiny_bert, token_batch
from torch import nn

from influence_core.models.classifier import Batch, Classifier, Rows, Scope
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.trajectory.step import TrainingStep


class Mlp(nn.Module):
    """Two blocks with dropout (and BatchNorm if asked), of which the scope ``head`` trains the second."""

    def __init__(self, batchnorm: bool = False, rate: float = 0.3) -> None:
        super().__init__()
        norm = nn.BatchNorm1d(6) if batchnorm else nn.Identity()
        self.body = nn.Sequential(nn.Linear(4, 6), norm, nn.Tanh(), nn.Dropout(rate))
        self.head = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Dropout(rate), nn.Linear(5, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def mlp(batchnorm: bool = False, rate: float = 0.3, seed: int = 0) -> Classifier:
    """Return the network in float64, with scopes ``head`` and ``all``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = Mlp(batchnorm, rate).double()
    names = tuple(name for name, _ in module.named_parameters() if name.startswith("head."))
    return Classifier(module, ["a", "b", "c"], {"head": Scope("head", names, ("head",))})


def mlp_rows(classifier: Classifier, n: int = 20, seed: int = 1) -> Rows:
    """Return n random rows with random labels."""
    random = np.random.default_rng(seed)
    return Rows(classifier, list(random.normal(size=(n, 4))), random.integers(0, 3, n))


class TokenClassifier(Classifier):
    """A classifier whose items are lists of token ids."""

    def collate(self, items: list[list[int]], labels: np.ndarray) -> Batch:
        return token_batch(items, np.asarray(labels).tolist(), dtype=self.dtype)


def bert_rows(n: int = 12, dropout: float = 0.2) -> Rows:
    """Return n random token sequences under a two-layer BERT (eager attention, float64)."""
    plain = tiny_bert(classes=2, dropout=dropout)
    classifier = TokenClassifier(plain.module, plain.label_names, {"last:1": plain.scope("last:1")})
    ids, labels = random_tokens(n, classes=2)
    return Rows(classifier, ids, labels)


SGD = OptimizerSpec("sgd", 0.1)
ADAM = OptimizerSpec("adam", 0.01)
NOTHING = torch.zeros(0)  # epsilon of a step without perturbation


def one(value):
    return torch.tensor([value], dtype=torch.float64)


def build(rows, optimizer=SGD, scope="all", batch_size=8, seed=5, **flags):
    classifier = rows.classifier
    step = TrainingStep(classifier, classifier.scope(scope), optimizer, rows, batch_size, seed, **flags)
    parameters = classifier.parameters(step.scope)
    return step, parameters, step.initial_state(parameters)


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
