"""Dropout off and BatchNorm in train mode: what a correction trains by, what is kept of it, and its replay."""

import pytest
import torch
from family_checkpoints import save_family, write_family_data
from homes import living_in
from safetensors.torch import load_file

from influence_core.correction.replay import replay
from influence_core.data.opening import run as open_workspace
from influence_core.errors import UserError
from influence_core.events import Step
from influence_core.models.loading import load, rows_of
from influence_core.replays import Replayed
from influence_core.reports.commands import correct_command
from influence_core.specs import CorrectionSpec, OpenSpec
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.trajectory.step import TrainingStep
from influence_core.workspace import Workspace

RESNET = {"strategy": "random", "optimizer": "sgd", "learning_rate": 1e-3, "k": 4, "batch_size": 16}
FAST = {"strategy": "random", "optimizer": "sgd", "learning_rate": 0.1, "k": 6, "batch_size": 16}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A torchvision ResNet-18's workspace, scope last:1 (layer4 and fc)."""
    place = tmp_path_factory.mktemp("batchnorm")
    with living_in(place / "home"):
        checkpoint = save_family(place / "model", "torchvision")
        train, test = write_family_data(place / "data", "torchvision")
        spec = OpenSpec(checkpoint=str(checkpoint), data=str(train), test=str(test), scope="last:1")
        yield Workspace.open(list(open_workspace(spec, place / "opening"))[-1].value["workspace"])


def test_kept_statistics_are_those_that_moved_and_plain_torchvision_predicts_as_recorded(images, tmp_path):
    from torchvision.models import get_model

    example = images.mispredictions()["id"].iloc[-1]
    options = {**RESNET, "batchnorm": "train", "steps": 3, "after_flip": 3}
    steps = [e for e in images.correct(example, tmp_path / "run", **options) if isinstance(e, Step)]
    kept = images.keep(tmp_path / "run", "moved")
    before = load_file(f"{images.checkpoint().path}/model.safetensors")
    after = load_file(f"{kept.path}/model.safetensors")
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    buffers = {name for name in before if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert moved & buffers == {name for name in buffers if name.startswith("layer4.")}
    for name in moved:
        assert after[name].dtype == before[name].dtype
        if name.endswith("num_batches_tracked"):
            assert int(after[name]) == int(before[name]) + 3  # a batch a step

    module = get_model("resnet18", weights=None, num_classes=2)
    module.conv1, module.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
    module.load_state_dict(after)
    module.eval()
    classifier = load(images)
    rows = rows_of(images, classifier, "test")
    with torch.no_grad():
        probabilities = module(**rows.batch(range(len(rows))).inputs).double().softmax(1)
    recorded = images.predictions("test", "moved")
    assert recorded["prediction"].tolist() == probabilities.argmax(1).tolist()
    assert recorded["p1"].to_numpy() == pytest.approx(probabilities[:, 1].numpy(), abs=1e-5)
    row = images.locate(example)[1]
    desired = images.truth(example)
    assert steps[-1].probability == pytest.approx(float(probabilities[row, desired]), abs=1e-5)

    found = [event for event in replay(images, "moved") if isinstance(event, Replayed)][-1]
    assert found.same, found.words
    # it goes on from the state that it carries, whatever the mode, with the statistics that are kept
    other = 1 - int(recorded["prediction"].iloc[row])
    on = {**RESNET, "optimizer": "checkpoint", "checkpoint": "moved", "desired": images.label_names[other], "steps": 1}
    for mode in ("eval", "train"):
        first = next(e for e in images.correct(example, **on, batchnorm=mode) if isinstance(e, Step))
        assert first.probability == pytest.approx(float(probabilities[row, other]), abs=1e-5)


def test_in_eval_statistics_stay(images, tmp_path):
    example = images.mispredictions()["id"].iloc[-1]
    list(images.correct(example, tmp_path / "run", **RESNET, steps=1))
    assert not [name for name in load_file(tmp_path / "run" / "parameters.safetensors") if "running" in name]


def test_batchnorm_in_train_mode_where_the_scope_has_none_is_refused(images):
    example = images.mispredictions()["id"].iloc[-1]
    said = "batchnorm = train, but what scope head trains of model has no BatchNorm layer: leave it at eval"
    with pytest.raises(UserError, match=said):
        list(images.correct(example, **RESNET, batchnorm="train", scope="head"))


def test_batchnorm_in_train_mode_of_a_model_without_it_is_refused(opened):
    with pytest.raises(UserError, match="has no BatchNorm layer"):
        list(opened.correct(opened.mispredictions()["id"].iloc[0], **FAST, batchnorm="train"))


def test_without_dropout_a_step_is_that_of_the_model_in_eval(opened):
    example = opened.mispredictions()["id"].iloc[0]
    split, row = opened.locate(example)
    classifier = load(opened)
    scope = classifier.scope(opened.scope)
    train, own = rows_of(opened, classifier, "train"), classifier.parameters(scope)
    first = TrainingStep(classifier, scope, OptimizerSpec("sgd", 0.1), train, 16, 0).batch_rows(0)
    gradients = torch.func.grad(lambda given: classifier.losses(train.batch(first), given).mean())(own)
    stepped = {name: value - 0.1 * gradients[name] for name, value in own.items()}
    target = rows_of(opened, classifier, split).batch([row], [opened.truth(example)])
    expected = float(classifier.losses(target, stepped)[0])
    off, on = (
        [e for e in opened.correct(example, **FAST, dropout=dropout, steps=1) if isinstance(e, Step)][-1].base_loss
        for dropout in (False, True)
    )
    assert off == pytest.approx(expected, rel=1e-5)
    assert on != pytest.approx(expected, rel=1e-5)


def test_the_modes_are_in_the_command_and_at_their_defaults_in_no_manifest():
    plain = CorrectionSpec(workspace="w", example="1")
    assert not {"dropout", "batchnorm"} & set(plain.model_dump())
    spec = CorrectionSpec(workspace="w", example="1", dropout=False, batchnorm="train")
    assert CorrectionSpec(**spec.model_dump()) == spec
    manifest = {"spec": spec.model_dump(), "checkpoint": "c", "scope": "all", "steps": 50}
    command = correct_command(manifest, {}, None, None)
    assert "--no-dropout --batchnorm train" in command
    assert "--no-dropout True" not in command
