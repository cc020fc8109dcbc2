"""Trajectories in lockstep, and the warmed optimizer state."""

import numpy as np
import pytest
import torch
from step_models import bert_rows, mlp, mlp_rows
from torch import nn

from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.models.classifier import Batch, Classifier, Rows
from influence_core.trajectory.lockstep import lockstep
from influence_core.trajectory.optimizers import OptimizerSpec, OptimizerState
from influence_core.trajectory.perturbation import Perturbation
from influence_core.trajectory.step import TrainingStep
from influence_core.trajectory.streams import derive, random_stream
from influence_core.trajectory.warm import warm_state, warming_step

SPECS = {
    "sgd": OptimizerSpec("sgd", 0.1, momentum=0.9),
    "adam": OptimizerSpec("adam", 0.01, weight_decay=0.1, decoupled=True),
}


def one(value):
    return torch.tensor([value], dtype=torch.float64)


def build(rows, optimizer, scope="all", **flags):
    step = TrainingStep(rows.classifier, rows.classifier.scope(scope), optimizer, rows, 5, 7, **flags)
    parameters = rows.classifier.parameters(step.scope)
    return step, parameters, step.initial_state(parameters)


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("trains", [False, True])
def test_at_zero_the_two_trajectories_are_bit_identical(kind, trains):
    rows = bert_rows()
    step, parameters, state = build(rows, SPECS[kind], "last:1", perturbation_trains=trains)
    perturbation = Perturbation(rows.batch([0, 1, 2, 3]), torch.ones(2, 2))
    items = list(lockstep(step, parameters, state, torch.zeros(2), perturbation, 6))
    assert [item.t for item in items] == list(range(7))
    for item in items:
        assert item.divergence == 0.0
        assert all(torch.equal(item.parameters[name], item.base_parameters[name]) for name in parameters)
    name = "classifier.weight"
    assert items[6].parameters[name] is not items[6].base_parameters[name]  # both were computed
    assert not torch.equal(items[6].parameters[name], parameters[name])


@pytest.mark.parametrize("kind", SPECS)
def test_both_trajectories_equal_single_rollouts_and_divergence_is_their_distance(kind):
    rows = mlp_rows(mlp())
    step, parameters, state = build(rows, SPECS[kind])
    perturbation = Perturbation.mean(rows.batch([1, 2]))
    items = list(lockstep(step, parameters, state, one(0.4), perturbation, 5))
    assert items[0].divergence == 0.0
    assert all(torch.equal(items[0].parameters[name], parameters[name]) for name in parameters)
    alone, base = (parameters, state), (parameters, state)
    for item in items[1:]:
        alone = step(*alone, one(0.4), perturbation, item.t - 1)
        base = step(*base, torch.zeros(0), None, item.t - 1)
        assert all(torch.equal(item.parameters[name], alone[0][name]) for name in parameters)
        assert all(torch.equal(item.base_parameters[name], base[0][name]) for name in parameters)
        flat = np.concatenate([(alone[0][name] - base[0][name]).numpy().ravel() for name in parameters])
        assert item.divergence == pytest.approx(np.sqrt((flat**2).sum()), rel=1e-12)
        assert item.divergence > 0
        assert item.integrated_lr == pytest.approx(item.t * step.optimizer.learning_rate)


def test_divergence_of_single_precision_is_summed_in_double():
    """A difference of one part in 2^23 of each of many weights, which float32 sums would round."""

    class Still(Classifier):
        def losses(self, batch: Batch, parameters=None, buffers=None):
            return parameters["weight"].sum() * torch.ones(len(batch))

    classifier = Still(nn.Linear(100, 30, bias=False).float(), ["a"])
    rows = Rows(classifier, [np.zeros(1)] * 5, [0] * 5)
    step, parameters, state = build(rows, OptimizerSpec("sgd", 1.0))
    parameters = {"weight": torch.zeros(30, 100)}
    *_, last = lockstep(step, parameters, state, torch.tensor([0.1]), Perturbation.mean(rows.batch([0])), 1)
    exact = (last.parameters["weight"].double() - last.base_parameters["weight"].double()).numpy()
    assert last.divergence == pytest.approx(np.sqrt((exact**2).sum()), rel=1e-14)


def test_a_reader_can_stop_and_bad_input_is_refused_before_step_0():
    rows = mlp_rows(mlp())
    step, parameters, state = build(rows, SPECS["sgd"])
    perturbation = Perturbation.mean(rows.batch([1, 2]))
    assert next(lockstep(step, parameters, state, one(0.4), perturbation, 10**9)).t == 0
    with pytest.raises(UserError, match="finite, got"):
        next(lockstep(step, parameters, state, one(float("nan")), perturbation, 3))
    with pytest.raises(UserError, match="-1 steps"):
        next(lockstep(step, parameters, state, one(0.4), perturbation, -1))


def test_warm_state_is_a_hand_loop_of_moments_and_leaves_parameters():
    rows = mlp_rows(mlp(batchnorm=True))
    step, parameters, _ = build(rows, OptimizerSpec("adam", 0.5, weight_decay=0.1), batchnorm_train=True)
    before = {name: value.clone() for name, value in rows.classifier.module.state_dict().items()}
    *progress, state = warm_state(step, parameters, batches=6)
    assert progress == [Progress(phase="warming the optimizer", done=n, total=6, unit="batches") for n in range(1, 7)]
    assert isinstance(state, OptimizerState)
    assert all(torch.equal(value, before[name]) for name, value in rows.classifier.module.state_dict().items())
    assert all(torch.equal(value, before[name].double()) for name, value in state.buffers.items())
    assert state.step == 6

    seed = derive(7, "warm")
    order = np.concatenate([np.random.default_rng(derive(seed, "epoch", e)).permutation(20) for e in range(2)])
    mean = {name: torch.zeros_like(value) for name, value in parameters.items()}
    square = {name: torch.zeros_like(value) for name, value in parameters.items()}
    module = mlp(batchnorm=True).module.train().requires_grad_(True)
    for t in range(6):
        batch = rows.batch(order[5 * t : 5 * t + 5])
        module.zero_grad()
        with random_stream(torch.device("cpu"), derive(seed, t, "base")):
            nn.functional.cross_entropy(module(**batch.inputs), batch.labels).backward()
        for name, value in module.named_parameters():
            gradient = value.grad + 0.1 * value.detach()
            mean[name] = 0.9 * mean[name] + 0.1 * gradient
            square[name] = 0.999 * square[name] + 0.001 * gradient**2
    for name in parameters:
        assert torch.allclose(state.exp_avg[name], mean[name], rtol=1e-9, atol=1e-13)
        assert torch.allclose(state.exp_avg_sq[name], square[name], rtol=1e-9, atol=1e-16)


def test_warm_batches_are_not_those_of_the_steps_that_follow():
    rows = mlp_rows(mlp())
    step, parameters, zeros = build(rows, SPECS["adam"])
    assert not np.array_equal(warming_step(step).batch_rows(0), step.batch_rows(0))
    *none, state = warm_state(step, parameters, batches=0)
    assert none == []
    assert state.step == zeros.step == 0
    with pytest.raises(UserError, match="-1 batches"):
        next(warm_state(step, parameters, batches=-1))
