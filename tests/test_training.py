"""The demos' own training: batches, reproducibility, and the optimizer state it leaves."""

import numpy as np
import torch
from models import tiny_bert

from influence_core.models.classifier import Batch, Rows
from influence_core.models.training import POOL, Epoch, Recipe, batch_rows, train
from influence_core.trajectory.optimizers import OptimizerSpec, OptimizerState
from influence_core.trajectory.step import TrainingStep


def token_rows(classifier, count: int = 24) -> Rows:
    """Rows of the tiny BERT with token ids of various lengths."""
    from models import token_batch

    generator = np.random.default_rng(0)
    items = [generator.integers(1, 40, size=int(generator.integers(3, 9))).tolist() for _ in range(count)]

    def collate(chosen, labels) -> Batch:
        return token_batch(chosen, labels)

    classifier.collate = collate
    classifier.size = len
    return Rows(classifier, items, generator.integers(0, 3, size=count))


def test_an_epoch_takes_every_row_once_with_like_sizes_together():
    sizes = np.random.default_rng(1).integers(3, 60, size=1000)
    batches = batch_rows(sizes, 8, np.random.default_rng(0))
    assert sorted(np.concatenate(batches).tolist()) == list(range(1000))
    spread = np.mean([np.ptp(sizes[rows]) for rows in batches])
    plain = np.mean([np.ptp(sizes[rows]) for rows in np.split(np.random.default_rng(0).permutation(1000), 125)])
    assert spread < plain / 4
    assert POOL * 8 < 1000  # so that shuffling between pools matters here


def test_training_is_seeded_and_leaves_a_state_that_a_correction_can_go_on_from():
    recipe = Recipe("last:1", 2, 8, 1e-3, 0.01, 3)
    ends = []
    for _ in range(2):
        classifier = tiny_bert(dtype=torch.float64)
        rows = token_rows(classifier)
        frozen = {n: p.clone() for n, p in classifier.module.named_parameters()}
        ends.append([event for event in train(classifier, rows, recipe) if isinstance(event, Epoch)])
        scope = classifier.scope("last:1")
        for name, value in classifier.module.named_parameters():
            assert torch.equal(value, frozen[name]) == (name not in scope.parameters), name
    assert [epoch.number for epoch in ends[0]] == [1, 2]
    for name, value in ends[0][-1].parameters.items():
        assert torch.equal(value, ends[1][-1].parameters[name])
    assert 0 < ends[0][-1].learning_rate < 1e-3
    state = OptimizerState.from_tensors(ends[0][-1].optimizer)
    assert float(state.step) == 6  # two epochs of 24 rows in batches of 8
    spec = OptimizerSpec("adam", 1e-3, weight_decay=0.01, decoupled=True)
    step = TrainingStep(classifier, scope, spec, rows, 8, 0)
    fresh = step.initial_state(ends[0][-1].parameters)
    assert state.exp_avg.keys() == fresh.exp_avg.keys()
    moved, after = step(ends[0][-1].parameters, state, torch.zeros(0), None, 0)
    assert float(after.step) == 7
    assert any(not torch.equal(moved[name], ends[0][-1].parameters[name]) for name in moved)
