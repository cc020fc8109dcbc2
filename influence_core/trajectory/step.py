"""One training step on L_{B_t} + Σ_q ε_q · l_{B_q} as a pure function."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from influence_core.errors import UserError
from influence_core.models.classifier import Batch, Classifier, Parameters, Rows, Scope
from influence_core.trajectory.modes import (
    batch_norms,
    differentiable_statistics,
    modes,
    moving_statistics,
    running_statistics,
)
from influence_core.trajectory.optimizers import OptimizerSpec, OptimizerState, init, update
from influence_core.trajectory.perturbation import Perturbation, check_epsilon
from influence_core.trajectory.streams import derive, random_stream

__all__ = ["Perturbation", "TrainingStep"]


class TrainingStep:
    """``step(parameters, optimizer_state, epsilon, perturbation, t)``: DEFINITIONS, Perturbation and step.

    B_t is a slice of the permutation seeded (seed, epoch); an epoch's last batch holds what is
    left. L_{B_t} and each l_{B_q} are means, each from a forward pass of its own whose random
    stream is seeded (seed, t, "base") or (seed, t, q). For B_t the scope's modules are in train
    mode: BatchNorm if ``batchnorm_train``, everything else if ``dropout``. Perturbation rows are in
    eval unless ``perturbation_trains`` gives them B_t's modes. Whatever the scope froze is in eval.
    Running statistics are read as they were at the step's start and moved by B_t's forward only.

    The gradient is summed term by term, so one term's graph is freed before the next is built, and
    ``torch.func.jvp`` (over ε, parameters or state) and ``torch.func.vmap`` (with
    ``randomness="same"``) go through it. Raises `UserError` for a batch size outside 1..rows.
    Coupled l2 is the optimizer's ``weight_decay``.
    """

    def __init__(
        self,
        classifier: Classifier,
        scope: Scope,
        optimizer: OptimizerSpec,
        rows: Rows,
        batch_size: int,
        seed: int,
        dropout: bool = True,
        perturbation_trains: bool = False,
        batchnorm_train: bool = False,
    ) -> None:
        if not 1 <= batch_size <= len(rows):
            raise UserError(f"batch size {batch_size} with {len(rows)} training rows: choose 1 to {len(rows)}")
        self.classifier = classifier
        self.scope = scope
        self.optimizer = optimizer
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.dropout = dropout
        self.perturbation_trains = perturbation_trains
        self.batchnorm_train = batchnorm_train
        self._norms = batch_norms(classifier.module, scope.modules) if batchnorm_train else {}
        self._permutation: tuple[int, np.ndarray] | None = None  # the last epoch's
        self._batch: tuple[int, Batch] | None = None  # the last t's, for the other trajectories
        self._collator = ThreadPoolExecutor(max_workers=1, thread_name_prefix="collate")

    def initial_state(self, parameters: Parameters) -> OptimizerState:
        """Return zero moments, with the running statistics that this step will move."""
        return init(self.optimizer, parameters, self._statistics({}))

    def batch_rows(self, t: int) -> np.ndarray:
        """Return the row numbers of B_t, [b] (fewer at the end of an epoch)."""
        if t < 0:
            raise UserError(f"step {t} does not exist: count steps from 0")
        epoch, place = divmod(t, -(-len(self.rows) // self.batch_size))
        if self._permutation is None or self._permutation[0] != epoch:
            order = np.random.default_rng(derive(self.seed, "epoch", epoch)).permutation(len(self.rows))
            order.setflags(write=False)  # slices are handed out
            self._permutation = (epoch, order)
        return self._permutation[1][place * self.batch_size : (place + 1) * self.batch_size]

    def batch(self, t: int) -> Batch:
        """Return B_t with its original labels; the last one is kept for the next trajectory."""
        if self._batch is None or self._batch[0] != t:
            # torch.func's transforms are per thread: a batch made by another thread is made of plain
            # tensors even inside jvp or vmap, and so can outlive the transform.
            made = self._collator.submit(self.rows.batch, self.batch_rows(t)).result()
            self._batch = (t, made)
        return self._batch[1]

    def __call__(
        self,
        parameters: Parameters,
        optimizer_state: OptimizerState,
        epsilon: Tensor,
        perturbation: Perturbation | None,
        t: int,
    ) -> tuple[Parameters, OptimizerState]:
        """Return parameters and optimizer state after step t; nothing given is changed.

        Args:
            parameters: the scope's, by name.
            optimizer_state: of `initial_state`, `warm_state` or an earlier step.
            epsilon: [Q], one weight per group; [0] without a perturbation. Inside ``vmap`` its
                values are not checked, because they cannot be read there.
            perturbation: Q groups of rows, or None to train on L alone.
            t: the step's number, from 0; fixes B_t and all random streams.

        Raises:
            UserError: epsilon not finite or not [Q], or a state of another optimizer or scope.
        """
        check_epsilon(epsilon, 0 if perturbation is None else perturbation.groups)
        if parameters.keys() != set(self.scope.parameters):
            odd = min(parameters.keys() ^ set(self.scope.parameters))
            raise ValueError(f"parameters are not those of scope {self.scope.name!r}: {odd!r} is missing or too many")
        statistics = self._statistics(optimizer_state.buffers)
        gradients, moved = self._base_gradients(parameters, statistics, t)
        groups = [] if perturbation is None else [perturbation.group(q) for q in range(perturbation.groups)]
        for q, (batch, weights) in enumerate(groups):
            extra = self._group_gradients(parameters, statistics, batch, weights, t, q)
            gradients = {name: value + epsilon[q].to(value) * extra[name] for name, value in gradients.items()}
        parameters, state = update(self.optimizer, parameters, gradients, optimizer_state)
        return parameters, state._replace(buffers=moved)

    def group_gradients(
        self,
        parameters: Parameters,
        optimizer_state: OptimizerState,
        perturbation: Perturbation,
        t: int,
        groups: Iterable[int] | None = None,
    ) -> Parameters:
        """Return the ∇l_{B_q} that step t would add, {name: [groups, *shape]}, of all groups unless some are named."""
        statistics = self._statistics(optimizer_state.buffers)
        found = [
            self._group_gradients(parameters, statistics, *perturbation.group(q), t, q)
            for q in (range(perturbation.groups) if groups is None else groups)
        ]
        return {name: torch.stack([gradients[name] for gradients in found]) for name in parameters}

    def with_gradients(
        self, parameters: Parameters, optimizer_state: OptimizerState, epsilon: Tensor, groups: Parameters, t: int
    ) -> tuple[Parameters, OptimizerState]:
        """Return what step t returns, with the ∇l_{B_q} given ({name: [Q, *shape]}) and not computed."""
        gradients, moved = self._base_gradients(parameters, self._statistics(optimizer_state.buffers), t)
        gradients = {
            name: value + torch.tensordot(epsilon.to(value), groups[name], 1) for name, value in gradients.items()
        }
        parameters, state = update(self.optimizer, parameters, gradients, optimizer_state)
        return parameters, state._replace(buffers=moved)

    def _statistics(self, given: Parameters) -> Parameters:
        """Return the buffers to compute with: those given, and the module's where statistics will move."""
        if self.batchnorm_train and not given:
            return running_statistics(self.classifier.module, self.scope.modules)
        return given

    @contextmanager
    def _forward(self, name: str | int, t: int, dropout: bool, batchnorm: bool) -> Iterator[None]:
        """Set the modes and the random stream of one forward pass."""
        stream = random_stream(self.classifier.device, derive(self.seed, t, name))
        with stream, modes(self.classifier.module, self.scope.modules, dropout, batchnorm):
            yield

    def _base_gradients(self, parameters: Parameters, statistics: Parameters, t: int) -> tuple[Parameters, Parameters]:
        """Return ∇L_{B_t} and the running statistics after B_t's forward."""
        batch = self.batch(t)

        def mean_loss(parameters: Parameters) -> tuple[Tensor, Parameters]:
            with moving_statistics(self._norms, statistics) as moved:
                loss = self.classifier.losses(batch, parameters, statistics).mean()
            return loss, moved

        with self._forward("base", t, self.dropout, self.batchnorm_train):
            gradients, moved = torch.func.grad(mean_loss, has_aux=True)(parameters)
        return gradients, moved

    def _group_gradients(
        self, parameters: Parameters, statistics: Parameters, batch: Batch, weights: Tensor, t: int, q: int
    ) -> Parameters:
        """Return ∇l_{B_q}."""

        def weighted_mean_loss(parameters: Parameters) -> Tensor:
            losses = self.classifier.losses(batch, parameters, statistics)
            shares = weights.to(losses)
            return (shares * losses).sum() / shares.sum()

        trains = self.perturbation_trains
        still = {} if trains else self._norms  # in eval, with statistics that depend on ε
        forward = self._forward(q, t, trains and self.dropout, trains and self.batchnorm_train)
        with forward, differentiable_statistics(still):
            gradients: Parameters = torch.func.grad(weighted_mean_loss)(parameters)
        return gradients
