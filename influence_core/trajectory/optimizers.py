"""SGD and Adam as pure functions of parameters, gradients and state."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

from influence_core.errors import UserError
from influence_core.models.classifier import Parameters

_MOMENTS = ("momentum_buffer", "exp_avg", "exp_avg_sq", "buffers")


@dataclass(frozen=True)
class OptimizerSpec:
    """Which update rule, with its constants; names and meanings as in torch.optim.

    ``weight_decay`` is coupled (added to the gradient, as in SGD and Adam) unless ``decoupled``
    (parameters shrink by 1 − η·weight_decay, as in AdamW), and acts on all parameters but those named
    in ``undecayed`` (torch.optim's groups without decay). Zero learning rate is allowed: moments
    accumulate and parameters stay. Raises `UserError` for a constant out of its range.
    """

    kind: Literal["sgd", "adam"]
    learning_rate: float  # η, constant over steps
    momentum: float = 0.0  # SGD only
    beta1: float = 0.9  # Adam only, as are beta2 and eps
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False
    undecayed: tuple[str, ...] = ()  # parameters that weight decay leaves alone: biases and norms, often

    def __post_init__(self) -> None:
        if self.kind not in ("sgd", "adam"):
            raise UserError(f"optimizer {self.kind!r} is not known: choose sgd or adam")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("kind", "decoupled", "undecayed"):
                continue
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"{field.name} = {value} must be a finite number, 0 or more: correct it")
            if field.name in ("momentum", "beta1", "beta2") and value >= 1:
                raise UserError(f"{field.name} = {value} must be below 1: lower it")


class OptimizerState(NamedTuple):
    """What an optimizer remembers between steps; a pytree of floating-point tensors.

    Only floating-point leaves, so that every leaf can carry a tangent. Moments have their
    parameter's name and shape; kinds that an optimizer does not use are empty.
    """

    step: Tensor  # [] float64: updates made so far
    momentum_buffer: Parameters  # SGD with momentum
    exp_avg: Parameters  # Adam's m
    exp_avg_sq: Parameters  # Adam's v
    buffers: Parameters  # the module's running statistics, where they move (BatchNorm in train mode)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return named tensors, flat and contiguous, as safetensors wants them."""
        flat = {"step": self.step.contiguous()}
        for kind in _MOMENTS:
            values: Parameters = getattr(self, kind)
            flat.update({f"{kind}.{name}": value.contiguous() for name, value in values.items()})
        return flat

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Read what `to_tensors` wrote; raises `UserError` naming a tensor that is not from there."""
        if "step" not in tensors:
            raise UserError(f"optimizer state without 'step' (has {sorted(tensors)[:3]}…): choose warm or zeros")
        moments: dict[str, Parameters] = {kind: {} for kind in _MOMENTS}
        for key, value in tensors.items():
            kind, _, name = key.partition(".")
            if key == "step":
                continue
            if kind not in moments or not name:
                raise UserError(f"optimizer state has an unknown tensor {key!r}: choose warm or zeros")
            moments[kind][name] = value
        return cls(step=tensors["step"].to(torch.float64), **moments)


def init(spec: OptimizerSpec, parameters: Parameters, buffers: Parameters | None = None) -> OptimizerState:
    """Return the state before the first update: all moments zero (``zeros`` of DEFINITIONS)."""

    def zeros(needed: bool) -> Parameters:
        return {name: torch.zeros_like(value) for name, value in parameters.items()} if needed else {}

    adam = spec.kind == "adam"
    return OptimizerState(
        step=torch.zeros((), dtype=torch.float64),
        momentum_buffer=zeros(not adam and spec.momentum > 0),
        exp_avg=zeros(adam),
        exp_avg_sq=zeros(adam),
        buffers=dict(buffers or {}),
    )


def update(
    spec: OptimizerSpec, parameters: Parameters, gradients: Parameters, state: OptimizerState
) -> tuple[Parameters, OptimizerState]:
    """Make one update; nothing is changed in place.

    Equal to torch.optim.SGD (momentum, weight_decay), Adam(weight_decay) (coupled) and AdamW
    (decoupled). Adam follows Kingma and Ba 2015, Algorithm 1, with both bias corrections; decoupled
    decay follows Loshchilov and Hutter 2019, Algorithm 2. Raises `UserError` if the state is of
    another optimizer or of other parameters.
    """
    _check_names(spec, parameters, state)
    decayed = parameters.keys() - set(spec.undecayed) if spec.weight_decay else set()
    if spec.decoupled:
        shrink = 1 - spec.learning_rate * spec.weight_decay
        parameters = {name: value * shrink if name in decayed else value for name, value in parameters.items()}
    else:
        pull = {name: spec.weight_decay * parameters[name] for name in decayed}
        gradients = {name: value + pull[name] if name in decayed else value for name, value in gradients.items()}
    step = state.step + 1
    if spec.kind == "sgd":
        direction, state = _momentum(spec, gradients, state)
    else:
        direction, state = _adam(spec, gradients, state, step)
    moved = {name: value - spec.learning_rate * direction[name] for name, value in parameters.items()}
    return moved, state._replace(step=step)


def _momentum(spec: OptimizerSpec, gradients: Parameters, state: OptimizerState) -> tuple[Parameters, OptimizerState]:
    """SGD's direction: the gradient, or the buffer that sums gradients decayed by the momentum."""
    if spec.momentum == 0:
        return gradients, state
    summed = {name: spec.momentum * state.momentum_buffer[name] + value for name, value in gradients.items()}
    return summed, state._replace(momentum_buffer=summed)


def _adam(
    spec: OptimizerSpec, gradients: Parameters, state: OptimizerState, step: Tensor
) -> tuple[Parameters, OptimizerState]:
    """Adam's direction: m̂ / (√v̂ + eps)."""
    # Bias corrections in float64: 1 − 0.999 in single precision is off by 1e-5.
    correction1 = 1 - spec.beta1**step
    correction2 = (1 - spec.beta2**step).sqrt()
    mean: Parameters = {}
    square: Parameters = {}
    direction: Parameters = {}
    for name, gradient in gradients.items():
        mean[name] = torch.lerp(state.exp_avg[name], gradient, 1 - spec.beta1)
        square[name] = spec.beta2 * state.exp_avg_sq[name] + (1 - spec.beta2) * gradient * gradient
        denominator = root(square[name]) / correction2.to(gradient) + spec.eps
        direction[name] = mean[name] / correction1.to(gradient) / denominator
    return direction, state._replace(exp_avg=mean, exp_avg_sq=square)


def root(value: Tensor) -> Tensor:
    """Return √value with derivative 0 where value = 0 (DEFINITIONS, Tangent).

    The plain root's derivative there is infinite, and infinite times a zero tangent is NaN: that
    would strike every parameter that no batch has touched yet (rows of an embedding).
    """
    positive = value > 0
    # The inner `where` keeps zeros away from the root itself, the outer one only sets the result.
    return torch.where(positive, torch.where(positive, value, 1.0).sqrt(), 0.0)


def _check_names(spec: OptimizerSpec, parameters: Parameters, state: OptimizerState) -> None:
    """Refuse a state that belongs to another optimizer or to other parameters."""
    needed = ("exp_avg", "exp_avg_sq") if spec.kind == "adam" else ("momentum_buffer",) if spec.momentum else ()
    for kind in needed:
        missing = parameters.keys() - getattr(state, kind).keys()
        if missing:
            raise UserError(
                f"optimizer state has no {kind} for {min(missing)!r} ({len(missing)} of {len(parameters)} "
                f"parameters): it is from another optimizer or scope, choose warm or zeros"
            )
