"""Both demos from their shipped indexes, and a fresh TracIn pass over 512 rows of each."""

import numpy as np
import pytest
import torch
from homes import living_in

from influence_core.attribution.base import Query
from influence_core.attribution.projection import Projection
from influence_core.data.dataset import words
from influence_core.demo.demos import demos
from influence_core.demo.prepare import prepare
from influence_core.events import Progress
from influence_core.models.loading import load, rows_of
from influence_core.specs import RankSpec
from influence_core.workspace import Workspace

ROWS = 512


@pytest.fixture(scope="module", params=sorted(demos()))
def demo(request, tmp_path_factory):
    with living_in(tmp_path_factory.mktemp("demo")):
        list(prepare(request.param))
        yield Workspace.open(request.param)


def test_every_misprediction_is_ranked_from_what_is_shipped(demo):
    wrong = demo.mispredictions()
    for example in wrong["id"].iloc[[0, len(wrong) // 2, -1]]:
        for target in ("predicted", "gold"):
            found = demo.ready(RankSpec(workspace=demo.name, example=example, method="abif", target=target))
            assert found is not None, (example, target)
            assert found.rows == len(demo.train)
            cosines = [row.cosine for row in found.proponents]
            assert cosines == sorted(cosines, reverse=True)
            _, row = demo.locate(found.proponents[0].id)
            assert found.proponents[0].text == words(demo.train, row)


def test_a_fresh_tracin_pass_over_512_rows(demo):
    example = demo.mispredictions().iloc[0]
    query = Query(str(example["id"]), int(example["prediction"]))
    work = Projection(demo, None, None, few=True)
    directions, norms = work.query_directions([query])
    labels = demo.train["label"].to_numpy()
    collecting = work.collect(np.arange(ROWS), directions, labels, "projecting")
    while True:
        try:
            assert isinstance(next(collecting), Progress)
        except StopIteration as end:
            dots, sqnorms = end.value
            break
    assert np.isfinite(dots).all()
    assert (np.abs(dots[:, 0]) <= norms[0] * np.sqrt(sqnorms) * (1 + 1e-4)).all()  # Cauchy and Schwarz
    # the oracle: the whole classifier's gradients, one row at a time
    classifier = load(demo)
    scope = classifier.scope(demo.scope)
    own = dict(classifier.module.named_parameters())

    def gradient(identity: str, label: int) -> torch.Tensor:
        split, row = demo.locate(identity)
        leaves = {name: own[name].detach().clone().requires_grad_() for name in scope.parameters}
        batch = rows_of(demo, classifier, split).batch([row], [label])
        found = torch.autograd.grad(classifier.losses(batch, leaves).sum(), list(leaves.values()))
        return torch.cat([part.flatten().double() for part in found])

    target = gradient(query.example, query.target)
    for row in (0, 255, ROWS - 1, int(np.argmax(dots[:, 0])), int(np.argmin(dots[:, 0]))):
        expected = float(target @ gradient(demo.train["id"].iloc[row], int(labels[row])))
        assert dots[row, 0] == pytest.approx(expected, rel=1e-3, abs=1e-5 * float(norms[0] * np.sqrt(sqnorms[row])))
