"""Training by a recipe: against plain loops, interrupted anywhere, and the optimizer state it leaves."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from families import FAMILIES, rows
from models import mlp, vector_batch

from influence_core.errors import RunFailedError, UserError
from influence_core.models.classifier import Rows
from influence_core.training.augmentation import crop_flip
from influence_core.training.loop import POOL, Reached, batch_rows, train
from influence_core.training.recipes import RECIPES, Recipe
from influence_core.trajectory.optimizers import OptimizerSpec, OptimizerState, init, update
from influence_core.trajectory.step import TrainingStep

PLAIN = Recipe(name="plain", learning_rate=0.05, batch_size=4, epochs=2)


def vector_rows(classifier, count: int = 11) -> Rows:
    batch = vector_batch(count)
    return Rows(classifier, list(batch.inputs["x"]), batch.labels.numpy())


def reached(classifier, own: Rows, recipe: Recipe, **options) -> list[Reached]:
    return [event for event in train(classifier, own, recipe, **options) if isinstance(event, Reached)]


def weights(classifier) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in classifier.module.state_dict().items()}


def test_an_epoch_takes_every_row_once_with_like_sizes_together():
    sizes = np.random.default_rng(1).integers(3, 60, size=1000)
    batches = batch_rows(sizes, 8, seed=0, epoch=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(1000))
    spread = np.mean([np.ptp(sizes[rows]) for rows in batches])
    plain = np.mean([np.ptp(sizes[rows]) for rows in np.split(np.random.default_rng(0).permutation(1000), 125)])
    assert spread < plain / 4
    assert POOL * 8 < 1000  # so that shuffling between pools matters here
    assert all(np.array_equal(a, b) for a, b in zip(batches, batch_rows(sizes, 8, 0, 0), strict=True))
    for other in (batch_rows(sizes, 8, 0, 1), batch_rows(sizes, 8, 1, 0)):
        assert not np.array_equal(np.concatenate(batches), np.concatenate(other))


@pytest.mark.parametrize(
    ("recipe", "spec"),
    [
        (replace(PLAIN, optimizer="sgd", weight_decay=0.1), OptimizerSpec("sgd", 0.05, weight_decay=0.1)),
        (replace(PLAIN, optimizer="sgd", momentum=0.9), OptimizerSpec("sgd", 0.05, momentum=0.9)),
        (replace(PLAIN, weight_decay=0.1), OptimizerSpec("adam", 0.05, weight_decay=0.1)),
        (
            replace(PLAIN, weight_decay=0.1, decoupled=True, schedule="linear"),
            OptimizerSpec("adam", 0.05, weight_decay=0.1, decoupled=True),
        ),
    ],
    ids=["sgd", "momentum", "coupled", "decoupled"],
)
def test_training_is_the_optimizers_update_on_each_batch(recipe, spec):
    """Against `trajectory.optimizers.update` with gradients of a plain copy, step by step; moments as well."""
    classifier = mlp()
    own = vector_rows(classifier)
    module = copy.deepcopy(classifier.module).requires_grad_(True)
    last = reached(classifier, own, recipe)[-1]
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    state = init(spec, parameters)
    sizes = np.ones(len(own))
    batches = [batch for epoch in range(2) for batch in batch_rows(sizes, 4, recipe.seed, epoch)]
    for step, chosen in enumerate(batches):
        module.load_state_dict(parameters)
        module.zero_grad()
        batch = own.batch(chosen)
        torch.nn.functional.cross_entropy(module(batch.inputs["x"]), batch.labels).backward()
        gradients = {name: value.grad for name, value in module.named_parameters()}
        moved = replace(spec, learning_rate=recipe.rate(step, 3))
        parameters, state = update(moved, parameters, gradients, state)
    for name, value in classifier.module.named_parameters():
        torch.testing.assert_close(value, parameters[name], rtol=1e-9, atol=1e-12)
    found = OptimizerState.from_tensors(last.optimizer)
    assert float(found.step) == float(state.step) == 6
    for kind in ("momentum_buffer", "exp_avg", "exp_avg_sq"):
        assert getattr(found, kind).keys() == getattr(state, kind).keys()
        for name, value in getattr(state, kind).items():
            torch.testing.assert_close(getattr(found, kind)[name], value, rtol=1e-9, atol=1e-12)
    assert last.learning_rate == pytest.approx(np.mean([recipe.rate(step, 3) for step in (3, 4, 5)]))


CASES = {  # dropout; BatchNorm with moving statistics and crops
    "bert": Recipe(name="a", learning_rate=1e-3, batch_size=3, steps=7, weight_decay=0.1, schedule="cosine"),
    "resnet": Recipe(
        name="b", learning_rate=0.1, batch_size=3, steps=7, optimizer="sgd", momentum=0.9, augmentation="crop-flip"
    ),
    "vit": Recipe(name="c", learning_rate=1e-3, batch_size=3, steps=7, scope="last:1", schedule="warmup-cosine"),
}


@pytest.mark.parametrize("family", CASES)
def test_an_interrupted_training_ends_with_the_same_bits(family):
    recipe = CASES[family]
    whole, part = FAMILIES[family].build(), FAMILIES[family].build()
    own, again = (rows(classifier, FAMILIES[family].raw()) for classifier in (whole, part))
    before = weights(whole)
    ends = reached(whole, own, recipe, every=3)
    assert [end.step for end in ends] == [3, 6, 7]
    end = killed(part, again, recipe, at=3)
    fresh = FAMILIES[family].build()
    fresh.module.load_state_dict(part.module.state_dict())
    resumed = reached(fresh, rows(fresh, FAMILIES[family].raw()), recipe, every=3, start=end)
    assert [end.step for end in resumed] == [6, 7]
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(fresh)[name]), name
    for name, value in ends[-1].optimizer.items():
        assert torch.equal(value, resumed[-1].optimizer[name]), name
    assert ends[-1].learning_rate == resumed[-1].learning_rate
    trained = set(whole.scope(recipe.scope).parameters)
    for name, value in whole.module.named_parameters():
        assert torch.equal(value, before[name]) == (name not in trained), name
    moved = {name for name in before if "running" in name and not torch.equal(before[name], weights(whole)[name])}
    assert (len(moved) > 0) == (family == "resnet")
    assert not any(module.training for module in whole.module.modules())


def killed(classifier, own: Rows, recipe: Recipe, at: int) -> Reached:
    """The point at which a training was killed; others draw random numbers meanwhile."""
    for event in train(classifier, own, recipe, every=at):
        torch.rand(5)
        if isinstance(event, Reached):
            return event
    raise AssertionError("it ended before")


def test_a_correction_goes_on_from_the_state_that_training_leaves():
    recipe = replace(PLAIN, optimizer="adam", weight_decay=0.01, decoupled=True)
    classifier = mlp()
    own = vector_rows(classifier)
    last = reached(classifier, own, recipe)[-1]
    scope = classifier.scope("all")
    step = TrainingStep(
        classifier, scope, OptimizerSpec("adam", 1e-3, weight_decay=0.01, decoupled=True), own, 4, seed=0
    )
    state = OptimizerState.from_tensors(last.optimizer)
    parameters = classifier.parameters(scope)
    moved, after = step(parameters, state, torch.zeros(0), None, 0)
    assert float(after.step) == 7
    assert any(not torch.equal(moved[name], parameters[name]) for name in moved)


def test_points_are_reached_every_so_often_at_kept_epochs_and_at_the_end():
    classifier = mlp()
    own = vector_rows(classifier)  # 3 batches an epoch
    recipe = replace(PLAIN, epochs=3, keep_epochs=(1,))
    assert [end.step for end in reached(classifier, own, recipe)] == [3, 6, 9]
    ends = reached(classifier, own, recipe, every=5)
    assert [end.step for end in ends] == [3, 5, 9]
    assert [end.epoch for end in ends] == pytest.approx([1, 5 / 3, 3])


def test_a_training_that_diverges_says_what_to_do():
    classifier = mlp()
    with pytest.raises(RunFailedError, match="lower the learning rate"):
        reached(classifier, vector_rows(classifier), replace(PLAIN, optimizer="sgd", learning_rate=1e200))


def test_crops_are_shifted_copies_padded_with_black_half_of_them_mirrored():
    images = torch.arange(2 * 16 * 16, dtype=torch.float32).reshape(1, 2, 16, 16).repeat(400, 1, 1, 1)
    black = torch.tensor([-1.0, -2.0])[:, None, None]
    torch.manual_seed(0)
    found = crop_flip(images, black)
    padded = black.expand(2, 20, 20).clone()
    padded[:, 2:18, 2:18] = images[0]
    possible = {}
    for down in range(5):
        for right in range(5):
            crop = padded[:, down : down + 16, right : right + 16]
            possible[crop.numpy().tobytes()] = (down, right, False)
            possible[crop.flip(2).numpy().tobytes()] = (down, right, True)
    drawn = [possible[image.numpy().tobytes()] for image in found]  # KeyError: none of the 50
    assert len(set(drawn)) == 50
    assert 0.4 < np.mean([mirrored for _, _, mirrored in drawn]) < 0.6


def test_crops_are_refused_for_texts():
    classifier = mlp()
    with pytest.raises(UserError, match="crop-flip is for images"):
        reached(classifier, vector_rows(classifier), replace(PLAIN, augmentation="crop-flip"))


def test_schedules():
    recipe = replace(PLAIN, learning_rate=2.0, epochs=4)
    rates = {
        name: [replace(recipe, schedule=name).rate(step, 5) for step in range(20)]
        for name in ("none", "linear", "cosine", "warmup-cosine")
    }
    assert rates["none"] == [2.0] * 20
    np.testing.assert_allclose(rates["linear"], 2 * (1 - np.arange(20) / 20))
    np.testing.assert_allclose(rates["cosine"], 1 + np.cos(np.pi * np.arange(20) / 20))
    np.testing.assert_allclose(rates["warmup-cosine"][:5], [0.4, 0.8, 1.2, 1.6, 2.0])
    np.testing.assert_allclose(rates["warmup-cosine"][5:], 1 + np.cos(np.pi * np.arange(15) / 15))


def test_the_papers_recipes_have_its_numbers():
    """Tables 3 to 6 and J.1, J.2."""
    bert, t5 = RECIPES["bert-sst2"], RECIPES["t5-sst2"]
    assert (bert.batch_size, bert.steps, bert.learning_rate, bert.weight_decay) == (128, 35_000, 1e-5, 5e-6)
    assert (bert.optimizer, bert.decoupled, bert.schedule) == ("adam", False, "none")
    assert (t5.batch_size, t5.max_length, t5.epochs, t5.learning_rate, t5.schedule) == (16, 128, 4, 1e-4, "none")
    resnet, vit = RECIPES["resnet-cifar10"], RECIPES["vit-cifar10"]
    assert (resnet.batch_size, resnet.epochs, resnet.learning_rate, resnet.weight_decay) == (128, 200, 0.1, 1e-4)
    assert (resnet.schedule, resnet.optimizer, resnet.keep_epochs) == ("cosine", "sgd", (10,))
    assert (vit.batch_size, vit.epochs, vit.learning_rate, vit.schedule) == (128, 300, 1e-3, "warmup-cosine")
    assert resnet.augmentation == vit.augmentation == "crop-flip"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"steps": 3}, "epochs or steps"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0"),
        ({"batch_size": -1}, "batch_size = -1"),
        ({"optimizer": "sgd", "decoupled": True}, "decoupled decay goes with adam"),
    ],
)
def test_impossible_recipes_are_refused(fields, said):
    with pytest.raises(UserError, match=said):
        replace(PLAIN, **fields)
