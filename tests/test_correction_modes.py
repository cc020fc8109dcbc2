"""BatchNorm in train mode: the statistics that are kept, read by plain torchvision, and gone on from."""

import pytest
import torch
from family_checkpoints import save_family, write_family_data
from homes import living_in
from safetensors.torch import load_file

from influence_core.data.opening import run as open_workspace
from influence_core.errors import UserError
from influence_core.events import Step
from influence_core.models.loading import load, rows_of
from influence_core.specs import OpenSpec
from influence_core.workspace import Workspace

RESNET = {"strategy": "random", "optimizer": "sgd", "learning_rate": 1e-3, "k": 4, "batch_size": 16}


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
    # it goes on from the state that it carries, whatever the mode, with the statistics that are kept
    other = 1 - int(recorded["prediction"].iloc[row])
    on = {**RESNET, "optimizer": "checkpoint", "checkpoint": "moved", "desired": images.label_names[other], "steps": 1}
    for mode in ("eval", "train"):
        first = next(e for e in images.correct(example, **on, batchnorm=mode) if isinstance(e, Step))
        assert first.probability == pytest.approx(float(probabilities[row, other]), abs=1e-5)


def test_batchnorm_in_train_mode_where_the_scope_has_none_is_refused(images):
    example = images.mispredictions()["id"].iloc[-1]
    said = "batchnorm = train, but scope head of this checkpoint has no BatchNorm layer: leave it at eval"
    with pytest.raises(UserError, match=said):
        list(images.correct(example, **RESNET, batchnorm="train", scope="head"))
