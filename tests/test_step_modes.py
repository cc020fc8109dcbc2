"""Train and eval modes during a step, and BatchNorm's running statistics."""

import pytest
import torch
from step_models import ADAM, NOTHING, Mlp, build, equal, mlp, mlp_rows, one
from torch import nn

from influence_core.trajectory.perturbation import Perturbation


def test_perturbation_rows_in_eval_read_the_running_statistics_of_the_steps_start():
    rows = mlp_rows(mlp(batchnorm=True, rate=0.0))
    step, parameters, state = build(rows, batchnorm_train=True)
    _, state = step(parameters, state, NOTHING, None, 0)  # statistics that are no longer the module's
    batch = rows.batch([1, 2, 3])
    plain, after = step(parameters, state, NOTHING, None, 1)
    moved, _ = step(parameters, state, one(0.5), Perturbation.mean(batch), 1)

    def gradient(buffers):  # by torch's own batch_norm, the module in eval
        return torch.func.grad(lambda p: rows.classifier.losses(batch, p, buffers).mean())(parameters)

    expected, wrong = gradient(state.buffers), gradient(after.buffers)
    name = "body.0.weight"
    assert torch.allclose(moved[name] - plain[name], -0.05 * expected[name], rtol=1e-9, atol=1e-14)
    assert not torch.allclose(expected[name], wrong[name], rtol=1e-4)


def modes_seen(step, parameters, state, perturbation):
    """Return what training mode each leaf was in, per forward pass: base first, then the group."""
    seen = {name: [] for name, part in step.classifier.module.named_modules() if not list(part.children())}
    handles = [
        part.register_forward_pre_hook(lambda module, _, name=name: seen[name].append(module.training))
        for name, part in step.classifier.module.named_modules()
        if name in seen
    ]
    step(parameters, state, one(0.5), perturbation, 0)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize(
    ("scope", "flags", "base", "group"),
    [
        ("head", {}, {"head"}, set()),
        ("head", {"dropout": False}, set(), set()),
        ("head", {"perturbation_trains": True}, {"head"}, {"head"}),
        ("all", {}, {"body", "head"}, set()),
        ("all", {"batchnorm_train": True}, {"body", "head", "norm"}, set()),
        ("all", {"batchnorm_train": True, "dropout": False}, {"norm"}, set()),
        ("head", {"batchnorm_train": True}, {"head"}, set()),  # the BatchNorm layer is frozen
        ("all", {"batchnorm_train": True, "perturbation_trains": True}, *[{"body", "head", "norm"}] * 2),
    ],
)
def test_only_what_the_scope_trains_is_in_train_mode(scope, flags, base, group):
    rows = mlp_rows(mlp(batchnorm=True))
    step, parameters, state = build(rows, scope=scope, **flags)
    seen = modes_seen(step, parameters, state, Perturbation.mean(rows.batch([1, 2, 3])))
    assert len(seen) == 8
    for name, (in_base, in_group) in seen.items():
        part = "norm" if name == "body.1" else name.split(".")[0]
        assert in_base == (part in base), name
        assert in_group == (part in group), name
    assert not any(part.training for part in rows.classifier.module.modules())


def test_modes_hooks_and_random_state_return_even_after_an_error():
    rows = mlp_rows(mlp(batchnorm=True))
    step, parameters, state = build(rows, batchnorm_train=True)
    norm = rows.classifier.module.body[1]
    norm.train()  # whatever was set before must come back, not just eval
    before = torch.get_rng_state()
    perturbation = Perturbation.mean(rows.batch([1, 2]))
    step(parameters, state, one(0.5), perturbation, 0)
    assert torch.equal(torch.get_rng_state(), before)

    def fail(*_):
        raise RuntimeError("broken on purpose")

    handle = rows.classifier.module.head[3].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        step(parameters, state, one(0.5), perturbation, 0)
    handle.remove()
    assert torch.equal(torch.get_rng_state(), before)
    assert [part for part in rows.classifier.module.modules() if part.training] == [norm]
    assert norm.track_running_stats
    assert not norm._forward_pre_hooks


def test_nothing_given_is_changed_and_the_module_stays_as_it_was():
    rows = mlp_rows(mlp(batchnorm=True))
    step, parameters, state = build(rows, ADAM, batchnorm_train=True)
    module = {name: value.clone() for name, value in rows.classifier.module.state_dict().items()}
    tensors = {name: value.clone() for name, value in state.to_tensors().items()}
    moved, _ = step(parameters, state, one(0.5), Perturbation.mean(rows.batch([1, 2])), 0)
    assert equal(dict(rows.classifier.module.state_dict()), module)
    assert equal(state.to_tensors(), tensors)
    assert equal(parameters, {name: module[name] for name in parameters})
    assert not equal(moved, parameters)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batchnorm_in_train_mode_equals_torchs_own(momentum):
    """Normalises by the batch, and moves running statistics by B_t alone, in the optimizer state."""
    rows = mlp_rows(mlp(batchnorm=True, rate=0.0))
    rows.classifier.module.body[1].momentum = momentum
    step, parameters, state = build(rows, batchnorm_train=True)
    module = Mlp(batchnorm=True, rate=0.0).double()
    module.body[1].momentum = momentum
    module.load_state_dict(rows.classifier.module.state_dict())
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    perturbation = Perturbation.mean(rows.batch([1, 2, 3]))
    for t in range(4):
        parameters, state = step(parameters, state, one(0.0), perturbation, t)
        batch = rows.batch(step.batch_rows(t))
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(**batch.inputs), batch.labels).backward()
        optimizer.step()
    for name, value in module.named_buffers():
        assert torch.allclose(state.buffers[name], value.to(torch.float64), rtol=1e-12)
    for name, value in module.named_parameters():
        assert torch.allclose(parameters[name], value, rtol=1e-9, atol=1e-12)
    batch = rows.batch([0, 1])
    with torch.no_grad():
        expected = module.eval()(**batch.inputs)
    assert torch.allclose(rows.classifier.logits(batch, parameters, state.buffers), expected, rtol=1e-9)
