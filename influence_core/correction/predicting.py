"""What influence predicts of a correction: by the exact Jacobian (Eq. 6), and by TracIn's sum (Eq. 2)."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from influence_core.errors import RunFailedError
from influence_core.models.classifier import Batch, Classifier, Parameters
from influence_core.trajectory.optimizers import OptimizerState
from influence_core.trajectory.perturbation import Perturbation
from influence_core.trajectory.step import TrainingStep
from influence_core.trajectory.tangent import Tangents, loss_tangents, tangent

SAME = 1e-6  # relative; a loss is a plain cross-entropy where exp(−loss) is the probability to this


def tangents(
    step: TrainingStep,
    parameters: Parameters,
    optimizer_state: OptimizerState,
    perturbation: Perturbation,
    epsilon: Tensor,
    steps: int,
) -> Iterator[Tangents]:
    """Yield ∇_ε θ_{0,t} for t = 0 … ``steps``, both ways (`tangent` at ε = 0).

    ``jvp`` repeats the base trajectory up to rounding only, so a lockstep's base is computed beside
    it: its repeat at ε = 0 is to be bit-identical, with predictions or without. Raises `RunFailedError`
    for an operation without a forward-mode derivative, and where memory does not suffice.
    """
    zero = torch.zeros_like(epsilon)
    try:
        yield from tangent(step, parameters, optimizer_state, perturbation, zero, steps, additive=True)
    except NotImplementedError as error:
        why = str(error).split("\n")[0].split(". ")[0]
        raise RunFailedError(
            f"influence cannot be followed through this model ({why}): correct without predictions"
        ) from error
    except torch.OutOfMemoryError as error:
        raise RunFailedError("not enough memory to predict beside the run: correct without predictions") from error


def slopes_of(classifier: Classifier, target: Batch, base: Parameters, found: Tangents) -> tuple[float, float]:
    """Return how the target's loss at θ_{0,t} changes per unit of ε: ⟨∇l_z, J_t⟩ by Eq. 6, and by Eq. 2."""
    both = {name: torch.cat([value, found.additive[name]]) for name, value in found.tangents.items()}
    exact, additive = loss_tangents(classifier, target, base, both)[0].tolist()
    return exact, additive


def predictions(
    epsilon: float, slopes: tuple[float, float], base_loss: float, base_probability: float
) -> dict[str, float | None]:
    """Return a step's predicted fields: l_z(θ_{0,t}) + ε⟨∇l_z, J_t⟩ (Eq. 1), and exp(−loss) within [0, 1].

    A probability is None where the loss is not −log of it (a T5's is of its words among all words), and
    so is what is not finite.
    """
    plain = math.isclose(math.exp(-base_loss), base_probability, rel_tol=SAME)
    found: dict[str, float | None] = {}
    for kind, slope in zip(("predicted", "additive"), slopes, strict=True):
        loss = base_loss + epsilon * slope
        finite = math.isfinite(loss)
        found[f"{kind}_loss"] = loss if finite else None
        found[f"{kind}_probability"] = math.exp(-max(loss, 0.0)) if finite and plain else None
    return found
