"""Scores against slow, plain computations on a real tiny workspace."""

import diskcache
import numpy as np
import pytest
import torch
from torch import nn

from influence_core.attribution import cache
from influence_core.attribution.abif import Abif, has_basis
from influence_core.attribution.base import Query, Ready
from influence_core.attribution.hessian import hessian_numbers
from influence_core.attribution.indexing import index_key
from influence_core.attribution.projection import Projection
from influence_core.attribution.tables import IndexArrays, Table
from influence_core.attribution.tracin import TracIn
from influence_core.errors import UserError
from influence_core.gradients.rows import row_gradients
from influence_core.models.classifier import Batch, Classifier, Rows
from influence_core.models.loading import rows_of
from influence_core.specs import IndexSpec, RankSpec


def gradients(work: Projection, items, labels) -> np.ndarray:
    """Loss gradients of single rows, one by one, [n, P] float64."""
    rows = Rows(work.opened.whole, items, labels)
    out = []
    for row in range(len(labels)):
        own = row_gradients(work.opened.whole, work.scope, rows.batch([row]))
        out.append(torch.cat([own[name][0].flatten() for name in work.scope.parameters]).double().numpy())
    return np.stack(out)


@pytest.fixture
def work(opened) -> Projection:
    return Projection(opened, None, None)


@pytest.fixture
def train_gradients(opened, work) -> np.ndarray:
    rows = rows_of(opened, work.opened.whole, "train")
    return gradients(work, rows.items, rows.labels)


def query_gradient(opened, work, example, target) -> np.ndarray:
    split, row = opened.locate(example)
    return gradients(work, [rows_of(opened, work.opened.whole, split).items[row]], [target])[0]


def by_id(ranking) -> dict:
    return {row.id: row for row in [*ranking.proponents, *ranking.opponents]}


def test_tracin_is_the_product_of_loss_gradients(opened, work, train_gradients):
    example = opened.mispredictions()["id"].iloc[0]
    target = int(opened.mispredictions()["prediction"].iloc[0])
    ranking = opened.rank(example, method="tracin", top=120)
    expected = train_gradients @ query_gradient(opened, work, example, target)
    norms = np.linalg.norm(train_gradients, axis=1) * np.linalg.norm(query_gradient(opened, work, example, target))
    found = by_id(ranking)
    assert len(found) == 120
    assert ranking.target == opened.label_names[target]
    scores = np.array([found[example].score for example in opened.train["id"]])
    cosines = np.array([found[example].cosine for example in opened.train["id"]])
    np.testing.assert_allclose(scores, expected, rtol=2e-4, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(cosines, expected / norms, atol=1e-5)
    assert [row.cosine for row in ranking.proponents] == sorted((c for c in cosines if c > 0), reverse=True)
    assert [row.cosine for row in ranking.opponents] == sorted(c for c in cosines if c < 0)
    by_score = opened.rank(example, method="tracin", top=3, by="score")
    best = np.argsort(-scores, kind="stable")[:3]
    assert [row.id for row in by_score.proponents] == opened.train["id"].iloc[best].tolist()
    assert by_score.proponents[0].percentile == pytest.approx(100 * 119 / 120)


def test_the_sign_on_a_one_parameter_model_done_by_hand():
    """Logits (0, w·x), w = 0: p = 1/2, so g = −x/2 for class 1 and x/2 for class 0.

    For z = (x 1, class 1): g_z = −1/2. A row (x 2, class 1) has g = −1: score 1/2 > 0, a proponent; a
    step on it raises w and lowers l_z. A row (x 2, class 0) has g = 1: score −1/2, an opponent.
    """

    class OneWeight(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(1, 1, bias=False)
            nn.init.zeros_(self.line.weight)

        def forward(self, x):
            return torch.cat([torch.zeros_like(x), self.line(x)], dim=1)

    classifier = Classifier(OneWeight().double(), ["no", "yes"])
    scope = classifier.scope("all")

    def batch(x, label):
        return Batch({"x": torch.tensor([[float(x)]], dtype=torch.float64)}, torch.tensor([label]))

    z = row_gradients(classifier, scope, batch(1, 1))["line.weight"][0]
    assert float(z) == pytest.approx(-0.5)
    products = [float(z * row_gradients(classifier, scope, batch(2, y))["line.weight"][0]) for y in (1, 0)]
    ready = Ready(
        {"norms": np.array([1.0, 1.0]), "labels": np.array([1, 0])},
        {"products": np.array(products), "norm": np.array([0.5])},
        {},
        "",
        {"eta": 1.0},
        "",
    )
    scores = TracIn().scores(ready)
    np.testing.assert_allclose(scores.scores, [0.5, -0.5])
    np.testing.assert_allclose(scores.cosines, [1, -1])
    epsilon = 1e-6  # one step of size 1 on ε·l_x changes l_z by −ε·score
    for label, score in ((1, 0.5), (0, -0.5)):
        gradient = row_gradients(classifier, scope, batch(2, label))["line.weight"][0]
        after = classifier.losses(batch(1, 1), {"line.weight": -epsilon * gradient})
        before = classifier.losses(batch(1, 1))
        assert float((after - before).detach()) == pytest.approx(-epsilon * score, rel=1e-4)


def dense_hessian(work: Projection, items, labels) -> np.ndarray:
    """∇² of the mean loss by autograd's own dense function, [P, P]: slow, and independent of our products."""
    from torch.autograd.functional import hessian

    batch = Rows(work.opened.whole, items, labels).batch(range(len(labels)))
    own = work.opened.whole.parameters(work.scope)
    sizes = [own[name].numel() for name in work.scope.parameters]

    def loss(flat):
        parts = flat.split(sizes)
        given = {n: p.view_as(own[n]) for n, p in zip(work.scope.parameters, parts, strict=True)}
        return work.opened.whole.losses(batch, given).mean()

    flat = torch.cat([own[name].flatten() for name in work.scope.parameters])
    return hessian(loss, flat).double().numpy()


def test_abif_from_the_index_equals_the_truncated_eigen_sum_of_a_dense_hessian(opened, work, train_gradients):
    opened_head = {"scope": "head", "k": 6, "iterations": 60, "hessian_rows": 40}
    summary = opened.index(**opened_head)
    work = Projection(opened, None, "head")
    rows = rows_of(opened, work.opened.whole, "train")
    spec = IndexSpec(workspace=opened.name, **opened_head)
    numbers = hessian_numbers(len(rows), spec.hessian_rows, spec.seed)
    values, vectors = np.linalg.eigh(dense_hessian(work, [rows.items[row] for row in numbers], rows.labels[numbers]))
    order = np.argsort(-np.abs(values))[:6]
    np.testing.assert_allclose(summary["eigenvalues"], values[order], rtol=1e-3, atol=1e-5)
    assert summary["negative"] == (values[order] < 0).sum()
    example, target = opened.mispredictions()["id"].iloc[0], int(opened.mispredictions()["prediction"].iloc[0])
    ranking = opened.rank(example, method="abif", scope="head", top=120)
    train = gradients(work, rows.items, rows.labels) @ vectors[:, order]
    query = query_gradient(opened, work, example, target) @ vectors[:, order]
    expected = (train * query / values[order]).sum(1)
    half = 1 / np.sqrt(np.abs(values[order]))
    cosines = expected / (np.linalg.norm(train * half, axis=1) * np.linalg.norm(query * half))
    found = by_id(ranking)
    scores = np.array([found[example].score for example in opened.train["id"]])
    assert np.corrcoef(scores, expected)[0, 1] > 0.9999
    np.testing.assert_allclose(scores, expected, rtol=0.02, atol=0.01 * np.abs(expected).max())
    np.testing.assert_allclose([found[e].cosine for e in opened.train["id"]], cosines, atol=0.02)


def test_negative_eigenvalues_keep_their_sign():
    ready = Ready(
        {"products": np.array([[1.0, 2.0], [0.0, 0.0]]), "labels": np.zeros(2, int), "values": np.array([2.0, -4.0])},
        {"products": np.array([3.0, 5.0])},
        {},
        "",
        {},
        "",
    )
    scores = Abif().scores(ready)
    np.testing.assert_allclose(scores.scores, [3 / 2 - 10 / 4, 0])
    norms = np.sqrt(1 / 2 + 4 / 4) * np.sqrt(9 / 2 + 25 / 4)
    np.testing.assert_allclose(scores.cosines, [-1 / norms, 0])
    assert scores.zero_norm.tolist() == [False, True]


def test_the_default_method_is_abif_once_an_index_exists(opened):
    example = opened.mispredictions()["id"].iloc[0]
    assert opened.rank(example).method == "tracin"
    opened.index(k=3, iterations=6, hessian_rows=20)
    assert opened.rank(example).method == "abif"


def test_an_interrupted_index_goes_on_with_the_shards_that_are_missing(opened, monkeypatch):
    monkeypatch.setattr("influence_core.attribution.tables.SHARD", 50)
    monkeypatch.setattr("influence_core.attribution.projection.SHARD", 50)
    options = {"k": 3, "iterations": 6, "hessian_rows": 20}
    opened.index(**options)
    key = index_key(opened, IndexSpec(workspace=opened.name, **options))
    table = Table(opened.artefacts.path("abif", key), key)
    index = IndexArrays(table.folder, 120, 3)
    whole = index.read("products").copy()
    index.array("products")[50:100] = 0
    index.array("done")[1] = 0
    (table.folder / "manifest.json").unlink()
    projected: list[int] = []
    original = Projection.project

    def watched(self, numbers, *rest):
        projected.extend(numbers.tolist())
        return original(self, numbers, *rest)

    monkeypatch.setattr(Projection, "project", watched)
    opened.index(**options)
    assert projected == list(range(50, 100))
    np.testing.assert_array_equal(index.read("products"), whole)


def test_a_relabelled_row_is_stale_until_refreshed_and_no_other(opened):
    example = opened.mispredictions()["id"].iloc[0]
    options = {"k": 3, "iterations": 6, "hessian_rows": 20}
    opened.index(**options)
    before = {method: by_id(opened.rank(example, method=method, top=120)) for method in ("tracin", "abif")}
    row = opened.train["id"].iloc[7]
    old = opened.label_names[int(opened.labels().values[7])]
    new = next(name for name in opened.label_names if name != old)
    opened.relabel(row, new, expect=old, annotator="ann")
    for method in ("tracin", "abif"):
        kept = opened.rank(example, method=method, top=120)
        assert kept.stale == 1
        assert by_id(kept)[row].stale
        assert by_id(kept)[row].label == new
        fresh = opened.rank(example, method=method, top=120, refresh=True)
        assert fresh.stale == 0
        assert fresh.cursor == 1
        now_ = by_id(fresh)
        for other in opened.train["id"]:
            same = now_[other].score == pytest.approx(before[method][other].score, rel=1e-5, abs=1e-9)
            assert same == (other != row), other
    assert np.sign(by_id(opened.rank(example, method="tracin", top=120))[row].score) == -np.sign(
        before["tracin"][row].score
    )  # two classes: the other label's gradient points the other way


def test_ready_answers_without_computing_and_only_when_everything_is_kept(opened):
    example = opened.mispredictions()["id"].iloc[0]
    spec = RankSpec(workspace=opened.name, example=example, method="tracin")
    assert opened.ready(spec) is None
    ranking = opened.rank(example, method="tracin")
    assert ranking.fresh
    again = opened.ready(spec)
    assert again is not None
    assert again.model_copy(update={"fresh": True}) == ranking
    assert opened.ready(spec.model_copy(update={"target": "gold"})) is None


def test_errors_name_what_to_do(opened):
    example = opened.mispredictions()["id"].iloc[0]
    with pytest.raises(UserError, match=r"no ABIF index .* build it"):
        opened.rank(example, method="abif")
    with pytest.raises(UserError, match="there is no example 'nobody'"):
        opened.rank("nobody")
    with pytest.raises(UserError, match="is a training row"):
        opened.rank(opened.train["id"].iloc[0])
    with pytest.raises(UserError, match="no label 'sideways'"):
        opened.rank(example, target="sideways")
    with pytest.raises(UserError, match="hessian_rows = 500 but there are 120"):
        opened.index(hessian_rows=500)
    with pytest.raises(UserError, match="asks for 9 blocks, the model has 2"):
        opened.rank(example, method="tracin", scope="last:9")
    opened.index(k=3, iterations=6, hessian_rows=20)
    table = Abif().table(opened, RankSpec(workspace=opened.name, example=example))
    assert has_basis(table)
    (table.folder / "basis.safetensors").unlink()
    with pytest.raises(UserError, match="eigenvectors, which the shipped index leaves out"):
        opened.rank(example, method="abif")


def test_products_do_not_depend_on_batches(opened, monkeypatch):
    example, query = opened.mispredictions()["id"].iloc[0], None
    query = Query(example, int(opened.mispredictions()["prediction"].iloc[0]))
    found = []
    for size in (7, 64, 120):
        monkeypatch.setattr("influence_core.attribution.projection.BATCH", size)
        work = Projection(opened, None, None)
        directions, _ = work.query_directions([query])
        labels = opened.labels().values
        dots = np.zeros(120)
        for piece in work.project(np.arange(120), directions, labels, ""):
            if hasattr(piece, "where"):
                dots[piece.where] = piece.dots[:, 0]
        found.append(dots)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[0], found[2], rtol=1e-4, atol=1e-6)


def test_the_cache_refuses_pickles_in_and_out(home, tmp_path):
    with diskcache.Cache(str(tmp_path / "planted")) as plain:
        plain["key"] = {"a": 1}  # pickled by diskcache's own Disk
        plain[("tuple", 1)] = b"bytes"
    with diskcache.Cache(str(tmp_path / "planted"), disk=cache.BytesDisk) as refusing:
        with pytest.raises(ValueError, match="refused"):
            refusing.get("key")
        with pytest.raises(ValueError, match="refused"):
            list(refusing)
        with pytest.raises(TypeError, match="must be bytes"):
            refusing["other"] = [1, 2]
        with pytest.raises(TypeError, match="must be text"):
            refusing[3] = b"x"
        refusing["good"] = b"bytes"
        assert refusing["good"] == b"bytes"


def test_a_rebuilt_basis_starts_the_index_and_its_queries_over(opened):
    example = opened.mispredictions()["id"].iloc[0]
    options = {"k": 3, "iterations": 6, "hessian_rows": 20}
    opened.index(**options)
    before = opened.rank(example, method="abif", top=120)
    names = opened.label_names
    for row in range(0, 60, 2):
        old = names[int(opened.labels().values[row])]
        new = next(name for name in names if name != old)
        opened.relabel(opened.train["id"].iloc[row], new, expect=old, annotator="ann")
    opened.index(**options)  # finished: nothing is built again
    assert opened.rank(example, method="abif").stale == 30
    rebuilt = opened.index(**options, rebuild=True)
    after = opened.rank(example, method="abif", top=120)
    assert after.stale == 0
    assert after.fresh  # the query was projected on the new basis
    assert by_id(after)[opened.train["id"].iloc[0]].score != by_id(before)[opened.train["id"].iloc[0]].score
    key = index_key(opened, IndexSpec(workspace=opened.name, **options))
    table = Table(opened.artefacts.path("abif", key), key)
    (table.folder / "basis.safetensors").unlink()
    assert opened.index(**options)["eigenvalues"] == pytest.approx(rebuilt["eigenvalues"], rel=1e-4)
    assert table.query(Query(example, 0)) is None
    assert table.query(Query(example, 1)) is None


def test_eigenvalues_that_are_zero_up_to_rounding_are_left_out(opened):
    options = {"k": 3, "iterations": 6, "hessian_rows": 20}
    opened.index(**options)
    example = opened.mispredictions()["id"].iloc[0]
    opened.rank(example, method="abif")
    key = index_key(opened, IndexSpec(workspace=opened.name, **options))
    table = Table(opened.artefacts.path("abif", key), key)
    values = table.manifest["eigenvalues"]
    table.finish({**table.manifest, "eigenvalues": [values[0], values[1], 0.0]})
    ranking = opened.rank(example, method="abif", top=120)
    assert ranking.notes["left_out"] == 1
    assert all(np.isfinite(row.score) for row in [*ranking.proponents, *ranking.opponents])


def test_the_hessian_sample_is_256_rows_or_all_there_are(opened):
    key = index_key(opened, IndexSpec(workspace=opened.name))
    assert key["hessian_rows"] == 120
    numbers = hessian_numbers(1000, 256, seed=0)
    assert len(set(numbers.tolist())) == 256
    np.testing.assert_array_equal(numbers, hessian_numbers(1000, 256, seed=0))
    assert not np.array_equal(numbers, hessian_numbers(1000, 256, seed=1))
