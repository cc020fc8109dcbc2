"""The training step under forward-mode differentiation and vmap."""

import pytest
import torch
from step_models import ADAM, bert_rows, build, mlp, mlp_rows, one

from influence_core.models.classifier import Batch
from influence_core.trajectory.perturbation import Perturbation


def two_steps(step, parameters, state, perturbation, epsilon):
    for t in range(2):
        parameters, state = step(parameters, state, epsilon, perturbation, t)
    return parameters, state


def bert_step(**flags):
    rows = bert_rows()
    step, parameters, state = build(rows, ADAM, scope="last:1", batch_size=5, **flags)
    return step, parameters, state, Perturbation.mean(rows.batch([1, 2, 3], labels=[1, 0, 1]))


def test_jvp_over_epsilon_through_two_adam_steps_of_bert_matches_central_differences():
    step, parameters, state, perturbation = bert_step()

    def run(epsilon):
        return two_steps(step, parameters, state, perturbation, epsilon)

    epsilon, h = one(0.3), 1e-6
    value, (tangent, state_tangent) = torch.func.jvp(run, (epsilon,), (torch.ones_like(epsilon),))
    plain, _ = run(epsilon)
    # Softmax does not feel the key's bias: its gradient is rounding alone, which Adam divides by eps.
    felt = [name for name in plain if not name.endswith("attention.self.key.bias")]
    assert len(felt) == len(plain) - 1
    assert all(torch.allclose(value[0][name], plain[name], rtol=1e-12, atol=1e-13) for name in felt)
    above, below = run(epsilon + h), run(epsilon - h)
    assert any(tangent[name].norm() > 1e-3 for name in felt)
    for name in felt:
        central = (above[0][name] - below[0][name]) / (2 * h)
        assert (tangent[name] - central).norm() <= 1e-6 * central.norm(), name
        central = (above[1].exp_avg[name] - below[1].exp_avg[name]) / (2 * h)
        assert (state_tangent.exp_avg[name] - central).norm() <= 1e-6 * central.norm(), name


def test_tangents_can_be_carried_from_step_to_step():
    """One jvp per step over (parameters, state, ε) gives what one jvp over both steps gives."""
    rows = mlp_rows(mlp(batchnorm=True))
    step, parameters, state = build(rows, ADAM, batchnorm_train=True)
    perturbation = Perturbation.mean(rows.batch([1, 2, 3]))
    ones = torch.ones(1, dtype=torch.float64)
    _, (expected, _) = torch.func.jvp(
        lambda e: two_steps(step, parameters, state, perturbation, e), (one(0.3),), (ones,)
    )
    point = (parameters, state)
    tangent = torch.utils._pytree.tree_map(torch.zeros_like, point)
    for t in range(2):
        point, tangent = torch.func.jvp(
            lambda p, s, e, t=t: step(p, s, e, perturbation, t), (*point, one(0.3)), (*tangent, ones)
        )
    assert all(torch.allclose(tangent[0][name], expected[name], rtol=1e-10, atol=1e-14) for name in expected)


@pytest.mark.parametrize("trains", [False, True])
def test_vmap_over_epsilon_equals_a_loop(trains):
    step, parameters, state, perturbation = bert_step(perturbation_trains=trains)

    def run(epsilon):
        return two_steps(step, parameters, state, perturbation, epsilon)

    epsilons = torch.tensor([[0.0], [0.3], [1.5]], dtype=torch.float64)
    together, _ = torch.func.vmap(run, randomness="same")(epsilons)
    for index, epsilon in enumerate(epsilons):
        alone, _ = run(epsilon)
        for name in alone:
            assert torch.allclose(together[name][index], alone[name], rtol=1e-9, atol=1e-12), name


def test_vmap_over_epsilon_with_batchnorm_in_train_mode_equals_a_loop():
    rows = mlp_rows(mlp(batchnorm=True))
    step, parameters, state = build(rows, batchnorm_train=True)
    perturbation = Perturbation.mean(rows.batch([1, 2, 3]))

    def run(epsilon):
        moved, after = two_steps(step, parameters, state, perturbation, epsilon)
        return moved, after.buffers

    epsilons = torch.tensor([[0.0], [1.5]], dtype=torch.float64)
    together = torch.func.vmap(run, randomness="same")(epsilons)
    for index, epsilon in enumerate(epsilons):
        for joint, alone in zip(together, run(epsilon), strict=True):
            assert all(torch.allclose(joint[name][index], alone[name], rtol=1e-9) for name in alone)
    assert not torch.allclose(together[1]["body.1.running_mean"][0], together[1]["body.1.running_mean"][1])


def test_vmap_over_epsilon_and_rows_equals_a_loop():
    rows = mlp_rows(mlp())
    step, parameters, state = build(rows, ADAM)
    batch = rows.batch([1, 2, 3])

    def run(epsilon, x, label):
        perturbation = Perturbation(Batch({"x": x}, label), torch.ones(1, 1))
        return two_steps(step, parameters, state, perturbation, epsilon)[0]

    epsilons = torch.tensor([[0.5], [1.0], [2.0]], dtype=torch.float64)
    together = torch.func.vmap(run, randomness="same")(epsilons, batch.inputs["x"][:, None], batch.labels[:, None])
    for index, row in enumerate([1, 2, 3]):
        alone, _ = two_steps(step, parameters, state, Perturbation.mean(rows.batch([row])), epsilons[index])
        assert all(torch.allclose(together[name][index], alone[name], rtol=1e-9, atol=1e-13) for name in alone)


def test_a_batch_is_collated_once_per_t_and_outlives_a_transform(monkeypatch):
    rows = mlp_rows(mlp())
    step, parameters, state = build(rows, batch_size=8)
    calls = []
    collate = rows.classifier.collate
    monkeypatch.setattr(rows.classifier, "collate", lambda items, labels: calls.append(1) or collate(items, labels))
    perturbation = Perturbation.mean(collate(rows.items[:2], rows.labels[:2]))
    torch.func.jvp(lambda e: step(parameters, state, e, perturbation, 0)[0], (one(0.1),), (one(1.0),))
    assert step.batch(0).inputs["x"].data_ptr() != 0  # raises for a tensor left over from jvp: it has no storage
    step(parameters, state, one(0.0), perturbation, 0)
    step(parameters, state, one(0.5), perturbation, 0)
    assert len(calls) == 1
    step(parameters, state, one(0.5), perturbation, 1)
    assert len(calls) == 2
