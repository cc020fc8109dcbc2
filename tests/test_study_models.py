"""Studies on other families and on several checkpoints of one training; the states that they start from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from family_checkpoints import save_family, write_family_data
from safetensors.torch import load_file, save_file
from test_fading import last, value
from test_methods import keep_epochs

from influence_core.artefacts import base_key
from influence_core.data.opening import run as open_workspace
from influence_core.events import through
from influence_core.keeping import STATE
from influence_core.models.loading import load
from influence_core.specs import WARM_BATCHES, DivergenceSpec, FadingSpec, OpenSpec
from influence_core.studies.setting import Setting, in_precision, open_setting
from influence_core.trajectory.start import Start, start_state
from influence_core.trajectory.step import TrainingStep
from influence_core.workspace import Workspace

EXACT = {"train_rows": 6, "test_rows": 5, "batch_size": 8, "steps": 2, "dtype": "float64", "dropout": False}


def with_state(workspace: Workspace) -> str:
    """Add a checkpoint of the first one's weights that carries an Adam state of a thousand steps; return its name."""
    entry = workspace.checkpoint()
    generator = torch.Generator().manual_seed(0)
    tensors = {"step": torch.tensor(1000.0, dtype=torch.float64)}
    for name, weight in load(workspace).module.named_parameters():
        tensors[f"exp_avg.{name}"] = 0.01 * torch.randn(weight.shape, generator=generator)
        tensors[f"exp_avg_sq.{name}"] = 1 + 100 * torch.rand(weight.shape, generator=generator)
    save_file(tensors, Path(entry.path) / STATE)
    optimizer = {"kind": "adam", "learning_rate": 1e-3, "state": STATE}
    return workspace.add_checkpoint(
        "trained", model=Path(entry.path), kind=entry.kind, preparation=entry.preparation, optimizer=optimizer
    ).name


# Rates at which shifts stand out of rounding: T5's norms and ViT's softmax stay in single precision in transformers.
@pytest.mark.parametrize(("family", "rate"), [("t5", 0.05), ("resnet", 1e-3), ("vit", 1e-3)])
def test_fading_with_the_checkpoints_own_state(family, rate, home, tmp_path):
    checkpoint = save_family(tmp_path / "model", family)
    train, test = write_family_data(tmp_path / "data", family, train_rows=32, test_rows=12)
    asked = OpenSpec(checkpoint=str(checkpoint), data=str(train), test=str(test), scope="last:1")
    workspace = Workspace.open(list(open_workspace(asked, tmp_path / "opening"))[-1].value["workspace"])
    name = with_state(workspace)
    options = {**EXACT, "optimizer": "checkpoint", "checkpoint": name, "repeats": 1, "learning_rate": rate}
    found = value(workspace, tmp_path, **options, methods=("tracin", "tracin-adam", "random"))
    assert (found["optimizer"], found["states"], found["checkpoint"]) == ("adam", ["checkpoint"], "trained")
    tracin, adam, random = (row["r"] for row in found["methods"])
    assert adam[0] >= 0.999  # one step of Adam from this state is what its metric says
    assert adam[0] > max(tracin[0], random[0])
    # the first step has taken 1 − β1 of what momentum will pass on
    assert found["methods"][1]["slope"][0] == pytest.approx(0.1, rel=0.05)
    spec = FadingSpec(workspace=workspace.name, **options | {"dtype": None})
    setting = last(through(open_setting(workspace, spec), Setting))
    kept = load_file(Path(workspace.checkpoint(name).path) / STATE)
    assert setting.source == "checkpoint"
    for parameter, moment in setting.state.exp_avg_sq.items():
        torch.testing.assert_close(moment, kept[f"exp_avg_sq.{parameter}"])


def test_two_checkpoints_of_one_training_and_their_sum(opened, tmp_path):
    """Fig. 6: a later checkpoint, and TracIn over both (Eq. 2), each on trajectories from where they start."""
    keep_epochs(opened, [0.3, 0.1])
    options = {**EXACT, "optimizer": "sgd", "repeats": 2, "learning_rate": 1e-3}
    found = {
        name: value(opened, tmp_path, **options, checkpoint=name, methods=("tracin", "tracin-multi"))
        for name in ("epoch-1", "epoch-2")
    }
    for name, study in found.items():
        single, both = study["methods"]
        assert study["checkpoint"] == name
        assert single["r"][0] >= 0.9999
        assert 0.9 < both["r"][0] < single["r"][0]  # it asks other weights as well
    assert found["epoch-1"]["methods"][0]["r"] != found["epoch-2"]["methods"][0]["r"]
    assert found["epoch-1"]["rows"] == found["epoch-2"]["rows"]


def test_over_checkpoints_of_equal_weights_the_first_step_is_what_eq_2_says(opened, tmp_path):
    """DEFINITIONS, R(1): near 1 for plain SGD; the slope is η of the trajectory ÷ Σ η_i of the scores."""
    entry = opened.checkpoint()
    for number, rate in enumerate((0.1, 0.3), start=1):
        opened.add_checkpoint(
            f"epoch-{number}",
            model=Path(entry.path),
            kind=entry.kind,
            preparation=entry.preparation,
            optimizer={"kind": "sgd", "learning_rate": rate},
            notes={"recipe": "r", "epoch": number},
        )
    options = {**EXACT, "optimizer": "sgd", "repeats": 1, "steps": 1, "checkpoint": "epoch-2"}
    for rate in (1e-2, 1e-3):
        (row,) = value(opened, tmp_path, **options, learning_rate=rate, methods=("tracin-multi",))["methods"]
        assert 1 - row["r"][0] <= 10 * rate**2
        assert row["slope"][0] == pytest.approx(rate / 0.4, rel=rate)


def test_a_warmed_state_is_of_its_precision_and_single_precision_keeps_its_key(opened):
    spec = DivergenceSpec(workspace=opened.name, optimizer="adam", batch_size=16)
    setting = last(through(open_setting(opened, spec), Setting))
    (found,) = opened.artefacts.find("warm")
    assert "dtype" not in found[1]  # as in states that were made before
    before = {**base_key(opened, None, None), "batch_size": 16, "batches": WARM_BATCHES, "seed": 0, "dropout": True}
    assert found[1].items() >= before.items()
    double = in_precision(setting.opened, torch.float64)
    rows = type(setting.step.rows)(double.classifier, setting.step.rows.items, setting.step.rows.labels)
    step = TrainingStep(double.classifier, double.scope, setting.step.optimizer, rows, 16, 0)
    parameters = double.classifier.parameters(double.scope)
    start = last(through(start_state(opened, opened.checkpoint(), step, parameters, "warm"), Start))
    assert {moment.dtype for moment in start.state.exp_avg_sq.values()} == {torch.float64}
    keys = [key.get("dtype") for _, key in opened.artefacts.find("warm")]
    assert sorted(keys, key=str) == [None, "torch.float64"]
    for name, moment in setting.state.exp_avg_sq.items():
        np.testing.assert_allclose(moment, start.state.exp_avg_sq[name], rtol=1e-2, atol=1e-9)
