"""Many perturbed trajectories beside one base: one after another, and together by vmap."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from step_models import ADAM, SGD, bert_rows, build, equal, mlp, mlp_rows

from influence_core.errors import UserError
from influence_core.trajectory import stacks, trajectories
from influence_core.trajectory.lockstep import lockstep
from influence_core.trajectory.memory import carried_bytes, step_bytes
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.trajectory.perturbation import Perturbation
from influence_core.trajectory.trajectories import alike, rollout

EPSILONS = torch.tensor([[0.5], [0.0], [-0.2], [1.0]], dtype=torch.float64)
GROUPS = [[1, 2, 3], [4, 5], [6], [7, 8, 9]]


def setting(model="mlp", optimizer=SGD, scope=None, **flags):
    rows = bert_rows() if model == "bert" else mlp_rows(mlp(batchnorm=model == "batchnorm"))
    scope = scope or ("last:1" if model == "bert" else "all")
    flags["batchnorm_train"] = model == "batchnorm"
    step, parameters, state = build(rows, optimizer, scope, batch_size=5, **flags)
    return step, parameters, state, alike(rows, GROUPS)


def close(first, second):
    return all(torch.allclose(first[name], second[name], rtol=1e-9, atol=1e-12) for name in first)


def test_groups_of_rows_get_one_shape_and_padding_counts_for_nothing():
    step, parameters, state, perturbations = setting()
    rows = step.rows
    assert {tuple(p.weights.shape) for p in perturbations} == {(1, 3)}
    for group, perturbation in zip(GROUPS, perturbations, strict=True):
        one = torch.ones(1, dtype=torch.float64)
        padded, _ = step(parameters, state, one, perturbation, 0)
        plain, _ = step(parameters, state, one, Perturbation.mean(rows.batch(group)), 0)
        assert close(padded, plain)
    labels = [[0, 0, 0], [1, 2], [2], [1, 1, 1]]
    given = alike(rows, GROUPS, labels)
    assert [p.batch.labels.tolist()[: len(each)] for p, each in zip(given, labels, strict=True)] == labels
    with pytest.raises(UserError, match="at least one row"):
        alike(rows, [[1], []])


@pytest.mark.parametrize("optimizer", [OptimizerSpec("sgd", 0.1, momentum=0.9), ADAM])
def test_one_after_another_each_equals_a_lockstep_of_its_own_and_all_share_its_base(optimizer):
    step, parameters, state, perturbations = setting("bert", optimizer)
    items = list(rollout(step, parameters, state, perturbations, EPSILONS, 4, "sequential"))
    assert [item.t for item in items] == list(range(5))
    assert {item.way for item in items} == {"sequential"}
    for m, perturbation in enumerate(perturbations):
        for item, own in zip(items, lockstep(step, parameters, state, EPSILONS[m], perturbation, 4), strict=True):
            assert equal(item.parameters(m), own.parameters)
            assert equal(item.optimizer_state(m).to_tensors(), own.optimizer_state.to_tensors())
            assert equal(item.base_parameters, own.base_parameters)
            assert equal(item.base_optimizer_state.to_tensors(), own.base_optimizer_state.to_tensors())
            assert item.divergences[m] == pytest.approx(own.divergence, rel=1e-12)
            assert item.integrated_lr == own.integrated_lr
    assert items[4].divergences[[0, 2, 3]].min() > 1e-4


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("model", ["mlp", "batchnorm", "bert"])
def test_vmap_and_one_after_another_agree(model, trains):
    # Under Adam the rounding that is a bias's gradient, where BatchNorm takes the bias away, becomes steps; as a key's.
    optimizer = OptimizerSpec("sgd", 0.1, momentum=0.9) if model == "batchnorm" else ADAM
    step, parameters, state, perturbations = setting(model, optimizer, perturbation_trains=trains)
    alone = list(rollout(step, parameters, state, perturbations, EPSILONS, 3, "sequential"))
    together = list(rollout(step, parameters, state, perturbations, EPSILONS, 3, "vmap"))
    felt = [name for name in parameters if not name.endswith("key.bias")]
    for one, other in zip(alone, together, strict=True):
        assert len(other.stacks) == 1
        for m in range(len(perturbations)):
            mine, its = one.parameters(m), other.parameters(m)
            assert close({name: mine[name] for name in felt}, its)
            assert close(one.optimizer_state(m).buffers, other.optimizer_state(m).buffers)
        if model != "bert":
            np.testing.assert_allclose(one.divergences, other.divergences, rtol=1e-8, atol=1e-10)
    assert together[3].way == "vmap"


def test_vmap_through_all_of_an_encoder_with_its_embeddings():
    step, parameters, state, perturbations = setting("bert", SGD, scope="all")
    *_, alone = rollout(step, parameters, state, perturbations, EPSILONS, 2, "sequential")
    *_, together = rollout(step, parameters, state, perturbations, EPSILONS, 2, "vmap")
    assert all(close(alone.parameters(m), together.parameters(m)) for m in range(4))


@pytest.mark.parametrize("how", ["sequential", "vmap"])
@pytest.mark.parametrize("size", [2, 3, 5])
def test_an_epsilon_of_zero_repeats_the_base_exactly_wherever_it_stands(how, size, monkeypatch):
    """A repeat in another stack than the base's has the base's bits all the same."""
    step, parameters, state, perturbations = setting("bert", ADAM, perturbation_trains=True)
    monkeypatch.setattr(trajectories, "step_bytes", lambda *_: 1)
    epsilons = EPSILONS[[0, 2, 1, 1]]
    *_, last = rollout(step, parameters, state, perturbations, epsilons, 4, how, limit=size)
    if how == "vmap":
        assert [len(stack[1].step) for stack in last.stacks] == {2: [2, 2, 2], 3: [3, 3], 5: [5]}[size]
    assert last.divergences[2:].tolist() == [0.0, 0.0]
    assert last.divergences[:2].min() > 0
    assert equal(last.parameters(3), last.base_parameters)
    seen = [number for numbers, _ in last.stacked() for number in numbers]
    assert seen == list(range(5))
    for numbers, stacked in last.stacked():
        for place, number in enumerate(numbers):
            own = last.parameters(number - 1) if number else last.base_parameters
            assert all(torch.equal(stacked[name][place], own[name]) for name in own)


def clock(monkeypatch, **seconds):
    """Let a way's first step seem to take so long."""
    timed = stacks._timed
    ways = iter(["sequential", "vmap"])
    monkeypatch.setattr(stacks, "_timed", lambda work, step: (timed(work, step)[0], seconds[next(ways)]))


@pytest.mark.parametrize("taken", ["sequential", "vmap"])
def test_auto_makes_the_first_step_both_ways_and_goes_on_with_the_faster(taken, monkeypatch):
    step, parameters, state, perturbations = setting()
    clock(monkeypatch, **{"sequential": 2.0, "vmap": 2.0, taken: 1.0})
    items = list(rollout(step, parameters, state, perturbations, EPSILONS, 3))
    assert [item.way for item in items[1:]] == [taken] * 3
    for item, other in zip(items, rollout(step, parameters, state, perturbations, EPSILONS, 3, taken), strict=True):
        assert all(equal(item.parameters(m), other.parameters(m)) for m in range(4))  # the step it timed is kept


@pytest.mark.parametrize(("broken", "taken"), [("fails", "sequential"), ("strays", "sequential"), ("", "vmap")])
def test_auto_stays_with_one_after_another_where_vmap_fails_or_goes_elsewhere(broken, taken, monkeypatch):
    step, parameters, state, perturbations = setting()
    advance = stacks.Vmapped.advance

    def misled(self, given, t):
        if broken == "fails":
            raise RuntimeError("no batching rule")
        shift = 1e-4 if broken else 0.0
        return tuple(({n: v + shift for n, v in p.items()}, s) for p, s in advance(self, given, t))

    clock(monkeypatch, sequential=2.0, vmap=1.0)
    monkeypatch.setattr(stacks.Vmapped, "advance", misled)
    *_, last = rollout(step, parameters, state, perturbations, EPSILONS, 2)
    assert last.way == taken


def test_auto_does_not_stack_what_does_not_fit():
    step, parameters, state, perturbations = setting()
    *_, last = rollout(step, parameters, state, perturbations, EPSILONS, 2, limit=1)
    assert last.way == "sequential"
    assert len(last.stacks) == 5


def test_the_bytes_of_a_step_count_parameters_moments_and_what_the_backward_needs():
    rows = mlp_rows(mlp())
    step, parameters, _ = build(rows, ADAM, batch_size=8)
    count = sum(value.numel() for value in parameters.values())
    assert carried_bytes(ADAM, count) == 3 * 4 * count
    assert carried_bytes(OptimizerSpec("sgd", 0.1, momentum=0.9), count, 5) == 2 * 4 * count * 5
    fixed = (2 * 3 + 1) * count * 8
    # of 8 rows: inputs 4 (twice: the batch itself), tanh 6, 5, log-softmax 3, at least
    assert 8 * 8 * (6 + 5 + 3) < step_bytes(step, parameters) - fixed < 8 * 8 * 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": -1}, "-1 steps"),
        ({"perturbations": []}, "at least one"),
        ({"epsilons": EPSILONS[:2]}, r"shape \(2, 1\) for 4"),
        ({"epsilons": EPSILONS * float("nan")}, "finite"),
    ],
)
def test_what_cannot_be_rolled_out_is_refused_before_the_first_step(change, message):
    step, parameters, state, perturbations = setting()
    given = {"perturbations": perturbations, "epsilons": EPSILONS, "steps": 2} | change
    with pytest.raises(UserError, match=message):
        next(rollout(step, parameters, state, **given))


def test_perturbations_of_unequal_shapes_go_one_after_another_and_not_by_vmap():
    step, parameters, state, _ = setting()
    unequal = [Perturbation.mean(step.rows.batch(group)) for group in GROUPS]
    *_, last = rollout(step, parameters, state, unequal, EPSILONS, 1)
    assert last.way == "sequential"
    with pytest.raises(UserError, match="alike"):
        next(rollout(step, parameters, state, unequal, EPSILONS, 1, "vmap"))


def digests() -> dict[str, list[str]]:
    """Bytes of every trajectory after three steps of Adam with dropout, both ways; run in other processes too."""
    import hashlib

    found = {}
    for how in ("sequential", "vmap"):
        step, parameters, state, perturbations = setting("mlp", ADAM)
        *_, last = rollout(step, parameters, state, perturbations, EPSILONS, 3, how)
        found[how] = [
            hashlib.sha256(b"".join(value.numpy().tobytes() for value in last.parameters(m).values())).hexdigest()
            for m in range(4)
        ]
    return found


def test_replays_are_bit_identical_across_processes():
    code = "import json, torch; torch.rand(7); import test_trajectories as t; print(json.dumps(t.digests()))"
    folder = Path(__file__).parent
    environment = {"PYTHONPATH": f"{folder}:{folder.parent}", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    replayed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder, env=environment
    )
    found = digests()
    assert json.loads(replayed.stdout.splitlines()[-1]) == found
    assert len(set(found["sequential"])) == len(GROUPS)
