"""The training step, against loops and arithmetic done by hand."""

import numpy as np
import pytest
import torch
from step_models import ADAM, NOTHING, Mlp, build, equal, mlp, mlp_rows, one
from torch import nn

from influence_core.errors import UserError
from influence_core.models.classifier import Rows
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.trajectory.perturbation import Perturbation
from influence_core.trajectory.streams import derive, random_stream

MOMENTUM = OptimizerSpec("sgd", 0.1, momentum=0.9, weight_decay=0.01)


def test_an_epoch_covers_each_row_once_and_epochs_differ():
    rows = mlp_rows(mlp(), n=21)
    step, _, _ = build(rows, batch_size=8)
    epochs = [[step.batch_rows(3 * epoch + t) for t in range(3)] for epoch in range(3)]
    for epoch in epochs:
        assert [len(batch) for batch in epoch] == [8, 8, 5]
        assert sorted(np.concatenate(epoch)) == list(range(21))
    assert not np.array_equal(np.concatenate(epochs[0]), np.concatenate(epochs[1]))
    again, _, _ = build(rows, batch_size=8)
    assert np.array_equal(again.batch_rows(7), epochs[2][1])  # whatever was asked before
    other, _, _ = build(rows, batch_size=8, seed=6)
    assert not np.array_equal(other.batch_rows(0), epochs[0][0])


@pytest.mark.parametrize(
    ("spec", "reference"),
    [
        (MOMENTUM, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01)),
        (ADAM, lambda p: torch.optim.Adam(p, 0.01)),
    ],
)
def test_without_perturbation_equals_a_training_loop(spec, reference):
    """The loop: a train-mode module with dropout, torch.optim, the documented batches and streams."""
    rows = mlp_rows(mlp())
    step, parameters, state = build(rows, spec)
    module = Mlp().double()
    module.load_state_dict(rows.classifier.module.state_dict())
    module.train()
    optimizer = reference(module.parameters())
    for t in range(7):  # into the third epoch
        parameters, state = step(parameters, state, NOTHING, None, t)
        x = torch.as_tensor(np.stack([rows.items[row] for row in step.batch_rows(t)]))
        y = torch.as_tensor(rows.labels[step.batch_rows(t)])
        optimizer.zero_grad()
        with random_stream(torch.device("cpu"), derive(5, t, "base")):
            nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    for name, value in module.named_parameters():
        assert torch.allclose(parameters[name], value, rtol=1e-12, atol=1e-14)


def test_epsilon_adds_that_many_gradients_of_each_groups_weighted_mean():
    classifier = mlp()
    rows = mlp_rows(classifier)
    step, parameters, state = build(rows)
    batch = rows.batch([0, 1, 2, 3, 4, 5], labels=[2, 1, 0, 0, 1, 2])
    weights = torch.tensor([[1.0, 1.0, 2.0], [1.0, 3.0, 0.0]], dtype=torch.float64)
    epsilon = torch.tensor([0.7, -0.2], dtype=torch.float64)
    plain, _ = step(parameters, state, NOTHING, None, 0)
    moved, _ = step(parameters, state, epsilon, Perturbation(batch, weights), 0)
    gradients = []
    for row, label in enumerate([2, 1, 0, 0, 1, 2]):
        own = {name: value.clone().requires_grad_(True) for name, value in parameters.items()}
        logits = torch.func.functional_call(classifier.module, own, (batch.inputs["x"][row : row + 1],))
        (-logits.log_softmax(1)[0, label]).backward()
        gradients.append({name: value.grad for name, value in own.items()})
    for name in parameters:
        g = [row[name] for row in gradients]
        extra = 0.7 * (g[0] + g[1] + 2 * g[2]) / 4 - 0.2 * (g[3] + 3 * g[4]) / 4
        assert torch.allclose(moved[name] - plain[name], -0.1 * extra, rtol=1e-10, atol=1e-14)


def test_padding_rows_are_ignored():
    rows = mlp_rows(mlp())
    step, parameters, state = build(rows, ADAM)
    short = Perturbation.mean(rows.batch([1, 2]))
    padded = Perturbation(rows.batch([1, 2, 9, 9]), torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    scaled = Perturbation(rows.batch([1, 2, 9, 9]), torch.tensor([[3.0, 3.0, 0.0, 0.0]]))
    expected, _ = step(parameters, state, one(0.5), short, 0)
    for perturbation in (padded, scaled):
        found, _ = step(parameters, state, one(0.5), perturbation, 0)
        assert all(torch.allclose(found[name], expected[name], rtol=1e-12, atol=1e-14) for name in expected)


def test_same_seed_repeats_and_other_seed_differs():
    rows = mlp_rows(mlp())
    perturbation = Perturbation.mean(rows.batch([1, 2]))

    def run(seed, batch_size=8):
        step, parameters, state = build(rows, ADAM, seed=seed, batch_size=batch_size)
        for t in range(3):
            parameters, state = step(parameters, state, one(0.3), perturbation, t)
        return parameters

    assert equal(run(5), run(5))
    assert not equal(run(5), run(6))
    # With all rows in the batch only the order and dropout are left to differ; here they must.
    first, second = run(5, 20), run(6, 20)
    assert not torch.allclose(first["head.0.weight"], second["head.0.weight"], rtol=1e-6)


def test_streams_differ_between_steps_groups_and_the_base():
    keys = [(0, "base"), (1, "base"), (0, 0), (0, 1), (1, 0), ("epoch", 0)]
    assert len({derive(5, *key) for key in keys} | {derive(6, *key) for key in keys}) == 12
    assert all(0 <= derive(5, *key) < 2**63 for key in keys)


@pytest.mark.parametrize("trains", [False, True])
def test_dropout_of_the_base_does_not_depend_on_the_perturbation(trains):
    """With SGD the step is linear in ε: what ε = 0 adds is nothing, and the difference is a multiple."""
    rows = mlp_rows(mlp())
    step, parameters, state = build(rows, perturbation_trains=trains)
    perturbation = Perturbation.mean(rows.batch([1, 2]))
    larger = Perturbation.mean(rows.batch([1, 2, 3]))
    plain, _ = step(parameters, state, NOTHING, None, 0)
    zero, _ = step(parameters, state, one(0.0), perturbation, 0)
    assert equal(plain, zero)
    assert equal(plain, step(parameters, state, one(0.0), larger, 0)[0])
    at1, _ = step(parameters, state, one(1.0), perturbation, 0)
    at2, _ = step(parameters, state, one(2.0), perturbation, 0)
    for name in plain:
        assert torch.allclose(at2[name] - plain[name], 2 * (at1[name] - plain[name]), rtol=1e-9, atol=1e-14)


def test_perturbation_rows_draw_dropout_only_if_they_train():
    rows = mlp_rows(mlp())
    perturbation = Perturbation.mean(rows.batch([1, 2]))

    def pull(t, **flags):
        step, parameters, state = build(rows, **flags)
        with_it, _ = step(parameters, state, one(1.0), perturbation, t)
        without, _ = step(parameters, state, NOTHING, None, t)
        return with_it["head.0.weight"] - without["head.0.weight"]

    assert torch.allclose(pull(0), pull(1), rtol=1e-9, atol=1e-14)
    assert not torch.allclose(pull(0, perturbation_trains=True), pull(1, perturbation_trains=True), rtol=1e-3)
    assert torch.allclose(pull(0, perturbation_trains=True, dropout=False), pull(0), rtol=1e-9, atol=1e-14)


def test_base_and_groups_draw_different_dropout():
    """B_t itself as a group with ε = −1, or twice with ε = ±1, cancels exactly only without dropout."""
    rows = mlp_rows(mlp())

    def left(epsilon, **flags):
        step, parameters, state = build(rows, perturbation_trains=True, **flags)
        own = step.batch_rows(0)
        if len(epsilon) == 1:
            perturbation, plain = Perturbation.mean(rows.batch(own)), parameters
        else:
            perturbation = Perturbation(rows.batch([*own, *own]), torch.ones(2, len(own)))
            plain, _ = step(parameters, state, NOTHING, None, 0)
        moved, _ = step(parameters, state, torch.tensor(epsilon, dtype=torch.float64), perturbation, 0)
        return sum((moved[name] - plain[name]).norm() for name in plain)

    for epsilon in ([-1.0], [1.0, -1.0]):
        assert left(epsilon, dropout=False) < 1e-14
        assert left(epsilon) > 1e-3


def test_bad_input_is_one_line_with_the_value():
    rows = mlp_rows(mlp())
    with pytest.raises(UserError, match="batch size 21 with 20 training rows"):
        build(rows, batch_size=21)
    with pytest.raises(UserError, match="batch size 0"):
        build(rows, batch_size=0)
    step, parameters, state = build(rows)
    batch = rows.batch([1, 2])
    perturbation = Perturbation.mean(batch)
    for value in (float("nan"), float("inf")):
        with pytest.raises(UserError, match=f"epsilon must be finite, got .{value}"):
            step(parameters, state, one(value), perturbation, 0)
    with pytest.raises(UserError, match=r"epsilon of shape \(2,\) for 1 groups"):
        step(parameters, state, torch.zeros(2), perturbation, 0)
    with pytest.raises(UserError, match=r"epsilon of shape \(1,\) for 0 groups"):
        step(parameters, state, one(0.5), None, 0)
    with pytest.raises(UserError, match=r"weight -0\.5 "):
        Perturbation(batch, torch.tensor([[1.0, -0.5]]))
    with pytest.raises(UserError, match="weight nan "):
        Perturbation(batch, torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(UserError, match="all 1 weights of group 1 are 0"):
        Perturbation(batch, torch.tensor([[1.0], [0.0]]))
    with pytest.raises(UserError, match=r"weights of shape \(1, 3\) do not fit 2 rows"):
        Perturbation(batch, torch.ones(1, 3))
    with pytest.raises(UserError, match="step -1"):
        step(parameters, state, one(0.5), perturbation, -1)
    with pytest.raises(ValueError, match=r"'head\.3\.bias' is missing"):
        step({n: v for n, v in parameters.items() if n != "head.3.bias"}, state, one(0.5), perturbation, 0)


def test_single_precision_stays_single():
    classifier = mlp()
    classifier.module.float()
    rows = Rows(classifier, [row.astype(np.float32) for row in mlp_rows(classifier).items], [0, 1] * 10)
    step, parameters, state = build(rows, ADAM)
    moved, after = step(parameters, state, one(0.5), Perturbation.mean(rows.batch([1, 2])), 0)
    assert {value.dtype for value in (*moved.values(), *after.exp_avg_sq.values())} == {torch.float32}
