"""The whole journey for every kind of classifier: open, rank by TracIn and ABIF, correct, keep, go on."""

import numpy as np
import pytest
import torch
from family_checkpoints import FAMILIES, save_family, write_family_data
from homes import living_in

from influence_core.correction.halves import nearest_half
from influence_core.data.opening import run as open_workspace
from influence_core.events import Result, Step
from influence_core.home import read_json
from influence_core.models.loading import load, rows_of
from influence_core.similar import features
from influence_core.specs import OpenSpec
from influence_core.workspace import Workspace

INDEX = {"k": 3, "iterations": 6, "hessian_rows": 16}
KINDS = {"t5": "seq2seq", "torchvision": "image", "resnet": "image", "vit": "image"}


@pytest.fixture(scope="module", params=FAMILIES)
def journey(request, tmp_path_factory):
    """One family's workspace in a home of its own, with its name and files."""
    family = request.param
    place = tmp_path_factory.mktemp(family)
    with living_in(place / "home"):
        checkpoint = save_family(place / "model", family)
        train, test = write_family_data(place / "data", family)
        spec = OpenSpec(checkpoint=str(checkpoint), data=str(train), test=str(test), scope="last:1")
        value = list(open_workspace(spec, place / "result"))[-1].value
        yield family, Workspace.open(value["workspace"]), value


def test_opening_predicts_with_the_classes_of_the_checkpoint(journey):
    family, workspace, value = journey
    assert value["classes"] == ["negative", "positive"]
    assert workspace.checkpoint().kind == KINDS.get(family, "text")
    assert value["rows"]["train"] == len(workspace.train) > 0
    frame = workspace.examples("test")
    assert value["accuracy"] == pytest.approx((frame["prediction"] == frame["label"]).mean())
    probabilities = frame[["p0", "p1"]].to_numpy()
    assert np.allclose(probabilities.sum(1), 1)


def example_of(workspace: Workspace) -> str:
    """A mispredicted test row that is not far from its flip."""
    wrong = workspace.mispredictions()
    assert len(wrong), "the tiny model has to get something wrong"
    return str(wrong["id"].iloc[-1])


def test_tracin_is_the_product_of_two_gradients_and_abif_an_index(journey):
    _, workspace, _ = journey
    example = example_of(workspace)
    tracin = workspace.rank(example, method="tracin", by="score", top=len(workspace.train))
    built = workspace.index(**INDEX)
    assert built["rows"] == len(workspace.train)
    abif = workspace.rank(example, method="abif", settings=INDEX)
    scores = [row.score for row in tracin.proponents]
    assert scores == sorted(scores, reverse=True)
    assert np.isfinite(scores).all()
    assert np.isfinite([row.cosine for row in abif.proponents]).all()

    # the oracle: autograd, one row at a time, through the loaded classifier
    classifier = load(workspace)
    scope = classifier.scope("last:1")
    own = dict(classifier.module.named_parameters())

    def gradient(example: str, label: int) -> torch.Tensor:
        split, row = workspace.locate(example)
        batch = rows_of(workspace, classifier, split).batch([row], [label])
        leaves = {name: own[name].detach().clone().requires_grad_() for name in scope.parameters}
        found = torch.autograd.grad(classifier.losses(batch, leaves).sum(), list(leaves.values()))
        return torch.cat([part.flatten().double() for part in found])

    target = gradient(example, workspace.label_index(tracin.target))
    for ranked in [*tracin.proponents[:3], *tracin.opponents[:3]]:
        _, row = workspace.locate(ranked.id)
        expected = float(target @ gradient(ranked.id, int(workspace.train["label"].iloc[row])))
        assert ranked.score == pytest.approx(expected, rel=2e-3, abs=1e-5 * float(target @ target))


def test_a_correction_flips_and_what_is_kept_is_a_checkpoint_like_the_first(journey, tmp_path):
    _, workspace, _ = journey
    example = example_of(workspace)
    steps, result = [], None
    options = {"method": "tracin", "optimizer": "sgd", "learning_rate": 0.05, "k": 8, "batch_size": 8, "share": 0.9}
    for event in workspace.correct(example, tmp_path / "run", **options):
        if isinstance(event, Step):
            steps.append(event)
        elif isinstance(event, Result):
            result = event.value
    assert result is not None
    assert steps[0].divergence == 0
    assert steps[-1].divergence > 0
    assert steps[-1].loss < steps[0].loss
    # the half of the retention rows that is near by the features that predicting keeps
    manifest, own = read_json(tmp_path / "run" / "manifest.json"), features(workspace, "test")
    rows, near = manifest["retention_rows"], manifest["near_rows"]
    wanted = nearest_half(own[[workspace.locate(each)[1] for each in rows]], own[[workspace.locate(example)[1]]])
    differ = {each for each, half in zip(rows, wanted, strict=True) if half} ^ set(near)
    assert len(near) == (len(rows) + 1) // 2
    assert len(differ) <= 2  # the two around the median, which half precision may exchange
    kept = workspace.keep(tmp_path / "run", "kept")
    parent = workspace.checkpoint()
    assert (kept.kind, kept.preparation, kept.parent) == (parent.kind, parent.preparation, parent.name)
    frame = workspace.examples("test", "kept")
    row = frame[frame["id"] == example].iloc[0]
    assert (row["prediction"] == row["label"]) == result["flipped"]
    # read from disk again, the kept checkpoint predicts what the run predicted at its end
    with torch.no_grad():
        classifier = load(workspace, "kept")
        split, number = workspace.locate(example)
        logits = classifier.logits(rows_of(workspace, classifier, split).batch([number]))[0]
    assert float(logits.double().softmax(0)[row["label"]]) == pytest.approx(steps[-1].probability, abs=1e-5)
