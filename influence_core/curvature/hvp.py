"""Products with the Hessian of the mean loss, by double backward."""

from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from influence_core.curvature.flat import directions_from_flat
from influence_core.curvature.graph import graph_limit, saved_bytes
from influence_core.errors import UserError
from influence_core.models.classifier import Batch, Classifier, Scope
from influence_core.models.modes import in_eval

Gradient = list[tuple[str, GradientEdge]]  # parameter, where its gradient leaves the graph (its value is not needed)


class HessianOperator:
    """H = ∇²L over the scope's parameters, L = Σ_x l_x / N + (l2/2)‖θ‖² (DEFINITIONS, Loss and curvature).

    Parameters named in ``undecayed`` have no part in ‖θ‖², as in `trajectory.optimizers.OptimizerSpec`.
    In eval mode, with the module's own buffers, over fixed batches; each row has the same weight, so
    H does not depend on how rows are cut into batches. ``batches`` are gone through anew for each
    product, so they may be made on the way by an object with ``__iter__`` (no iterator). θ is fixed,
    so the graph of each batch's gradient can be built once and kept: a product then costs one
    backward through it, and the activations of all rows stay in memory; otherwise each product
    builds the graphs again. Both give the same bits. ``keep_graph`` None keeps them while
    `graph_bytes` fits ``memory_limit`` bytes (None: `graph_limit` of the device).

    Raises:
        UserError: no rows, or an operation without a second derivative (fused attention).
    """

    def __init__(
        self,
        classifier: Classifier,
        scope: Scope,
        batches: Iterable[Batch],
        l2: float = 0.0,
        keep_graph: bool | None = None,
        memory_limit: int | None = None,
        undecayed: Collection[str] = (),
    ) -> None:
        self.classifier, self.scope, self.batches, self.l2 = classifier, scope, batches, l2
        self.keep_graph, self.memory_limit = keep_graph, memory_limit
        self.undecayed = frozenset(undecayed)
        self.rows = 0
        self._elements: list[int] = []  # numbers in each batch's largest input
        for batch in batches:
            self.rows += len(batch)
            self._elements.append(max((value.numel() for value in batch.inputs.values()), default=0))
        if self.rows == 0:
            raise UserError("the Hessian needs at least one row, got none: give it rows of the training split")
        self._own = {
            name: value.detach() for name, value in classifier.module.named_parameters() if value.requires_grad
        }
        self._leaves = {name: value.requires_grad_() for name, value in classifier.parameters(scope).items()}
        self._kept: list[Gradient] = []

    @property
    def size(self) -> int:
        """P, the number of parameters in the scope."""
        return sum(value.numel() for value in self._leaves.values())

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' dtype."""
        return self.classifier.dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.classifier.device

    @cached_property
    def kept(self) -> bool:
        """Whether the graphs are kept from the first product on."""
        if self.keep_graph is not None:
            return self.keep_graph
        limit = graph_limit(self.device) if self.memory_limit is None else self.memory_limit
        return self.graph_bytes <= limit

    @cached_property
    def graph_bytes(self) -> int:
        """Bytes that the graphs of all batches take, estimated by building that of the largest batch.

        Scaled by input elements: attention grows with the square of a row's length, so a batch of
        longer rows needs more for each element, and the estimate errs upward.
        """
        largest = max(range(len(self._elements)), key=self._elements.__getitem__)
        batch = next(islice(self.batches, largest, None))
        with saved_bytes(self.classifier.module) as count:
            self._gradient(batch)
        return round(count.total * sum(self._elements) / max(1, self._elements[largest]))

    def matvec(self, v: Tensor) -> Tensor:
        """Return H v, [P], for v [P]."""
        return self.matmat(v[None])[0]

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return H v of each row v, [Q, P], for vectors [Q, P]; each batch's graph is built once for all of them.

        One backward a vector: a batched one (``is_grads_batched``) took longer on transformers.
        """
        vectors = vectors.to(self.device, self.dtype)
        total = torch.zeros_like(vectors)
        parts, sums = directions_from_flat(vectors, self._leaves), directions_from_flat(total, self._leaves)
        leaves = list(self._leaves.values())
        for gradient in self._gradients():
            if not gradient:  # the loss is linear in θ
                continue
            for number in range(len(vectors)):
                try:
                    products = torch.autograd.grad(
                        [edge for _, edge in gradient],
                        leaves,
                        [parts[name][number] for name, _ in gradient],
                        retain_graph=self.kept or number + 1 < len(vectors),
                        allow_unused=True,
                    )
                except RuntimeError as error:
                    raise _explained(error) from error
                for name, product in zip(self._leaves, products, strict=True):
                    if product is not None:
                        sums[name][number] += product
        if self.l2:
            for name in self._leaves.keys() - self.undecayed:
                sums[name].add_(parts[name], alpha=self.l2)
        return total

    def _gradients(self) -> Iterator[Gradient]:
        if len(self._kept) == len(self._elements):
            yield from self._kept
            return
        self._kept = []  # an earlier pass may have ended on the way
        for batch in self.batches:
            gradient = self._gradient(batch)
            if self.kept:
                self._kept.append(gradient)
            yield gradient

    def _gradient(self, batch: Batch) -> Gradient:
        """Return the batch's share of ∇L, parameter by parameter, with its graph."""
        with in_eval(self.classifier.module), torch.enable_grad():
            losses = self.classifier.losses(batch.to(self.device), self._own | self._leaves)
            try:
                gradients = torch.autograd.grad(
                    losses.sum() / self.rows, list(self._leaves.values()), create_graph=True, allow_unused=True
                )
            except RuntimeError as error:
                raise _explained(error) from error
        return [
            (name, get_gradient_edge(gradient))
            for name, gradient in zip(self._leaves, gradients, strict=True)
            if gradient is not None and gradient.requires_grad
        ]


def _explained(error: RuntimeError) -> Exception:
    """Say what to do about fused attention; leave every other error as it is."""
    if "scaled_dot_product" in str(error):
        return UserError(
            "the model's fused attention (scaled_dot_product_attention) has no second derivative here: "
            'load it with attn_implementation="eager"'
        )
    return error
