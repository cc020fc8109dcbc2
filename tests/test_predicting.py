"""What influence predicts of a step, against differences of actual trajectories in float64."""

import math

import pytest
import torch
from step_models import bert_rows, build, mlp, mlp_rows

from influence_core.correction.predicting import predictions, slopes_of, tangents
from influence_core.trajectory.lockstep import lockstep
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.trajectory.perturbation import Perturbation
from influence_core.trajectory.warm import warm_state

SPECS = {"sgd": OptimizerSpec("sgd", 0.05), "adam": OptimizerSpec("adam", 1e-3)}
STEPS = 6


def weight(value):
    return torch.tensor([value], dtype=torch.float64)


def case(kind, model):
    rows = bert_rows() if model == "bert" else mlp_rows(mlp())
    step, parameters, state = build(rows, SPECS[kind], "last:1" if model == "bert" else "all", batch_size=6)
    if kind == "adam":
        *_, state = warm_state(step, parameters, 20)
    return (step, parameters, state), Perturbation.mean(rows.batch([0, 1, 2])), rows.batch([9])


@pytest.mark.parametrize(("kind", "model"), [("sgd", "mlp"), ("adam", "mlp"), ("sgd", "bert")])
def test_predicted_losses_are_those_of_central_differences_at_every_step(kind, model):
    point, perturbation, target = case(kind, model)
    classifier = point[0].classifier

    def losses(epsilon):
        items = lockstep(*point, weight(epsilon), perturbation, STEPS)
        return [(float(classifier.losses(target, item.parameters)), item) for item in items]

    h = 1e-4
    above, below, base = losses(h), losses(-h), losses(0.0)
    found = tangents(*point, perturbation, weight(0.7), STEPS)  # ε = 0.7 asks for the same slopes, at ε = 0
    apart = 0.0
    for (up, _), (down, _), (loss, item), own in zip(above, below, base, found, strict=True):
        exact, additive = slopes_of(classifier, target, item.base_parameters, own)
        assert exact == pytest.approx((up - down) / (2 * h), rel=1e-5, abs=1e-8)
        said = predictions(h, (exact, additive), loss, math.exp(-loss))
        assert said["predicted_loss"] - up == pytest.approx(0, abs=1e-6)
        assert said["predicted_probability"] == pytest.approx(math.exp(-up), abs=1e-6)
        apart = max(apart, abs(exact - additive))
    assert apart > 1e-3  # Eq. 2 is another prediction


@pytest.mark.parametrize(("kind", "model"), [("sgd", "mlp"), ("adam", "mlp")])
def test_the_predicted_curve_errs_by_epsilon_squared(kind, model):
    point, perturbation, target = case(kind, model)
    classifier = point[0].classifier
    *_, own = tangents(*point, perturbation, weight(0.0), STEPS)
    errors = []
    for epsilon in (4e-3, 2e-3, 1e-3):
        *_, item = lockstep(*point, weight(epsilon), perturbation, STEPS)
        base = float(classifier.losses(target, item.base_parameters))
        slopes = slopes_of(classifier, target, item.base_parameters, own)
        said = predictions(epsilon, slopes, base, math.exp(-base))["predicted_loss"]
        errors.append(abs(said - float(classifier.losses(target, item.parameters))))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)


def test_probabilities_stay_probabilities_and_what_is_not_defined_is_not_said():
    certain = predictions(1.0, (-5.0, 2.0), 1.0, math.exp(-1))
    assert certain["predicted_loss"] == -4
    assert certain["predicted_probability"] == 1
    assert certain["additive_probability"] == pytest.approx(math.exp(-3))
    assert predictions(1.0, (1e9, 0.0), 1.0, math.exp(-1))["predicted_probability"] == 0
    words = predictions(1.0, (0.5, 0.5), 1.0, 0.9)  # a loss of words: exp(−1) is not the probability 0.9
    assert (words["predicted_loss"], words["predicted_probability"]) == (1.5, None)
    broken = predictions(1.0, (math.nan, math.inf), 1.0, math.exp(-1))
    assert set(broken.values()) == {None}
