"""Our set-ups as captum wants them: a module of positional inputs, batches as tuples, layers by name."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from influence_core.models.classifier import Batch, Classifier, Parameters, Scope


class Positional(nn.Module):
    """A classifier's module that takes its inputs by position and returns logits."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.inner, self.names = module, tuple(names)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return logits [B, C]."""
        output = self.inner(**dict(zip(self.names, inputs, strict=True)))
        return output if isinstance(output, Tensor) else output.logits


def loader(batches: Sequence[Batch]) -> DataLoader[Any]:
    """Hand out the very same batches, nothing left to collate."""
    return DataLoader([(*batch.inputs.values(), batch.labels) for batch in batches], batch_size=None)


def arnoldi(
    classifier: Classifier,
    scope: Scope,
    hessian: Sequence[Batch],
    train: Sequence[Batch],
    k: int,
    iterations: int,
    damping: float = 0.0,
) -> Any:
    """Construct captum's Arnoldi influence function, which computes its basis; eigenvalues ≤ 1e-4 are dropped by it.

    Its Hessian is of the *sum* of losses; ``damping`` is added to that. Only the scope's parameters require grad.
    """
    from captum.influence._core.arnoldi_influence_function import ArnoldiInfluenceFunction

    module = copy.deepcopy(classifier.module).eval()
    model = Positional(module, list(hessian[0].inputs))
    own = dict(module.named_parameters())
    for name in scope.parameters:
        own[name].requires_grad_()
    return ArnoldiInfluenceFunction(
        model,
        loader(train),
        checkpoint="",
        checkpoints_load_func=lambda _model, _path: 1.0,  # the weights are there already
        layers=[f"inner.{name}" if name else "inner" for name in scope.modules],
        loss_fn=nn.CrossEntropyLoss(reduction="none"),
        hessian_dataset=loader(hessian),
        projection_dim=k,
        arnoldi_dim=iterations,
        arnoldi_tol=0.0,  # all iterations
        hessian_reg=damping,
        projection_on_cpu=classifier.device.type == "cpu",
    )


def set_directions(influence: Any, classifier: Classifier, scope: Scope, directions: Parameters) -> None:
    """Let captum project on given directions {name: [K, *shape]}."""
    names = {id(parameter): name for name, parameter in influence.model.inner.named_parameters()}
    order = [names[id(each)] for layer in influence.layer_modules for each in layer.parameters()]
    if set(order) != set(scope.parameters):
        raise ValueError(f"captum's layers own {len(order)} parameters, the scope {len(scope.parameters)}")
    count = len(next(iter(directions.values())))
    influence.R = [tuple(directions[name][index] for name in order) for index in range(count)]


def projected(influence: Any, batches: Sequence[Batch]) -> Tensor:
    """Return captum's products of every row's gradient with its directions, [N, K]."""
    products: Tensor = influence.compute_intermediate_quantities(loader(batches), return_on_cpu=False)
    return products.to(torch.float32)
