"""The Fashion-MNIST demo, as shipped: Debian's images, the small ResNet, its index."""

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

from influence_core.attribution.abif import Abif
from influence_core.attribution.hessian import sampled_hessian
from influence_core.attribution.projection import Projection
from influence_core.curvature.flat import directions_from_flat
from influence_core.curvature.hvp import HessianOperator
from influence_core.curvature.lanczos import Eigenpairs, lanczos
from influence_core.demo.fashion import FASHION
from influence_core.demo.prepare import prepare, queries
from influence_core.events import Progress, Result
from influence_core.home import read_json
from influence_core.models.classifier import Rows
from influence_core.models.loading import load
from influence_core.models.predict import Predictions, predict
from influence_core.specs import RankSpec
from influence_core.workspace import Workspace

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def demo_home(tmp_path_factory):
    return tmp_path_factory.mktemp("fashion-home")


@pytest.fixture
def demo(demo_home, monkeypatch) -> Workspace:
    """The demo workspace, prepared once for this file."""
    monkeypatch.setenv("INFLUENCE_HOME", str(demo_home))
    monkeypatch.delenv("INFLUENCE_DATABASE_URL", raising=False)
    last = list(prepare("fashion-mnist"))[-1]
    assert isinstance(last, Result)
    return Workspace.open("demo:fashion-mnist")


def predicted(demo: Workspace, split: str, count: int) -> tuple[Predictions, np.ndarray]:
    """Predict some rows of a split anew; returns them with the rows' numbers."""
    frame = demo.dataset.splits[split]
    chosen = np.random.default_rng(0).choice(len(frame), count, replace=False)
    part = frame.iloc[chosen]
    classifier = load(demo)
    rows = Rows(classifier, classifier.encode(part["image"]), part["label"].to_numpy())
    return next(event for event in predict(classifier, rows) if isinstance(event, Predictions)), chosen


def test_all_that_is_shipped_fits_in_three_megabytes():
    assert sum(file.stat().st_size for file in FASHION.folder.iterdir()) <= 3 * MEGABYTE


def test_rows_and_classes(demo):
    sizes = {split: len(frame) for split, frame in demo.dataset.splits.items()}
    assert sizes == {"train": 10_000, "validation": 2_000, "test": 10_000}
    assert demo.dataset.modality == "image"
    assert demo.label_names[0] == "T-shirt/top"
    assert demo.image(demo.train["id"].iloc[0]).size == (28, 28)


def test_the_shipped_checkpoint_has_its_shipped_predictions(demo):
    """A fresh pass over 300 test rows; the accuracy over all of them from the shipped table."""
    table = demo.predictions("test")
    right = (table["prediction"].to_numpy() == demo.dataset.splits["test"]["label"].to_numpy()).mean()
    assert right == read_json(FASHION.recipe_file)["accuracy"]["test"]
    assert right >= 0.86
    found, chosen = predicted(demo, "test", 300)
    columns = [f"p{label}" for label in range(10)]
    np.testing.assert_allclose(found.probabilities, table[columns].to_numpy()[chosen], atol=1e-3)
    fresh = found.probabilities.argmax(1) == demo.dataset.splits["test"]["label"].to_numpy()[chosen]
    assert fresh.mean() >= 0.82  # 300 rows of 89 %: three standard errors


def test_every_misprediction_has_its_rankings_at_once(demo):
    wrong = demo.mispredictions()
    assert len(wrong) == round(10_000 * (1 - demo.checkpoint().accuracy["test"]))
    for target in ("predicted", "gold"):
        ranking = demo.ready(RankSpec(workspace=demo.name, example=wrong["id"].iloc[-1], target=target))
        assert ranking is not None
        assert len(ranking.proponents) == len(ranking.opponents) == 50
    table = Abif().table(demo, RankSpec(workspace=demo.name, example=wrong["id"].iloc[0], method="abif"))
    assert table is not None
    asked = queries(demo)
    assert {(query.example, query.target) for query in asked} == {
        (row.id, target) for row in wrong.itertuples() for target in (row.prediction, row.label)
    }
    assert all(table.query(query) is not None for query in asked)


def test_shipped_products_are_those_of_eigenvectors_found_anew(demo):
    """The leading eigenvectors from 24 iterations; one query's and 200 training rows' products, up to their signs."""
    shown = 4
    asked = queries(demo)[40]
    shipped = Abif().ready(demo, RankSpec(workspace=demo.name, example=asked.example, method="abif"), asked)
    assert shipped is not None
    assert shipped.notes["origin"] == "shipped"
    work = Projection(demo, None, None, few=True)
    sampled = finished(sampled_hessian(work, None, None, seed=0))
    found = through_lanczos(sampled.operator, k=shown, iterations=24)
    np.testing.assert_allclose(found.values.double().numpy(), shipped.table["values"][:shown], rtol=1e-3)
    basis = directions_from_flat(found.vectors, work.classifier.parameters(work.scope))
    rows = np.arange(0, 10_000, 50)
    dots, _ = finished(work.collect(rows, basis, demo.labels().values, ""))
    query = finished(work.project_queries([asked], basis))[0]
    for place in range(shown):
        expected = np.append(shipped.table["products"][rows, place], shipped.query["products"][place])
        own = np.append(dots[:, place], query[place])
        own *= np.sign(own @ expected)
        np.testing.assert_allclose(own, expected, rtol=2e-2, atol=5e-3 * np.abs(expected).max())


def finished(steps: Generator[Progress, None, Any]) -> Any:
    """Run a generator to its end; return what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def through_lanczos(operator: HessianOperator, k: int, iterations: int) -> Eigenpairs:
    solving = lanczos(
        operator.matvec, operator.size, k=k, iterations=iterations, seed=0, dtype=operator.dtype, device=operator.device
    )
    return next(event for event in solving if isinstance(event, Eigenpairs))


def test_proponents_mostly_carry_the_predicted_label(demo):
    """By ABIF's cosine; of ten classes a tenth would by chance."""
    share = []
    for example in demo.mispredictions()["id"].head(20):
        ranking = demo.rank(example, method="abif", top=20)
        share += [row.label == ranking.target for row in ranking.proponents]
    assert np.mean(share) > 0.5


@pytest.mark.full
def test_rebuilt_scores_agree_with_the_shipped_ones(demo):
    from influence_core.demo.check import check

    value = list(check("fashion-mnist"))[-1].value
    assert all(value[name]["overlap"] >= 0.9 for name in ("abif_cosines", "abif_scores"))
