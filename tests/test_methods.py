"""Every method on a real tiny workspace, against slow and plain computations."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_attribution import by_id, dense_hessian, gradients, query_gradient

from influence_core.attribution import gradient
from influence_core.attribution.base import Query
from influence_core.attribution.hessian import hessian_numbers
from influence_core.attribution.methods import METHODS
from influence_core.attribution.projection import Projection
from influence_core.attribution.ranking import largest
from influence_core.attribution.tracin_multi import epochs, steepest
from influence_core.errors import StaleError, UserError
from influence_core.estimates import estimate
from influence_core.models.loading import rows_of
from influence_core.settings import CONTROLS, METHOD_NAMES, METHOD_WORDS, SETTINGS
from influence_core.specs import ExplainSpec, RankSpec
from influence_core.trajectory.preconditioner import adam_metric
from influence_core.trajectory.start import Start, optimizer_of, start_state
from influence_core.trajectory.step import TrainingStep


@pytest.fixture
def wrong(opened):
    return opened.mispredictions().iloc[0]


def scores_of(opened, ranking) -> tuple[np.ndarray, np.ndarray]:
    """Scores and cosines in the order of the training rows; a zero stands in neither list."""
    found = by_id(ranking)
    rows = [found.get(example) for example in opened.train["id"]]
    return tuple(np.array([getattr(row, name, 0.0) for row in rows]) for name in ("score", "cosine"))


def all_gradients(opened, scope=None, checkpoint=None) -> tuple[Projection, np.ndarray]:
    work = Projection(opened, checkpoint, scope, few=True)
    rows = rows_of(opened, work.opened.whole, "train")
    return work, gradients(work, rows.items, rows.labels)


def keep_epochs(opened, rates) -> None:
    """Further checkpoints of the same training: the first one's weights, moved a little further each time."""
    base = load_file(f"{opened.checkpoint().path}/model.safetensors")
    for number, rate in enumerate(rates, start=1):
        folder = opened.path / "checkpoints" / f"epoch-{number}"
        folder.mkdir(parents=True)
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(f"{opened.checkpoint().path}/{file}", folder / file)
        moved = {name: value * (1 + 0.05 * number) if "classifier" in name else value for name, value in base.items()}
        save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
        optimizer = {"kind": "adam", "learning_rate": rate} if rate is not None else None
        opened.add_checkpoint(f"epoch-{number}", optimizer=optimizer, notes={"recipe": "same", "epoch": number})


def test_every_method_has_a_name_words_settings_and_a_class():
    assert METHODS.keys() == METHOD_NAMES.keys() == METHOD_WORDS.keys() == SETTINGS.keys()
    for settings in SETTINGS.values():
        for field in settings.model_fields.values():
            assert field.title
            assert field.description
            assert not field.is_required()
    assert {name for name, method in METHODS.items() if method.control} == set(CONTROLS)


def test_tracin_multi_is_the_sum_over_checkpoints(opened, wrong):
    keep_epochs(opened, [0.3, 0.1])
    names = ["epoch-1", "epoch-2"]
    options = {"method": "tracin-multi", "settings": {"names": names}, "top": 120}
    ranking = opened.rank(wrong["id"], **options)
    scores, cosines, rates = 0.0, 0.0, [0.3, 0.1]
    for name, rate in zip(names, rates, strict=True):
        work, own = all_gradients(opened, checkpoint=name)
        z = query_gradient(opened, work, wrong["id"], int(wrong["prediction"]))
        scores += rate * (own @ z)
        cosines += rate * (own @ z) / np.linalg.norm(own, axis=1) / np.linalg.norm(z) / sum(rates)
    found = scores_of(opened, ranking)
    np.testing.assert_allclose(found[0], scores, rtol=1e-3, atol=1e-4 * np.abs(scores).max())
    np.testing.assert_allclose(found[1], cosines, atol=1e-4)
    assert ranking.notes["checkpoints"] == names
    assert ranking.notes["eta_known"] is True
    assert opened.ready(RankSpec(workspace=opened.name, example=wrong["id"], **options)) is not None


def test_tracin_multi_picks_the_checkpoints_before_which_the_loss_fell_most(opened, wrong, monkeypatch):
    assert steepest([3.0, 1.0, 0.9, 0.3], 2) == [1, 3]
    assert steepest([3.0, 1.0, 0.9, 0.3], 9) == [0, 1, 2, 3]
    assert steepest([1.0, 2.0], 1) == [1]
    keep_epochs(opened, [0.3, 0.1])
    with pytest.raises(UserError, match=r"two or more checkpoints .* tiny-bert has no others"):
        opened.rank(wrong["id"], method="tracin-multi")  # of the first checkpoint, which is of no training
    of_none = RankSpec(workspace=opened.name, example=wrong["id"], method="tracin-multi")
    assert estimate(opened, of_none).seconds >= 0  # asked for before the refusal, by a study of several methods
    own = {"workspace": opened.name, "checkpoint": "epoch-2", "example": wrong["id"]}
    spec = RankSpec(**own, method="tracin-multi", settings={"count": 1})
    assert opened.ready(spec) is None
    before = estimate(opened, spec).seconds
    ranking = opened.rank(wrong["id"], checkpoint="epoch-2", method="tracin-multi", settings={"count": 1})
    losses = [opened.predictions("train", f"epoch-{number}")["loss"].mean() for number in (1, 2)]
    best = ranking.notes["checkpoints"]
    assert best == ["epoch-2"]  # the first has no fall before it
    assert ranking.checkpoint == "epoch-2"
    assert np.isfinite(losses).all()
    assert estimate(opened, spec).seconds < before
    unknown = opened.rank(wrong["id"], method="tracin-multi", settings={"names": ["epoch-1", opened.checkpoint().name]})
    assert unknown.notes["eta_known"] is False  # the first checkpoint records no learning rate
    assert unknown.notes["eta"] == [1.0, 1.0]
    with pytest.raises(UserError, match="no checkpoint 'epoch-9'"):
        opened.rank(wrong["id"], method="tracin-multi", settings={"names": ["epoch-9"]})


@pytest.mark.parametrize(
    ("more", "state", "power"), [({}, "warm", 1), ({"form": "twice", "state": "zeros"}, "zeros", 2)]
)
def test_tracin_adam_is_the_product_under_adams_metric(opened, wrong, monkeypatch, more, state, power):
    monkeypatch.setattr("influence_core.trajectory.start.WARM_BATCHES", 5)
    settings = {"batch_size": 16, "seed": 3, **more}
    ranking = opened.rank(wrong["id"], method="tracin-adam", settings=settings, top=120)
    work, own = all_gradients(opened)
    rows = rows_of(opened, work.opened.whole, "train")
    step = TrainingStep(rows.classifier, work.scope, optimizer_of(opened.checkpoint(), "adam"), rows, 16, 3)
    parameters = rows.classifier.parameters(work.scope)
    events = start_state(opened, opened.checkpoint(), step, parameters, settings.get("state"))
    start = next(event for event in events if isinstance(event, Start))
    assert start.source == state
    metric = adam_metric(step, parameters, start.state)
    p = torch.cat([metric[name].flatten() for name in work.scope.parameters]).double().numpy() ** power
    z = query_gradient(opened, work, wrong["id"], int(wrong["prediction"]))
    scores, cosines = scores_of(opened, ranking)
    expected = (own * p) @ z
    np.testing.assert_allclose(scores, expected, rtol=2e-3, atol=1e-3 * np.abs(expected).max())
    norms = np.sqrt((own * own * p).sum(1) * (z * z * p).sum())
    np.testing.assert_allclose(cosines, expected / norms, atol=2e-3)
    with pytest.raises(UserError, match="carries no Adam state"):
        opened.rank(wrong["id"], method="tracin-adam", settings={"state": "checkpoint"})


@pytest.mark.parametrize("method", ["hif-cr", "hif-cg"])
def test_hessian_based_scores_solve_the_damped_hessian(opened, wrong, method):
    damping = 0.5
    settings = {"damping": damping, "hessian_rows": 40, "iterations": 200, "tolerance": 1e-4}
    ranking = opened.rank(wrong["id"], method=method, settings=settings, scope="head", top=120)
    work, own = all_gradients(opened, "head")
    rows = rows_of(opened, work.opened.whole, "train")
    numbers = hessian_numbers(len(rows), 40, 0)
    h = dense_hessian(work, [rows.items[row] for row in numbers], rows.labels[numbers])
    z = query_gradient(opened, work, wrong["id"], int(wrong["prediction"]))
    x = np.linalg.solve(h + damping * np.eye(len(h)), z)
    scores, cosines = scores_of(opened, ranking)
    expected = own @ x
    np.testing.assert_allclose(scores, expected, rtol=5e-3, atol=2e-3 * np.abs(expected).max())
    np.testing.assert_allclose(cosines, expected / np.linalg.norm(own, axis=1) / np.linalg.norm(x), atol=2e-3)
    assert ranking.notes["converged"] is True
    assert ranking.notes["residual"] <= 2e-4
    kept = METHODS[method].ready(
        opened,
        RankSpec(workspace=opened.name, example=wrong["id"], method=method, settings=settings, scope="head"),
        Query(wrong["id"], int(wrong["prediction"])),
    )
    assert kept.query["residuals"][0] == pytest.approx(1)
    assert len(kept.query["curvatures"]) == len(kept.query["residuals"]) - 1
    smallest = np.linalg.eigvalsh(h)[0] + damping
    assert (ranking.notes["negative_at"] >= 0) <= (smallest < 0)


def test_a_solve_cut_short_says_so(opened, wrong):
    ranking = opened.rank(wrong["id"], method="hif-cr", settings={"iterations": 2, "hessian_rows": 40}, scope="head")
    assert ranking.notes["converged"] is False
    assert ranking.notes["residual"] > 1e-3


def test_controls(opened, wrong):
    ranking = opened.rank(wrong["id"], method="embedding", top=120)
    _, cosines = scores_of(opened, ranking)
    folder = opened.artefacts.path("predictions", opened.prediction_key("train"))
    train = np.load(folder / "features.npy").astype(float)
    folder = opened.artefacts.path("predictions", opened.prediction_key("test"))
    own = np.load(folder / "features.npy").astype(float)[opened.locate(wrong["id"])[1]]
    np.testing.assert_allclose(cosines, train @ own / np.linalg.norm(train, axis=1) / np.linalg.norm(own), atol=1e-9)
    drawn = [
        scores_of(opened, opened.rank(wrong["id"], method="random", settings=s, top=120))[0]
        for s in ({}, {}, {"seed": 1})
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert abs(np.corrcoef(drawn[0], drawn[2])[0, 1]) < 0.4
    assert np.abs(drawn[0]).max() <= 1
    assert abs(drawn[0].mean()) < 0.25


def test_self_influence(opened):
    _, own = all_gradients(opened)
    found = opened.suspects(method="tracin", top=120)
    squares = dict(zip(opened.train["id"], (own**2).sum(1), strict=True))
    assert [row.score for row in found.suspects] == pytest.approx([squares[row.id] for row in found.suspects], rel=1e-3)
    assert [row.score for row in found.suspects] == sorted((row.score for row in found.suspects), reverse=True)
    with pytest.raises(UserError, match="no ABIF index"):
        opened.suspects(method="abif")
    with pytest.raises(UserError, match="no self-influence"):
        opened.suspects(method="hif-cr")
    with pytest.raises(UserError, match="no self-influence"):
        opened.suspects(method="random")
    opened.index(k=6, iterations=40, hessian_rows=40, scope="head")
    example = opened.mispredictions()["id"].iloc[0]
    table = METHODS["abif"].table(opened, RankSpec(workspace=opened.name, example=example, scope="head"))
    values = np.array(table.manifest["eigenvalues"])
    from influence_core.attribution.abif import read_index

    index = read_index(table)
    expected = (index.products.astype(float) ** 2 / values).sum(1)
    by_index = {row.id: row.score for row in opened.suspects(method="abif", scope="head", top=120).suspects}
    np.testing.assert_allclose([by_index[example] for example in opened.train["id"]], expected, rtol=1e-9)


def test_mislabelled_rows_lead_the_suspects(opened):
    """A tenth of the tiny data's labels are wrong, and a wrong label's loss has a large gradient."""
    text = opened.train["text"]
    good = text.str.count("good|great|fine") > text.str.count("bad|poor|dull")
    wrong = set(opened.train["id"][good.to_numpy() != (opened.train["label"] == 1).to_numpy()])
    found = [row.id for row in opened.suspects(method="tracin", top=len(wrong)).suspects]
    assert len(wrong & set(found)) > 0.6 * len(wrong)


@pytest.mark.parametrize("method", ["tracin", "hif-cr"])
def test_many_queries_in_groups_equal_one_by_one(opened, method, monkeypatch):
    examples = opened.mispredictions()["id"].tolist()[:5]
    settings = {"damping": 0.5, "hessian_rows": 20} if method == "hif-cr" else {}
    options = {"method": method, "settings": settings, "scope": "head"}
    alone = opened.rank(examples[0], **options, top=120)
    work, _ = all_gradients(opened, "head")
    monkeypatch.setattr(gradient, "GROUP_BYTES", 2 * 4 * work.size)  # two queries a pass, solved one by one
    spec = ExplainSpec(workspace=opened.name, examples=tuple(examples), **options)
    cost = METHODS[method].cost(opened, spec, [Query(e, 0) for e in examples])
    assert [directions for _, directions in cost.projections] == [2, 2, 1]
    outcome = opened.explain(examples=examples, **options)
    assert (outcome["examples"], outcome["computed"]) == (5, 4)
    for example in examples:
        assert opened.ready(RankSpec(workspace=opened.name, example=example, **options)) is not None
    method_ = METHODS[method]
    target = int(opened.mispredictions()["prediction"].iloc[0])
    table = method_.table(opened, spec)
    table.query_file(Query(examples[0], target)).unlink()
    opened.explain(examples=examples[:2] + examples[3:], **options)
    again = opened.rank(examples[0], **options, top=120)
    np.testing.assert_allclose(scores_of(opened, again)[0], scores_of(opened, alone)[0], rtol=1e-3, atol=1e-5)
    assert opened.explain(examples=examples, **options)["computed"] == 0


def test_explaining_takes_all_mispredictions_and_refuses_strangers(opened):
    outcome = opened.explain(method="tracin", target="gold")
    assert outcome["examples"] == outcome["computed"] == len(opened.mispredictions())
    with pytest.raises(UserError, match="not in the test split"):
        opened.explain(method="tracin", examples=[opened.train["id"].iloc[0]])


@pytest.mark.parametrize("size", [7, 120])
def test_products_depend_neither_on_batches_nor_on_the_prefix(opened, wrong, size, monkeypatch):
    query = [Query(wrong["id"], int(wrong["prediction"]))]

    def products(**environment) -> tuple[np.ndarray, np.ndarray, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        work = Projection(opened, None, None)
        directions, _ = work.query_directions(query)
        gathering = work.collect(np.arange(120)[::-1], directions, opened.labels().values, "")
        while True:
            try:
                next(gathering)
            except StopIteration as done:
                return *done.value, work.prefix

    with_prefix = products()
    assert with_prefix[2] == "kept"
    monkeypatch.setattr("influence_core.attribution.projection.BATCH", size)
    monkeypatch.setattr("influence_core.attribution.projection.SHARD", 50)
    without = products(INFLUENCE_CACHE_GB="0")
    assert "INFLUENCE_CACHE_GB = 0" in without[2]
    scale = np.abs(without[0]).max()
    np.testing.assert_allclose(with_prefix[0], without[0], rtol=1e-4, atol=1e-5 * scale)
    np.testing.assert_allclose(with_prefix[1], without[1], rtol=1e-4)


def test_an_index_and_a_correction_are_the_same_with_and_without_prefix(opened, wrong, monkeypatch, tmp_path):
    options = {"k": 4, "iterations": 12, "hessian_rows": 30}
    fast = {"optimizer": "sgd", "learning_rate": 0.05, "k": 6, "batch_size": 16, "method": "tracin", "steps": 4}
    found = []
    for limit in ("2", "0"):
        monkeypatch.setenv("INFLUENCE_CACHE_GB", limit)
        summary = opened.index(**options, rebuild=True)
        steps = [e.loss for e in opened.correct(wrong["id"], tmp_path / limit, **fast) if hasattr(e, "loss")]
        table = METHODS["abif"].table(opened, RankSpec(workspace=opened.name, example=wrong["id"]))
        found.append((summary["eigenvalues"], steps, table.manifest["prefix"]))
    assert found[0][2] == "kept" != found[1][2]
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-4)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-3)


def test_the_index_by_its_settings(opened, wrong):
    opened.index(k=3, iterations=12, hessian_rows=30)
    opened.index(k=5, iterations=12, hessian_rows=30)
    for k in (3, 5):
        assert opened.rank(wrong["id"], method="abif", settings={"k": k}).notes["k"] == k
    with pytest.raises(UserError, match="no ABIF index"):
        opened.rank(wrong["id"], method="abif", settings={"k": 4})


@pytest.mark.parametrize("method", ["tracin", "tracin-adam", "hif-cr", "hif-cg"])
def test_relabelled_rows_are_projected_again_and_nothing_else_moves(opened, wrong, method, monkeypatch):
    """The Hessian keeps the labels it was built with (DEFINITIONS), so no other row's score may change."""
    monkeypatch.setattr("influence_core.trajectory.start.WARM_BATCHES", 3)
    settings = {"damping": 0.5, "hessian_rows": 120} if method.startswith("hif") else {}
    options = {"method": method, "settings": settings, "scope": "head", "top": 120}
    before = opened.rank(wrong["id"], **options)
    row = before.proponents[0]
    other = next(name for name in opened.label_names if name != row.label)
    opened.relabel(row.id, other, expect=row.label, annotator="me")
    assert opened.rank(wrong["id"], **options).stale == 1
    after = opened.rank(wrong["id"], **options, refresh=True)
    assert after.stale == 0
    assert by_id(after)[row.id].score != pytest.approx(row.score, rel=1e-3)
    table = pd.DataFrame({name: scores_of(opened, r)[0] for name, r in (("a", before), ("b", after))})
    assert (np.abs(table["a"] - table["b"]) > 1e-3 * table["a"].abs().max()).sum() == 1
    # a test row asked about only now is answered by the same Hessian, and by the same training products
    second = opened.mispredictions()["id"].iloc[1]
    late = scores_of(opened, opened.rank(second, **options))[0]
    again = dict(options, settings={**settings, "seed": 0} if settings else {})
    kept = METHODS[method].table(opened, RankSpec(workspace=opened.name, example=second, **again))
    assert kept.manifest["cursor"] == 0
    fresh = scores_of(opened, opened.rank(second, **options, refresh=True))[0]
    assert (np.abs(late - fresh) > 1e-3 * np.abs(late).max()).sum() <= 1


def test_suspects_follow_a_relabelled_row(opened):
    opened.index(k=6, iterations=40, hessian_rows=40)
    changed: set[str] = set()
    for method in ("tracin", "abif"):
        first = next(row for row in opened.suspects(method=method, top=120).suspects if row.id not in changed)
        changed.add(first.id)
        other = next(name for name in opened.label_names if name != first.label)
        opened.relabel(first.id, other, expect=first.label, annotator="me")
        stale = opened.suspects(method=method, top=120)
        assert stale.stale == len(changed)
        assert next(row.score for row in stale.suspects if row.id == first.id) == first.score
        found = opened.suspects(method=method, top=120, refresh=True)
        assert found.stale == 0
        score = next(row.score for row in found.suspects if row.id == first.id)
        assert score != pytest.approx(first.score, rel=1e-3)
        assert opened.suspects(method=method, top=120) == found
    work, _ = all_gradients(opened)
    rows = rows_of(opened, work.opened.whole, "train", opened.labels().values)
    squares = (gradients(work, rows.items, rows.labels) ** 2).sum(1)
    by = {row.id: row.score for row in opened.suspects(method="tracin", top=120, refresh=True).suspects}
    np.testing.assert_allclose([by[example] for example in opened.train["id"]], squares, rtol=1e-3)


def test_self_influence_over_checkpoints_has_the_rates_of_the_scores(opened):
    keep_epochs(opened, [0.3, None])
    names = {"names": ["epoch-1", "epoch-2"]}
    found = {row.id: row.score for row in opened.suspects(method="tracin-multi", settings=names, top=120).suspects}
    squares = sum((all_gradients(opened, checkpoint=name)[1] ** 2).sum(1) for name in names["names"])
    np.testing.assert_allclose([found[example] for example in opened.train["id"]], squares, rtol=1e-3)


def test_one_training_is_the_checkpoints_of_one_recipe_in_order_of_their_epochs(opened):
    assert epochs(opened, None) == []
    keep_epochs(opened, [0.3, 0.1, 0.2])
    opened.add_checkpoint("other", model=Path(opened.checkpoint().path), notes={"recipe": "another", "epoch": 1})
    assert [entry.name for entry in epochs(opened, "epoch-2")] == ["epoch-1", "epoch-2", "epoch-3"]
    assert [entry.name for entry in epochs(opened, "other")] == ["other"]
    # the training was run again into the same folder: what was opened as its second epoch is gone
    weights = Path(opened.checkpoint("epoch-2").path) / "model.safetensors"
    moved = {name: value * 2 for name, value in load_file(weights).items()}
    save_file(moved, weights, metadata={"format": "pt"})
    os.utime(weights, (time.time() + 60, time.time() + 60))
    assert [entry.name for entry in epochs(opened, "epoch-3")] == ["epoch-1", "epoch-3"]
    with pytest.raises(StaleError, match="under another name"):
        opened.predict("test", "epoch-2")


def test_what_the_checkpoint_records_of_its_optimizer_is_in_the_keys(opened, wrong):
    """The same weights under coupled decay have another loss, hence another Hessian (DEFINITIONS, Loss)."""
    settings = {"k": 3, "iterations": 40, "hessian_rows": 40, "scope": "head"}
    plain = opened.index(**settings)["eigenvalues"]
    recorded = {"kind": "adam", "beta2": 0.5, "weight_decay": 0.5}
    opened.add_checkpoint("decayed", model=Path(opened.checkpoint().path), optimizer=recorded)
    decayed = opened.index(**settings, checkpoint="decayed")["eigenvalues"]
    assert decayed[0] - 0.5 == pytest.approx(plain[0], abs=2e-3)  # the order by |λ| changes behind it
    for checkpoint, value in ((None, plain), ("decayed", decayed)):
        spec = RankSpec(workspace=opened.name, example=wrong["id"], scope="head", checkpoint=checkpoint)
        assert METHODS["abif"].table(opened, spec).manifest["eigenvalues"] == value
    keys = [
        METHODS[method]
        .table(opened, RankSpec(workspace=opened.name, example=wrong["id"], method=method, checkpoint=checkpoint))
        .folder
        for method in ("tracin-adam", "hif-cr", "tracin")
        for checkpoint in (None, "decayed")
    ]
    assert keys[0] != keys[1]
    assert keys[2] != keys[3]
    assert keys[4] == keys[5]  # plain products depend on the weights alone


def test_the_largest_values_in_order_with_ties_by_row():
    draw = np.random.default_rng(0)
    for size in (1, 5, 400):
        values = draw.integers(-4, 5, size) / 4.0
        expected = [row for row in sorted(range(size), key=lambda row: -values[row]) if values[row] > 0]
        for top in (1, 3, 10_000):
            assert largest(values, top).tolist() == expected[:top]
