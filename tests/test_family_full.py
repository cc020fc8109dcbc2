"""The same journey at the real sizes of the published models, with random weights; only in ``make test-full``."""

import time

import numpy as np
import pytest
from family_checkpoints import FAMILIES, write_family_data
from real_checkpoints import SIZES, save_real

from influence_core.data.opening import run as open_workspace
from influence_core.events import Step
from influence_core.models.loading import load
from influence_core.specs import OpenSpec
from influence_core.workspace import Workspace

pytestmark = pytest.mark.full


@pytest.mark.parametrize("family", FAMILIES)
def test_open_rank_and_correct_at_real_size(family, home, tmp_path, record_property):
    started = time.monotonic()
    checkpoint = save_real(tmp_path / "model", family)
    train, test = write_family_data(tmp_path / "data", family, train_rows=48, test_rows=16)
    architecture = "resnet18" if family == "torchvision" else None
    spec = OpenSpec(
        checkpoint=str(checkpoint), architecture=architecture, data=str(train), test=str(test), scope="last:1"
    )
    value = list(open_workspace(spec, tmp_path / "result"))[-1].value
    workspace = Workspace.open(value["workspace"])
    assert sum(parameter.numel() for parameter in load(workspace).module.parameters()) == SIZES[family]
    example = workspace.mispredictions()["id"].iloc[-1]
    scores = [row.score for row in workspace.rank(example, method="tracin", by="score", top=48).proponents]
    assert np.isfinite(scores).all()
    assert scores == sorted(scores, reverse=True)
    built = workspace.index(k=3, iterations=6, hessian_rows=8)
    assert len(built["eigenvalues"]) == 3
    assert built["orthogonality"] < 1e-4
    ranking = workspace.rank(example, method="abif", settings={"k": 3, "iterations": 6, "hessian_rows": 8})
    assert np.isfinite([row.cosine for row in ranking.proponents]).all()
    options = {"method": "tracin", "optimizer": "sgd", "learning_rate": 1e-3, "k": 4, "batch_size": 4, "steps": 2}
    steps = [event for event in workspace.correct(example, **options) if isinstance(event, Step)]
    assert steps[0].divergence == 0
    assert steps[-1].divergence > 0
    record_property("seconds", round(time.monotonic() - started))
    print(f"{family}: {time.monotonic() - started:.0f} s")
