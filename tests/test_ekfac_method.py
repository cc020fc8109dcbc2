"""EK-FAC as a method, around a library that gives known scores."""

import numpy as np
import pytest

from influence_core.attribution import ekfac, ekfac_library
from influence_core.attribution.base import Query
from influence_core.attribution.ekfac_library import EkfacScores
from influence_core.attribution.methods import METHODS
from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.specs import RankSpec

N = 120
LEFT_OUT = ("embeddings.weight", "a.bias", "b.bias", "c.bias")


def features(rows, count=3):
    """Return a row of numbers for each item and label, [N, count], from their bytes and nothing else."""
    pairs = zip(rows.items, rows.labels, strict=True)
    seeds = [int(np.asarray(item, np.int64).sum()) * 2 + int(label) for item, label in pairs]
    return np.stack([np.random.default_rng(seed).normal(size=count) for seed in seeds])


class Library:
    """Stands for `ekfac_library.ekfac` with F + δ the identity on `features`; keeps what it was called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, classifier, scope, train, queries, sample, folder, *, damping, seed):
        folder.mkdir(parents=True, exist_ok=True)
        self.calls.append((train, queries, sample, folder, damping, seed))
        yield Progress(phase="EK-FAC: covariances", done=1, total=1, unit="stages")
        g_z, g_x = features(queries), features(train)
        squares = (g_z**2).sum(1), (g_x**2).sum(1)
        yield EkfacScores(pairwise=g_z @ g_x.T, queries=squares[0], train=squares[1], modules=("a",), left_out=LEFT_OUT)


@pytest.fixture
def library(monkeypatch):
    found = Library()
    monkeypatch.setattr(ekfac_library, "ekfac", found)
    monkeypatch.setattr(ekfac, "find_spec", lambda name: object())
    return found


def spec(opened, example, target, **options):
    name = opened.label_names[target]
    return RankSpec(workspace=opened.name, example=example, target=name, method="ekfac", **options)


def flip(opened, row):
    name = opened.train["id"].iloc[row]
    old = opened.label_names[opened.labels().values[row]]
    new = next(other for other in opened.label_names if other != old)
    opened.relabel(name, new, expect=old, annotator="tester")


def kept(opened, query):
    """Return (scores, cosines, labels) as the method combines what it keeps."""
    asked = spec(opened, query.example, query.target)
    ready = METHODS["ekfac"].ready(opened, asked, query)
    assert ready is not None
    found = METHODS["ekfac"].scores(ready)
    return found.scores, found.cosines, found.labels


def expected(library, call, place):
    train, queries = library.calls[call][:2]
    g_z, g_x = features(queries)[place], features(train)
    products = g_x @ g_z
    return products, products / np.linalg.norm(g_x, axis=1) / np.linalg.norm(g_z)


def test_scores_cosines_and_signs_are_the_librarys(opened, library):
    example = opened.mispredictions()["id"].iloc[0]
    ranking = opened.rank(example, target=opened.label_names[1], method="ekfac", settings={"rows": 20, "damping": 0.5})
    ((train, queries, sample, folder, damping, seed),) = library.calls
    assert (len(train), queries.labels.tolist(), len(sample), damping, seed) == (N, [1], 20, 0.5, 0)
    assert folder.parent.name == ekfac.FACTORS
    scores, cosines = expected(library, 0, 0)
    ids = opened.train["id"]
    for side, sign in ((ranking.proponents, 1), (ranking.opponents, -1)):
        order = [row for row in np.argsort(-sign * cosines, kind="stable") if sign * cosines[row] > 0][: len(side)]
        assert [row.id for row in side] == [ids[row] for row in order]
        np.testing.assert_allclose([row.score for row in side], scores[order], rtol=1e-5)
        np.testing.assert_allclose([row.cosine for row in side], cosines[order], rtol=1e-5)
    assert ranking.notes["left_out"] == {"count": 4, "first": list(LEFT_OUT[:3])}
    assert ranking.notes["prefix"] != "kept"
    assert not (opened.artefacts.folder / "prefix").exists()
    opened.rank(example, target=opened.label_names[1], method="ekfac", settings={"rows": 20, "damping": 0.5})
    assert len(library.calls) == 1


def test_to_refresh_one_query_scores_all_that_were_asked(opened, library):
    a, b, c = (Query(example, 1) for example in opened.dataset.splits["test"]["id"][:3])
    method = METHODS["ekfac"]
    asked = spec(opened, a.example, a.target)
    list(method.compute(opened, asked, [a, b]))
    list(method.compute(opened, asked, [c]))  # a later one, with the same factors
    assert library.calls[1][3] == library.calls[0][3]
    assert method.cost(opened, asked, [a, b, c], refresh=True) == method.cost(opened, asked, [a, b, c])
    list(method.compute(opened, asked, [a], refresh=True))  # nothing was relabelled
    assert len(library.calls) == 2
    before = kept(opened, b)
    flip(opened, 7)
    assert method.cost(opened, asked, [a], refresh=True).trained > 0
    list(method.compute(opened, asked, [a], refresh=True))
    assert len(library.calls) == 3
    assert set(library.calls[2][1].labels) == {1}
    assert len(library.calls[2][1]) == 3
    for place, query in enumerate((a, b, c)):
        scores, cosines, labels = kept(opened, query)
        products, angles = expected(library, 2, place)
        np.testing.assert_allclose(scores, products, rtol=1e-5)
        np.testing.assert_allclose(cosines, angles, rtol=1e-5)
        np.testing.assert_array_equal(labels, opened.labels().values)
    changed = np.flatnonzero(kept(opened, b)[0] != before[0])
    assert changed.tolist() == [7]
    assert [path.name for path in library.calls[2][3].parent.iterdir()] == [library.calls[2][3].name]


def test_a_new_query_is_scored_with_the_labels_of_the_table(opened, library):
    a, b = (Query(example, 0) for example in opened.dataset.splits["test"]["id"][:2])
    asked = spec(opened, a.example, a.target)
    list(METHODS["ekfac"].compute(opened, asked, [a]))
    flip(opened, 3)
    list(METHODS["ekfac"].compute(opened, asked, [b]))
    np.testing.assert_array_equal(library.calls[1][0].labels, library.calls[0][0].labels)
    np.testing.assert_array_equal(kept(opened, b)[2], kept(opened, a)[2])


def test_a_refresh_that_fails_loses_nothing(opened, library, monkeypatch):
    a, b = (Query(example, 0) for example in opened.dataset.splits["test"]["id"][:2])
    asked = spec(opened, a.example, a.target)
    list(METHODS["ekfac"].compute(opened, asked, [a, b]))
    before = kept(opened, b)
    flip(opened, 3)

    def broken(*_, **__):
        raise UserError("out of memory")
        yield

    monkeypatch.setattr(ekfac_library, "ekfac", broken)
    with pytest.raises(UserError, match="out of memory"):
        list(METHODS["ekfac"].compute(opened, asked, [a], refresh=True))
    for one, other in zip(kept(opened, b), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_the_library_it_is_not_offered_and_says_what_to_install(opened, monkeypatch):
    monkeypatch.setattr(ekfac, "find_spec", lambda name: None)
    example = opened.mispredictions()["id"].iloc[0]
    why = METHODS["ekfac"].unavailable(opened, spec(opened, example, 0))
    assert "pip install -r requirements-ekfac.txt" in str(why)
    with pytest.raises(UserError, match=r"ekfac cannot be used here: it needs the kronfluence library"):
        opened.rank(example, method="ekfac")
