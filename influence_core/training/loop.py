"""Training by a recipe: the same weights whether or not it was interrupted."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from influence_core.errors import RunFailedError, UserError
from influence_core.events import Progress
from influence_core.models.classifier import Batch, Classifier, Rows, Scope
from influence_core.models.image import ImageClassifier
from influence_core.training.augmentation import crop_flip
from influence_core.training.recipes import Recipe
from influence_core.trajectory.streams import derive, random_stream

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # Adam's
POOL = 50  # batches whose rows are sorted by size together, so that padding stays small


@dataclass(frozen=True)
class Reached:
    """A point of a training; the classifier holds the weights, in eval mode."""

    step: int  # updates made
    epoch: float  # passes over the rows
    optimizer: dict[str, Tensor]  # as `trajectory.optimizers.OptimizerState.to_tensors` names them
    learning_rate: float  # mean since the point before: η of the checkpoint in Eq. 2
    loss: float  # mean training loss since the point before, nats


def batch_rows(sizes: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """One epoch's batches of row numbers: shuffled, like sizes together, in shuffled order."""
    generator = np.random.default_rng(derive(seed, "epoch", epoch))
    order = generator.permutation(len(sizes))
    batches: list[np.ndarray] = []
    for start in range(0, len(order), batch_size * POOL):
        pool = order[start : start + batch_size * POOL]
        pool = pool[np.argsort(sizes[pool], kind="stable")]
        batches += [pool[first : first + batch_size] for first in range(0, len(pool), batch_size)]
    return [batches[index] for index in generator.permutation(len(batches))]


def train(
    classifier: Classifier, rows: Rows, recipe: Recipe, every: int | None = None, start: Reached | None = None
) -> Iterator[Progress | Reached]:
    """Train the recipe's scope in place.

    Yields progress every batch, and a `Reached` after every ``every`` steps (by default every
    epoch), at the epochs that the recipe keeps and at the end. ``start`` goes on from a point
    whose weights the classifier holds. A step depends on weights, state and (seed, step) alone.
    Raises `RunFailedError` when the loss is no finite number.
    """
    scope = classifier.scope(recipe.scope)
    own = dict(classifier.module.named_parameters())
    trained = {name: own[name] for name in scope.parameters}
    for parameter in trained.values():
        parameter.requires_grad_(True)
    optimizer = _optimizer(recipe, list(trained.values()))
    if start is not None:
        _restore(optimizer, trained, start.optimizer)
    per_epoch = -(-len(rows) // recipe.batch_size)
    total = recipe.total(per_epoch)
    kept = {epoch * per_epoch for epoch in recipe.keep_epochs} | {total}
    first = before = 0 if start is None else start.step
    summed, rates = torch.zeros((), device=classifier.device), 0.0
    batches: list[np.ndarray] = []
    for step in range(first, total):
        epoch, place = divmod(step, per_epoch)
        if place == 0 or not batches:
            batches = batch_rows(rows.sizes, recipe.batch_size, recipe.seed, epoch)
        rate = recipe.rate(step, per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        summed += _step(classifier, scope, optimizer, rows.batch(batches[place]), recipe, step)
        rates += rate
        done = step + 1
        yield Progress(phase=f"training, epoch {epoch + 1}", done=done, total=total, unit="batches")
        if done % (every or per_epoch) == 0 or done in kept:
            classifier.module.eval()
            loss = float(summed) / (done - before)
            if not np.isfinite(loss):
                rate = recipe.learning_rate
                raise RunFailedError(f"the training loss is {loss} by step {done}: lower the learning rate ({rate:g})")
            state = _state(optimizer, trained, done)
            yield Reached(done, done / per_epoch, state, rates / (done - before), loss)
            before, rates = done, 0.0
            summed.zero_()
    classifier.module.eval().requires_grad_(False)


def _step(
    classifier: Classifier, scope: Scope, optimizer: torch.optim.Optimizer, batch: Batch, recipe: Recipe, step: int
) -> Tensor:
    """Make one update; returns the batch's loss, []. Dropout and augmentation draw from (seed, step)."""
    for root in scope.modules:
        classifier.module.get_submodule(root).train()
    with random_stream(classifier.device, derive(recipe.seed, step, "train")):
        if recipe.augmentation == "crop-flip":
            batch = _augmented(classifier, batch)
        optimizer.zero_grad()
        loss = classifier.losses(batch).mean()
        torch.autograd.backward(loss)
    optimizer.step()
    return loss.detach()


def _augmented(classifier: Classifier, batch: Batch) -> Batch:
    """Return the batch with its images cropped and mirrored at random."""
    if not isinstance(classifier, ImageClassifier):
        raise UserError("crop-flip is for images: take augmentation none for this model")
    black = torch.from_numpy(-classifier.mean / classifier.std)  # as prepared
    return Batch({name: crop_flip(value, black) for name, value in batch.inputs.items()}, batch.labels)


def _optimizer(recipe: Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    kind = torch.optim.AdamW if recipe.decoupled else torch.optim.Adam
    return kind(parameters, lr=recipe.learning_rate, betas=(BETA1, BETA2), eps=EPS, weight_decay=recipe.weight_decay)


def _state(optimizer: torch.optim.Optimizer, trained: dict[str, nn.Parameter], step: int) -> dict[str, Tensor]:
    """Return copies of the optimizer's moments by parameter name, with the step count."""
    found: dict[str, Tensor] = {"step": torch.tensor(float(step), dtype=torch.float64)}
    for name, parameter in trained.items():
        for moment, value in optimizer.state[parameter].items():
            if moment != "step" and value is not None:
                found[f"{moment}.{name}"] = value.detach().clone().contiguous()
    return found


def _restore(optimizer: torch.optim.Optimizer, trained: dict[str, nn.Parameter], kept: dict[str, Tensor]) -> None:
    """Put back what `_state` returned."""
    for name, parameter in trained.items():
        moments = {
            moment: kept[f"{moment}.{name}"].to(parameter.device, copy=True)
            for moment in ("momentum_buffer", "exp_avg", "exp_avg_sq")
            if f"{moment}.{name}" in kept
        }
        if "exp_avg" in moments:
            moments["step"] = kept["step"].float()
        optimizer.state[parameter] = moments
