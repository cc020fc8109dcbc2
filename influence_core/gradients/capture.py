"""What each use of a layer saw: its input a and its output's gradient b.

Only gradients of *outputs* are asked of autograd, never of parameters. Where an output does not
require grad, it becomes a leaf: what precedes the scope runs without a graph.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from influence_core.errors import UserError
from influence_core.gradients.rules.registry import is_whole
from influence_core.models.classifier import Batch, Classifier, Scope
from influence_core.models.modes import in_eval


@dataclass(frozen=True)
class Owner:
    """A module that owns parameters of a scope (tied ones have several owners).

    It owns what it holds directly, and where its rule serves it as a whole, what its children hold.
    """

    name: str  # as in named_modules()
    module: nn.Module
    parameters: dict[str, str]  # own name -> name in the scope


@dataclass(frozen=True)
class Use:
    """One call of an owner, for B rows."""

    owner: Owner
    a: Tensor  # its input, [B, ...]
    b: Tensor  # the gradient of Σ losses by its output, [B, ...]


@dataclass(frozen=True)
class _Call:
    owner: Owner
    a: Tensor  # its input, [B, ...]
    edge: GradientEdge  # the output as it left the module
    kept: tuple[tuple[str, Tensor, int], ...]  # what may not be changed in place: role, tensor, version


def owners(module: nn.Module, scope: Scope) -> list[Owner]:
    """Find the modules that own the scope's parameters, in the order of ``named_modules``."""
    by_identity = {id(parameter): name for name, parameter in module.named_parameters()}
    wanted = set(scope.parameters)
    if unknown := wanted - set(by_identity.values()):
        raise ValueError(f"scope {scope.name!r} names parameters that the module lacks: {sorted(unknown)}")
    found = []
    within: set[int] = set()  # parts of a whole
    for name, part in module.named_modules():
        if id(part) in within:
            continue
        whole = is_whole(part)
        if whole:
            within |= {id(each) for each in part.modules()}
        own = {
            local: by_identity[id(parameter)]
            for local, parameter in part.named_parameters(recurse=whole, remove_duplicate=False)
        }
        if own := {local: full for local, full in own.items() if full in wanted}:
            found.append(Owner(name, part, own))
    return found


def capture(classifier: Classifier, found: list[Owner], batch: Batch) -> list[Use]:
    """Run the batch forward and backward, and return every use of the owners (a [B, ...], b [B, ...]).

    Mode, requires_grad flags, hooks and random state are left as they were.

    Raises:
        UserError: an output's first dimension is not the batch, or an input was changed in place.
    """
    calls: list[_Call] = []
    own = {name: value.detach() for name, value in classifier.module.named_parameters() if value.requires_grad}
    with in_eval(classifier.module), torch.enable_grad():
        handles = []
        try:
            for owner in found:
                hook = _hook(owner, len(batch), calls)
                # First of the hooks: it has to see what the module itself returned.
                handles.append(owner.module.register_forward_hook(hook, prepend=True, with_kwargs=True))
            losses = classifier.losses(batch, own)
        finally:
            for handle in handles:
                handle.remove()
        for call in calls:
            for role, tensor, version in call.kept:
                if tensor._version != version:
                    raise UserError(
                        f"the {role} of module {call.owner.name!r} was changed in place afterwards, "
                        "which hides its gradient: use the out-of-place form of what follows it"
                    )
        if not calls:
            return []
        gradients = torch.autograd.grad(losses.sum(), [call.edge for call in calls], allow_unused=True)
    return [
        Use(call.owner, _at_least_float32(call.a), _at_least_float32(b))
        for call, b in zip(calls, gradients, strict=True)
        if b is not None
    ]


def _hook(
    owner: Owner, rows: int, calls: list[_Call]
) -> Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any], Any], Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], returned: Any) -> Any:
        given = [*args, *kwargs.values()]
        a = given[0] if given else None
        output = returned[0] if isinstance(returned, tuple) and returned else returned
        other = any(isinstance(each, Tensor) and each is not a for each in given)
        if not isinstance(a, Tensor) or not isinstance(output, Tensor) or other:
            raise UserError(
                f"module {owner.name!r} ({type(module).__name__}) does not map one tensor to one tensor, "
                "so no layer rule can serve it: choose a scope without it"
            )
        for what, tensor in (("takes an input", a), ("returns an output", output)):
            if tensor.dim() == 0 or tensor.shape[0] != rows:
                raise UserError(
                    f"module {owner.name!r} {what} of shape {tuple(tensor.shape)} for a batch of {rows} rows: "
                    "per-example gradients need the batch as first dimension, so expand what is broadcast over it "
                    "(position ids, say)"
                )
        replaced = None
        if not output.requires_grad:
            # A copy of the leaf goes on, because a leaf may not be changed in place.
            output = output.detach().requires_grad_().clone()
            replaced = (output, *returned[1:]) if isinstance(returned, tuple) else output
        kept = [("input", a, a._version)]
        if output._is_view():  # a change in place would rebuild its history; other outputs keep their edge
            kept.append(("output", output, output._version))
        calls.append(_Call(owner, a.detach(), get_gradient_edge(output), tuple(kept)))
        return replaced

    return hook


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
