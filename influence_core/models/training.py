"""Plain training of a scope, for the demos' own checkpoints."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from influence_core.events import Progress
from influence_core.models.classifier import Classifier, Parameters, Rows, Scope

POOL = 50  # batches whose rows are sorted by size together, so that padding stays small


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of a training: AdamW, linear decay to zero."""

    scope: str
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float  # decoupled
    seed: int


@dataclass(frozen=True)
class Epoch:
    """The state after one epoch."""

    number: int  # from 1
    parameters: Parameters  # the scope's
    optimizer: dict[str, Tensor]  # as `trajectory.optimizers.OptimizerState.to_tensors` names them
    learning_rate: float  # mean over the epoch: η of the checkpoint in Eq. 2


def batch_rows(sizes: np.ndarray, batch_size: int, generator: np.random.Generator) -> list[np.ndarray]:
    """One epoch's batches of row numbers: shuffled, like sizes together, in shuffled order."""
    order = generator.permutation(len(sizes))
    batches: list[np.ndarray] = []
    for start in range(0, len(order), batch_size * POOL):
        pool = order[start : start + batch_size * POOL]
        pool = pool[np.argsort(sizes[pool], kind="stable")]
        batches += [pool[first : first + batch_size] for first in range(0, len(pool), batch_size)]
    return [batches[index] for index in generator.permutation(len(batches))]


def train(classifier: Classifier, rows: Rows, recipe: Recipe) -> Iterator[Progress | Epoch]:
    """Train the scope in place; yields progress every batch and an `Epoch` after each epoch."""
    scope: Scope = classifier.scope(recipe.scope)
    own = dict(classifier.module.named_parameters())
    trained = [own[name].requires_grad_(True) for name in scope.parameters]
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    sizes = np.array([classifier.size(item) for item in rows.items])
    generator = np.random.default_rng(recipe.seed)
    epochs = [batch_rows(sizes, recipe.batch_size, generator) for _ in range(recipe.epochs)]
    total = sum(len(batches) for batches in epochs)
    done = 0
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        for number, batches in enumerate(epochs, start=1):
            for chosen in batches:
                for root in scope.modules:
                    classifier.module.get_submodule(root).train()
                rate = recipe.learning_rate * (1 - done / total)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                optimizer.zero_grad()
                torch.autograd.backward(classifier.losses(rows.batch(chosen)).mean())
                optimizer.step()
                done += 1
                yield Progress(
                    phase=f"training, epoch {number} of {recipe.epochs}", done=done, total=total, unit="batches"
                )
            classifier.module.eval()
            state: dict[str, Tensor] = {"step": torch.tensor(float(done), dtype=torch.float64)}
            for name in scope.parameters:
                state[f"exp_avg.{name}"] = optimizer.state[own[name]]["exp_avg"].clone()
                state[f"exp_avg_sq.{name}"] = optimizer.state[own[name]]["exp_avg_sq"].clone()
            mean = recipe.learning_rate * (1 - (done - (len(batches) + 1) / 2) / total)
            yield Epoch(number, {name: own[name].detach().clone() for name in scope.parameters}, state, mean)
    classifier.module.requires_grad_(False)
