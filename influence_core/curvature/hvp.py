"""Products with the Hessian of the mean loss, by double backward."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from influence_core.curvature.flat import unflatten
from influence_core.errors import UserError
from influence_core.models.classifier import Batch, Classifier, Scope
from influence_core.models.modes import in_eval

Gradient = list[tuple[Tensor, Tensor]]  # (parameter, its gradient with a graph)


class HessianOperator:
    """H = ∇²L over the scope's parameters, L = Σ_x l_x / N + (l2/2)‖θ‖² (DEFINITIONS, Loss and curvature).

    In eval mode, with the module's own buffers, over fixed batches; each row has the same weight, so
    H does not depend on how rows are cut into batches. θ is fixed, so the graph of each batch's
    gradient can be built once and kept: with ``keep_graph`` a product costs one backward through it
    and the activations of all rows stay in memory; without, each product builds the graphs again.
    Both give the same bits.

    Raises:
        UserError: no rows, or an operation without a second derivative (fused attention).
    """

    def __init__(
        self,
        classifier: Classifier,
        scope: Scope,
        batches: Sequence[Batch],
        l2: float = 0.0,
        keep_graph: bool = True,
    ) -> None:
        self.classifier, self.scope, self.batches, self.l2 = classifier, scope, batches, l2
        self.keep_graph = keep_graph
        self.rows = sum(len(batch) for batch in batches)
        if self.rows == 0:
            raise UserError("the Hessian needs at least one row, got none: give it rows of the training split")
        self._own = {
            name: value.detach() for name, value in classifier.module.named_parameters() if value.requires_grad
        }
        self._leaves = {name: value.requires_grad_() for name, value in classifier.parameters(scope).items()}
        self._kept: dict[int, Gradient] = {}

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

    def matvec(self, v: Tensor) -> Tensor:
        """Return H v, [P], for v [P]."""
        v = v.to(self.device, self.dtype)
        parts = unflatten(v, self._leaves)
        total = {name: torch.zeros_like(value) for name, value in parts.items()}
        leaves = list(self._leaves.values())
        names = {id(leaf): name for name, leaf in self._leaves.items()}
        for gradient in self._gradients():
            if not gradient:  # the loss is linear in θ
                continue
            try:
                products = torch.autograd.grad(
                    [value for _, value in gradient],
                    leaves,
                    [parts[names[id(leaf)]] for leaf, _ in gradient],
                    retain_graph=self.keep_graph,
                    allow_unused=True,
                )
            except RuntimeError as error:
                raise _explained(error) from error
            for name, product in zip(self._leaves, products, strict=True):
                if product is not None:
                    total[name] += product
        flat = torch.cat([value.reshape(-1) for value in total.values()])
        return flat.add_(v, alpha=self.l2) if self.l2 else flat

    def _gradients(self) -> Iterator[Gradient]:
        for number, batch in enumerate(self.batches):
            if number in self._kept:
                yield self._kept[number]
                continue
            gradient = self._gradient(batch)
            if self.keep_graph:
                self._kept[number] = gradient
            yield gradient

    def _gradient(self, batch: Batch) -> Gradient:
        """Return the batch's share of ∇L, parameter by parameter, with its graph."""
        with in_eval(self.classifier.module), torch.enable_grad():
            losses = self.classifier.losses(batch.to(self.device), self._own | self._leaves)
            leaves = list(self._leaves.values())
            try:
                gradients = torch.autograd.grad(losses.sum() / self.rows, leaves, create_graph=True, allow_unused=True)
            except RuntimeError as error:
                raise _explained(error) from error
        return [
            (leaf, gradient)
            for leaf, gradient in zip(leaves, gradients, strict=True)
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
