"""Optimizers as functions, against torch.optim."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from step_models import mlp, mlp_rows

from influence_core.errors import UserError
from influence_core.trajectory.optimizers import OptimizerSpec, OptimizerState, init, root, update

CASES = {
    "sgd": (OptimizerSpec("sgd", 0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (OptimizerSpec("sgd", 0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    "momentum and decay": (
        OptimizerSpec("sgd", 0.1, momentum=0.8, weight_decay=0.05),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.8, weight_decay=0.05),
    ),
    "adam": (OptimizerSpec("adam", 0.02), lambda p: torch.optim.Adam(p, 0.02)),
    "adam, coupled": (
        OptimizerSpec("adam", 0.02, beta1=0.8, beta2=0.99, eps=1e-6, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, 0.02, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1),
    ),
    "adamw": (
        OptimizerSpec("adam", 0.02, weight_decay=0.1, decoupled=True),
        lambda p: torch.optim.AdamW(p, 0.02, weight_decay=0.1),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_twenty_steps_equal_torch_optim(case):
    spec, build = CASES[case]
    classifier = mlp()
    rows = mlp_rows(classifier)
    theirs = {name: value.clone() for name, value in classifier.parameters(classifier.scope("all")).items()}
    ours = {name: value.clone() for name, value in theirs.items()}
    start = {name: value.clone() for name, value in ours.items()}
    for value in theirs.values():
        value.requires_grad_(True)
    optimizer = build(list(theirs.values()))
    state = init(spec, ours)
    for t in range(20):
        batch = rows.batch([t % 20, (3 * t) % 20])
        optimizer.zero_grad()
        classifier.losses(batch, theirs).mean().backward()
        optimizer.step()
        gradients = torch.func.grad(lambda p, b=batch: classifier.losses(b, p).mean())(ours)
        ours, state = update(spec, ours, gradients, state)
    for name, value in ours.items():
        reference = theirs[name].detach()
        assert (value - reference).norm() <= 1e-12 * reference.norm()
        assert (value - start[name]).norm() > 1e-3 * start[name].norm()
    assert state.step == 20


@pytest.mark.parametrize("case", ["momentum and decay", "adam, coupled", "adamw"])
def test_nothing_given_is_changed(case):
    spec, _ = CASES[case]
    parameters = {"w": torch.tensor([1.0, 2.0])}
    gradients = {"w": torch.tensor([0.5, -0.5])}
    _, state = update(spec, parameters, gradients, init(spec, parameters))
    before = {name: value.clone() for name, value in state.to_tensors().items()}
    update(spec, parameters, gradients, state)
    assert torch.equal(parameters["w"], torch.tensor([1.0, 2.0]))
    assert torch.equal(gradients["w"], torch.tensor([0.5, -0.5]))
    after = state.to_tensors()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_decoupled_decay_of_sgd_shrinks_parameters_and_leaves_momentum_alone():
    spec = OptimizerSpec("sgd", 0.5, momentum=0.9, weight_decay=0.1, decoupled=True)
    parameters = {"w": torch.tensor([2.0], dtype=torch.float64)}
    moved, state = update(spec, parameters, {"w": torch.tensor([0.4], dtype=torch.float64)}, init(spec, parameters))
    assert moved["w"].item() == pytest.approx(2.0 * (1 - 0.05) - 0.5 * 0.4, abs=1e-15)
    assert state.momentum_buffer["w"].item() == 0.4


def test_root_has_derivative_zero_at_zero_and_the_roots_elsewhere():
    v = torch.tensor([0.0, 4.0], dtype=torch.float64)
    value, tangent = torch.func.jvp(root, (v,), (torch.tensor([0.0, 1.0], dtype=torch.float64),))
    assert value.tolist() == [0.0, 2.0]
    assert tangent.tolist() == [0.0, 0.25]
    assert torch.func.jacrev(root)(v).diagonal().tolist() == [0.0, 0.25]


def test_adam_tangent_is_finite_where_no_gradient_ever_came():
    spec = OptimizerSpec("adam", 0.1)
    parameters = {"w": torch.tensor([1.0, 1.0], dtype=torch.float64)}

    def two_updates(scale):
        p, state = parameters, init(spec, parameters)
        for _ in range(2):
            gradient = {"w": scale * p["w"] * torch.tensor([1.0, 0.0], dtype=torch.float64)}
            p, state = update(spec, p, gradient, state)
        return p["w"]

    one = torch.tensor(1e-6, dtype=torch.float64)
    _, tangent = torch.func.jvp(two_updates, (one,), (torch.ones_like(one),))
    h = 1e-10
    central = (two_updates(one + h) - two_updates(one - h)) / (2 * h)
    assert tangent[1] == 0
    assert tangent[0] == pytest.approx(central[0].item(), rel=1e-4)


@pytest.mark.parametrize("case", ["momentum", "adam"])
def test_state_survives_a_safetensors_file(case, tmp_path):
    spec, _ = CASES[case]
    parameters = {"a.weight": torch.ones(2, 3), "step": torch.ones(3)}  # a parameter may have any name
    state = init(spec, parameters, {"norm.running_mean": torch.zeros(3)})
    _, state = update(spec, parameters, {name: value * 0.5 for name, value in parameters.items()}, state)
    save_file(state.to_tensors(), tmp_path / "state.safetensors")
    read = OptimizerState.from_tensors(load_file(tmp_path / "state.safetensors"))
    assert read.step == 1
    assert read.step.dtype == torch.float64
    for kind in ("momentum_buffer", "exp_avg", "exp_avg_sq", "buffers"):
        mine, theirs = getattr(state, kind), getattr(read, kind)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "adagrad", "learning_rate": 0.1}, "adagrad"),
        ({"kind": "sgd", "learning_rate": float("nan")}, "learning_rate = nan"),
        ({"kind": "sgd", "learning_rate": -1.0}, "learning_rate = -1.0"),
        ({"kind": "adam", "learning_rate": 0.1, "beta2": 1.0}, "beta2 = 1.0"),
    ],
)
def test_bad_constants_are_named(arguments, words):
    with pytest.raises(UserError, match=words):
        OptimizerSpec(**arguments)


def test_a_state_of_another_optimizer_is_refused():
    parameters = {"w": torch.ones(2)}
    state = init(OptimizerSpec("sgd", 0.1, momentum=0.9), parameters)
    with pytest.raises(UserError, match="no exp_avg for 'w'"):
        update(OptimizerSpec("adam", 0.1), parameters, parameters, state)
    with pytest.raises(UserError, match=r"'variance\.w'"):
        OptimizerState.from_tensors({"step": torch.zeros(()), "variance.w": torch.ones(2)})
    with pytest.raises(UserError, match="without 'step'"):
        OptimizerState.from_tensors({"exp_avg.w": torch.ones(2)})
