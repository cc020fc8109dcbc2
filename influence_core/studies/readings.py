"""What studies read of trajectories after each step: losses in float64, distances from the base, as JSON has them."""

import math

import numpy as np
import torch

from influence_core.models.classifier import Batch, Classifier, Parameters
from influence_core.trajectory.trajectories import Trajectories
from influence_core.trajectory.unfelt import unfelt


def losses(classifier: Classifier, batch: Batch, parameters: Parameters) -> np.ndarray:
    """Return l_z of each row in eval mode, [Z] float64; taken of the logits in float64, so that small shifts show."""
    with torch.no_grad():
        logits = classifier.logits(batch, parameters).double()
        found: np.ndarray = classifier.losses_of(logits, batch.labels).cpu().numpy()
    return found


def distances(classifier: Classifier, moment: Trajectories) -> np.ndarray:
    """Return ‖θ_{ε,t} − θ_{0,t}‖ of each trajectory, [M] float64, without parameters that the loss does not feel.

    Under Adam those of `unfelt` drift apart by rounding alone, by a learning rate a step, which would
    be taken for divergence.
    """
    base = felt(classifier, moment.base_parameters)
    return np.array([distance(felt(classifier, moment.parameters(m)), base) for m in range(moment.count)])


def felt(classifier: Classifier, parameters: Parameters) -> Parameters:
    """Return the parameters that the loss feels."""
    apart = unfelt(classifier)
    return {name: value for name, value in parameters.items() if name not in apart}


def number(value: float) -> float | None:
    """Return a number as JSON has it, null for one that is not finite."""
    return float(value) if math.isfinite(value) else None


def numbers(values: np.ndarray) -> list[float | None]:
    """Return numbers as JSON has them."""
    return [number(float(value)) for value in values]


def distance(first: Parameters, second: Parameters) -> float:
    """Return the Euclidean distance of two parameter sets, summed in float64."""
    norms = [torch.linalg.vector_norm(first[name].double() - second[name].double()) for name in first]
    return float(torch.linalg.vector_norm(torch.stack(norms)))
