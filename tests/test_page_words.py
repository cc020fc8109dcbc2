"""The sentences and small decisions of the Relabel, Correct and Runs pages, without Streamlit."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_core.events import Progress, Result, Step
from influence_core.rankings import Ranking
from influence_core.runs.directory import RunDirectory
from influence_core.runs.state import RunState
from influence_core.specs import CorrectionSpec, RankSpec
from influence_core.workspace import Checkpoint
from pages.components import correction_words as words
from pages.components import discarding, ranking_words, run_words
from pages.components.relabel_queue import Queue
from pages.components.run_reading import RunReading

RECORDED = {"kind": "adam", "learning_rate": 1e-4, "state": "optimizer.safetensors"}


def spec(**options):
    return CorrectionSpec(workspace="w", example="x", **options)


def checkpoint(optimizer=None):
    return Checkpoint(name="c", path="/c", fingerprint="f", created="2026", optimizer=optimizer)


def step(n, **fields):
    values = {
        "loss": 1.0,
        "probability": 0.4,
        "prediction": "negative",
        "base_loss": 1.0,
        "base_probability": 0.4,
        "base_prediction": "negative",
        "divergence": 0.0,
        "integrated_lr": 0.0,
        "retention": 1.0,
        "changed": [],
    }
    return Step(step=n, **{**values, **fields})


def test_no_up_sampling_is_said_when_each_row_counts_as_one():
    # by hand: s₀ = 12 / 44 = 27.3 %, ε = s / (1 − s) = 12 / 32 = 0.375
    assert words.share_words(spec()) == (
        "12 rows carry 27.3 % of the batch's weight (ε = 0.375): each counts as one row beside a batch of 32, "
        "no up-sampling."
    )


def test_a_larger_share_says_how_often_a_row_counts():
    # by hand: s = 0.5 is ε = 1; k = 8 rows then weigh as much as the batch of 32, four rows each
    assert "(ε = 1): each counts as 4 rows of a batch of 32" in words.share_words(spec(k=8, share=0.5))


def test_no_weight_is_called_the_control():
    assert "control" in words.share_words(spec(epsilon=0.0))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "stops at the flip, at most 50 steps"),
        ({"after_flip": 5, "steps": 20}, "stops 5 steps after the flip, at most 20 steps"),
        ({"after_flip": 1, "steps": 1}, "stops 1 step after the flip, at most 1 step"),
    ],
)
def test_the_stop_rule_in_words(options, said):
    assert words.stop_words(spec(**options)) == said


@pytest.mark.parametrize(
    ("optimizer", "options", "source"),
    [
        (None, {}, "warm"),
        (RECORDED, {}, "checkpoint"),
        (RECORDED, {"optimizer_state": "zeros"}, "zeros"),
        (RECORDED, {"optimizer": "sgd"}, "none"),
        ({"kind": "sgd", "momentum": 0.9}, {}, "warm"),
        ({"kind": "sgd"}, {}, "none"),
    ],
)
def test_where_the_optimizers_state_comes_from(optimizer, options, source):
    assert words.state_source(spec(**options), checkpoint(optimizer)) == source


def test_the_default_optimizer_is_said_to_be_warmed():
    assert words.optimizer_words(spec(), checkpoint()) == (
        "Adam, state warmed over 100 batches at learning rate 0, learning rate 1e-05"
    )


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ({"flipped": True, "flip_step": 7, "steps": 7}, "Flipped to “positive” at step 7 of at most 50."),
        ({"flipped": False, "flip_step": None, "steps": 50}, "Not flipped to “positive” within 50 steps."),
        ({"flipped": False, "flip_step": None, "steps": 9}, "Stopped at step 9, before a flip to “positive”."),
    ],
)
def test_how_a_correction_ended(outcome, said):
    assert words.outcome_words(outcome, spec(), "positive") == said


def test_the_free_control_is_always_said():
    assert "flips by itself at step 3" in words.base_words({"base_flip_step": 3, "steps": 9}, spec())
    assert "does not flip by itself within 9 steps" in words.base_words({"base_flip_step": None, "steps": 9}, spec())


ids = st.lists(st.sampled_from("abcdefg"), unique=True, min_size=1)


@given(ids, st.sets(st.sampled_from("abcdefgxyz")))
def test_walking_the_queue_meets_every_row_once(rows, reviewed):
    queue = Queue.of(rows, reviewed)
    pending = [row for row in rows if row not in reviewed]
    assert queue.done == len(rows) - len(pending)
    met, row = [], queue.first()
    while row is not None:
        met.append(row)
        reviewed = reviewed | {row}
        row = Queue.of(rows, reviewed).after(row)
    assert met == pending


def test_the_queue_goes_on_behind_the_row_and_around():
    queue = Queue.of(["a", "b", "c", "d"], {"c"})
    assert queue.after("b") == "d"
    assert queue.after("d") == "a"
    assert queue.words() == "1 of 4 reviewed"
    assert Queue.of(["a"], set()).after("a") is None  # never the row itself


def test_a_row_outside_the_list_leads_to_its_first():
    assert Queue.of(["a", "b"], {"a"}).after("z") == "b"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "–"), (0.44, "0.4 s"), (12.2, "12 s"), (185.0, "3 min 5 s"), (7800.0, "2 h 10 min")],
)
def test_durations(seconds, said):
    assert run_words.elapsed(seconds) == said


def state(**fields):
    return RunState(id="0" * 32, kind="correct", created=datetime.now(UTC), **fields)


def test_states_in_words():
    assert run_words.state_word(state(state="running", cancelling=True)) == "Cancelling"
    assert run_words.state_word(state(state="killed")) == "Cancelled"
    assert run_words.state_word(state()) == "Waiting"
    assert run_words.kind_word("correct") == "Correct"
    assert run_words.kind_word("from outside") == "from outside"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("INFLUENCE_HOME", str(tmp_path))
    made = RunDirectory.create(RankSpec(workspace="w", example="x"))
    made.claim()
    return made


def test_reading_goes_on_where_it_stopped_and_tells_rate_and_time_left(run):
    reading = RunReading(run.id)
    reading.read(run, 0.0)
    assert reading.words(50) == "starting"
    run.append(Progress(phase="warming", done=20, total=100, unit="batches"))
    reading.read(run, 10.0)
    assert reading.words(50) == "warming: 20 of 100 batches"  # first seen now: no rate yet
    run.append(Progress(phase="warming", done=40, total=100, unit="batches"))
    reading.read(run, 20.0)
    # by hand: 20 batches in 10 s, so 60 more take 30 s
    assert reading.words(50) == "warming: 40 of 100 batches · about 30 s left"
    assert reading.share(50) == pytest.approx(0.4)
    for n in range(3):
        run.append(step(n))
        reading.read(run, 30.0 + n)
    assert reading.words(50) == "step 2 of at most 50 · 1 s a step"
    assert [event.step for event in reading.steps] == [0, 1, 2]
    run.append(Progress(phase="comparing", done=1, total=2))
    run.append(Result(value={"flipped": False}))
    reading.read(run, 40.0)
    assert reading.words(50) == "comparing: 1 of 2 rows"
    assert reading.result == {"flipped": False}


def test_discarding_is_a_marker_that_can_be_taken_back(run):
    assert not discarding.is_discarded(run)
    discarding.discard(run)
    discarding.discard(run)
    assert discarding.is_discarded(run)
    assert run.path.is_dir()
    discarding.restore(run)
    assert not discarding.is_discarded(run)


def ranking(method="tracin", **notes):
    return Ranking(
        example="x",
        target="negative",
        method=method,
        by="cosine",
        scope="last:2",
        checkpoint="c",
        cursor=0,
        rows=8000,
        stale=0,
        made=datetime.now(UTC).isoformat(),
        notes=notes,
        proponents=[],
        opponents=[],
    )


SOLVED = {"iterations": 12, "residual": 9e-4, "converged": True, "negative_at": -1, "breakdown_at": -1}


@pytest.mark.parametrize(
    ("method", "notes", "said"),
    [
        ("abif", {"k": 32, "negative": 8, "seed": 0}, "ABIF · 32 eigenvectors (8 negative) · last 2 blocks and head"),
        ("tracin", {"eta": 1.0, "eta_known": False}, "TracIn · learning rate unknown, taken as 1 · last"),
        ("tracin", {"eta": 1e-4, "eta_known": True}, "TracIn · last 2"),
        (
            "tracin-multi",
            {"checkpoints": ["a", "b"], "eta": [1e-3, 5e-4], "eta_known": True},
            "TracIn over checkpoints · checkpoints a (η 0.001), b (η 0.0005) · last",
        ),
        (
            "tracin-multi",
            {"checkpoints": ["a", "b"], "eta": [1.0, 1.0], "eta_known": False},
            "checkpoints a, b · learning rate unknown, taken as 1 · last",
        ),
        ("hif-cr", SOLVED, "· 12 iterations, residual 0.0009 of ‖∇l‖, converged · last"),
        ("hif-cr", {**SOLVED, "iterations": 1, "converged": False}, "1 iteration, residual 0.0009 of ‖∇l‖, not conv"),
        ("hif-cr", {**SOLVED, "negative_at": 0}, "converged · negative curvature at iteration 1 · last"),
        ("hif-cr", {**SOLVED, "breakdown_at": 3}, "converged · continued by MINRES after iteration 3 · last"),
        ("abif", {"k": 32, "negative": 8, "prefix": "kept"}, "ABIF · 32 eigenvectors (8 negative) · last"),
        ("tracin", {"prefix": "scope all is wide"}, "· computed without the kept frozen part: scope all is wide"),
        (
            "ekfac",
            {"left_out": {"count": 4, "first": ["a", "b", "c"]}},
            "EK-FAC · without factors and left out: a, b, c and 1 more · last",
        ),
        ("ekfac", {"left_out": {"count": 1, "first": ["a"]}}, "EK-FAC · without factors and left out: a · last"),
        ("ekfac", {"left_out": {"count": 0, "first": []}}, "EK-FAC · last"),
        ("abif", {"k": 32, "negative": 8, "left_out": 2}, "ABIF · 32 eigenvectors (8 negative) · last"),
        ("embedding", {"dimension": 384}, "Embedding (control) · 384 features · 8,000 training rows"),
        ("random", {"seed": 5}, "Random (control) · seed 5 · 8,000 training rows · ordered by cosine"),
    ],
)
def test_what_a_ranking_depends_on_whichever_method_made_it(method, notes, said):
    found = ranking_words.provenance(ranking(method, **notes), None)
    assert said in found
    assert ("built" in found) == (method != "random")
    assert ("without the kept" in found) == (notes.get("prefix", "kept") != "kept")
    assert ("from the index" in found) == (method == "abif")
    assert "computed now in 12 s" in ranking_words.provenance(ranking(method, **notes), 12.0)


def test_only_what_weakens_the_scores_is_a_caveat():
    assert ranking_words.caveats(ranking("abif", k=32, negative=8)) == []
    assert ranking_words.caveats(ranking("hif-cr", **SOLVED)) == []
    assert ranking_words.caveats(ranking("hif-cr", **{**SOLVED, "negative_at": 4})) == []  # it is made for that
    (unfinished,) = ranking_words.caveats(ranking("hif-cr", **{**SOLVED, "converged": False, "residual": 0.3}))
    assert "did not converge: its best residual, 0.3 of ‖∇l‖, came after 12 iterations" in unfinished
    (negative,) = ranking_words.caveats(ranking("hif-cg", **{**SOLVED, "negative_at": 4}))
    assert "negative curvature at iteration 5" in negative
    nothing = ranking("hif-cr", **{**SOLVED, "iterations": 0, "converged": False, "residual": 1.0})
    (empty,) = ranking_words.caveats(nothing)
    assert nothing.unsolved
    assert "all scores are 0" in empty


def test_settings_in_words():
    assert ranking_words.settings_words("abif", {}) == "ABIF"
    assert ranking_words.settings_words("abif", {"k": 16, "hessian_rows": 64}) == "ABIF (k 16, hessian rows 64)"
    assert ranking_words.settings_words("tracin-multi", {"names": ("a", "b")}) == (
        "TracIn over checkpoints (names a and b)"
    )


def test_rows_of_a_correction_name_the_methods_settings():
    said = words.rows_words(spec(method="hif-cr", settings={"damping": 0.5}))
    assert "with Hessian-based, Conjugate Residual (damping 0.5), by cosine" in said
    assert "with the index if there is one, else TracIn, by" in words.rows_words(spec())
