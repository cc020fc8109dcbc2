"""The trust horizon: which rows, R by hand, its rule on fabricated numbers, and what a kept one depends on."""

import json

import numpy as np
import pytest
import torch

from influence_core.attribution.base import Query, Scores
from influence_core.cli import main
from influence_core.errors import UserError
from influence_core.events import Fading, Progress, Result, through
from influence_core.horizons import Horizon
from influence_core.models.loading import rows_of
from influence_core.runs import registry
from influence_core.runs.stopping import request_stop
from influence_core.specs import HorizonSpec, RankSpec, parse_spec
from influence_core.studies.horizon import Chosen, Measured, Ranked, choose, course, ranked, repeat_key
from influence_core.studies.setting import Setting, open_setting
from influence_core.trajectory.perturbation import Perturbation
from influence_core.trajectory.streams import derive

SMALL = {"optimizer": "sgd", "learning_rate": 0.05, "train_rows": 8, "batch_size": 16, "steps": 3, "method": "tracin"}
EXACT = {**SMALL, "dtype": "float64", "dropout": False}


def spec_of(opened, **options):
    return HorizonSpec(workspace=opened.name, example=first_test(opened), **{**SMALL, **options})


def first_test(opened):
    return str(opened.dataset.splits["test"]["id"].iloc[0])


def run(opened, result, **options):
    spec = spec_of(opened, **options)
    assert parse_spec(spec.model_dump_json()) == spec
    happened = list(registry.start(spec, result))
    assert isinstance(happened[-1], Result)
    return happened


def value(opened, result, **options):
    return Horizon(**run(opened, result, **options)[-1].value)


def last(generator):
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def given(values, labels=None):
    values = np.asarray(values, dtype=np.float64)
    labels = np.zeros(len(values), dtype=np.int64) if labels is None else labels
    scores = Scores(10 * values, values, np.zeros(len(values), dtype=bool), labels)
    return Ranked("tracin", Query("z", 1), scores, labels, {"method": "tracin"})


@pytest.mark.parametrize("count", [16, 17, 300])
def test_half_of_the_rows_are_random_and_half_the_rankings_two_ends_and_no_row_comes_twice(count):
    values = np.random.default_rng(3).normal(size=count)
    spec = HorizonSpec(workspace="w", example="z")
    found = choose(spec, given(values), 0)
    order = np.argsort(-values)
    assert sorted(found.rows[found.ends].tolist()) == sorted([*order[:4], *order[-4:]])
    assert len(set(found.rows.tolist())) == 16
    assert found.ends.sum() == 8
    np.testing.assert_allclose(found.predicted, 0.01 * values[found.rows])
    again, other = choose(spec, given(values), 0), choose(spec, given(values), 1)
    assert again.rows.tolist() == found.rows.tolist()
    assert (other.rows[other.ends] == found.rows[found.ends]).all()
    assert count == 16 or other.rows.tolist() != found.rows.tolist()
    by_score = choose(spec.model_copy(update={"by": "score"}), given(values), 0)
    np.testing.assert_allclose(by_score.predicted, 0.1 * values[found.rows])


def test_equal_scores_are_not_taken_twice():
    found = choose(HorizonSpec(workspace="w", example="z", train_rows=8), given(np.zeros(9)), 0)
    assert len(set(found.rows.tolist())) == 8


def test_more_rows_than_there_are_and_odd_numbers_are_refused(opened):
    with pytest.raises(UserError, match=r"train_rows = 16 but there are 12 training rows"):
        choose(HorizonSpec(workspace="w", example="z"), given(np.arange(12)), 0)
    for wrong, words in (({"train_rows": 10}, "multiple of 4"), ({"epsilon": 0}, "perturbs nothing")):
        with pytest.raises(UserError, match=words):
            opened.spec(HorizonSpec, {"example": "z", **wrong})


def fabricated(correlations, rows=400, seed=0):
    """Rows whose measured shifts have these correlations with their prediction, exactly, step by step."""
    random = np.random.default_rng(seed)
    x, noise = random.normal(size=(2, rows))
    x = (x - x.mean()) / x.std()
    noise -= noise.mean() + x * (noise * x).mean()
    noise /= noise.std()
    shifts = [r * x + np.sqrt(1 - r**2) * noise for r in correlations]
    chosen = Chosen(np.arange(rows), np.arange(rows) % 2 == 0, np.zeros(rows, dtype=np.int64), x)
    return Measured(chosen, {}, np.stack([np.zeros(rows), *shifts]), np.zeros(len(shifts) + 1))


ALL = np.ones(400, dtype=bool)


@pytest.mark.parametrize(
    ("correlations", "trust", "peak", "horizon"),
    [
        ([0.9, 0.8, 0.6, 0.1, 0.9 - 0.01], 0.3, 1, 3),  # later steps do not count: not consecutive
        ([0.2, 0.9, 0.7, 0.0], 0.3, 2, 3),  # counted from step 0, consecutive from the peak
        ([0.25, 0.2, 0.1], 0.3, 1, None),
        ([0.9, 0.9, 0.9], 0.3, 1, 3),
        ([0.9, 0.8, 0.6, 0.1], 0.7, 1, 2),
        ([0.9, 0.8, 0.6, 0.1], 0.95, 1, None),
    ],
)
def test_a_fabricated_table_gives_the_known_horizon(correlations, trust, peak, horizon):
    found = course([fabricated(correlations)], ALL, trust)
    assert found.r == pytest.approx(correlations, abs=1e-12)
    assert (found.peak, found.horizon) == (peak, horizon)
    assert all(low < r < high for low, r, high in zip(found.low, found.r, found.high, strict=True))


def test_repeats_make_a_t_interval_and_equal_predictions_no_correlation():
    several = [fabricated([0.9, 0.5 + 0.1 * n, 0.05 * n], seed=n) for n in range(5)]
    found = course(several, ALL, 0.3)
    assert found.horizon == 2
    assert found.r[1] == pytest.approx(np.tanh(np.arctanh([0.5, 0.6, 0.7, 0.8, 0.9]).mean()))
    flat = several[0].chosen
    flat = Measured(Chosen(flat.rows, flat.ends, flat.labels, 0 * flat.predicted), {}, several[0].shifts, np.zeros(4))
    nothing = course([flat], ALL, 0.3)
    assert (nothing.r, nothing.peak, nothing.horizon) == ([None] * 3, None, None)


def test_either_half_is_said_apart():
    good, bad = fabricated([0.9, 0.8], seed=1), fabricated([0.1, 0.0], seed=2)
    ends = good.chosen.ends
    mixed = Measured(good.chosen, {}, np.where(ends, good.shifts, bad.shifts), np.zeros(3))
    assert course([mixed], ends, 0.3).horizon == 2
    assert course([mixed], ~ends, 0.3).horizon is None
    assert course([mixed], ends, 0.3).rows == 200


def test_r_is_what_single_trainings_give_by_hand(opened, tmp_path):
    """δ(x, t) by one plain training per row, R by the textbook formula; the second repeat has its own batches."""
    found = value(opened, tmp_path, **EXACT, repeats=2)
    spec = spec_of(opened, **EXACT, repeats=2)
    at = ranked(opened, spec)
    setting = last(through(open_setting(opened, spec), Setting))
    split, row = opened.locate(spec.example)
    whole = setting.opened.whole
    test = rows_of(opened, whole, split).batch([row], np.array([at.query.target]))

    def trained(row, label, weight, seed):
        """Train plainly, reading the whole model's loss after each step."""
        step = setting.step
        flags = {"dropout": False}
        step = type(step)(step.classifier, step.scope, step.optimizer, step.rows, step.batch_size, seed, **flags)
        parameters, state, seen = setting.parameters, setting.state, []
        batch = Perturbation.mean(step.rows.batch([row], [label]))
        for t in range(spec.steps):
            parameters, state = step(parameters, state, torch.tensor([weight], dtype=torch.float64), batch, t)
            seen.append(float(whole.losses(test, parameters).double().item()))
        return np.array(seen)

    by_repeat = []
    for repeat, seed in enumerate([0, derive(0, "repeat", 1)]):
        chosen = choose(spec, at, repeat)
        shifts = np.stack(
            [
                trained(int(x), int(label), -0.01, seed) - trained(int(x), int(label), 0.0, seed)
                for x, label in zip(chosen.rows, chosen.labels, strict=True)
            ]
        )
        cosines = at.scores.cosines[chosen.rows]
        by_repeat.append([np.corrcoef(shifts[:, t], 0.01 * cosines)[0, 1] for t in range(spec.steps)])
        if repeat == 0:
            one = value(opened, tmp_path, **EXACT)
            assert one.whole.r == pytest.approx(by_repeat[0], abs=1e-6)
            half = np.corrcoef(shifts[~chosen.ends, 2], cosines[~chosen.ends])[0, 1]
            assert one.random.r[2] == pytest.approx(half, abs=1e-6)
    assert found.whole.r == pytest.approx(np.tanh(np.arctanh(by_repeat).mean(0)), abs=1e-6)
    assert found.repeats == 2
    assert found.band == "t-interval over repeats"


def test_what_is_kept_is_what_was_measured_and_shown_without_measuring_again(opened, tmp_path):
    spec = spec_of(opened)
    assert registry.horizon_ready(opened, spec) is None
    assert not opened.artefacts.find("horizon")
    happened = run(opened, tmp_path)
    fresh = Horizon(**happened[-1].value)
    assert registry.horizon_ready(opened, spec) == fresh
    assert Horizon(**json.loads(fresh.model_dump_json())) == fresh
    assert (fresh.optimizer, fresh.state, fresh.learning_rate, fresh.batch_size) == ("sgd", "zeros", 0.05, 16)
    steps = [event for event in happened if isinstance(event, Fading)]
    assert [event.step for event in steps] == [1, 2, 3]
    assert [event.methods["tracin"].r for event in steps] == pytest.approx(fresh.whole.r)
    assert [event.methods["tracin"].low for event in steps] == pytest.approx(fresh.whole.low)
    assert fresh.integrated_lr == pytest.approx(0.05 * fresh.whole.horizon)
    again = run(opened, tmp_path)
    assert again[-1].value == happened[-1].value
    assert not any(isinstance(event, Progress) and event.phase.startswith("following") for event in again)
    stricter = registry.horizon_ready(opened, spec.model_copy(update={"trust": 0.999999}))
    assert stricter.whole.r == fresh.whole.r
    more = registry.horizon_ready(opened, spec.model_copy(update={"repeats": 5}))
    assert (more.repeats, more.repeats_asked) == (1, 5)


def test_a_stopped_measurement_keeps_its_repeats_and_goes_on(opened, tmp_path):
    spec = spec_of(opened, repeats=3)
    for event in registry.start(spec, tmp_path / "stopped"):
        if isinstance(event, Fading) and (event.repeat, event.step) == (2, 1):
            request_stop(tmp_path / "stopped")
    assert event.value["repeats"] == 1
    assert registry.horizon_ready(opened, spec).repeats == 1
    resumed = run(opened, tmp_path / "resumed", repeats=3)
    phases = {event.phase for event in resumed if isinstance(event, Progress) and event.phase.startswith("following")}
    assert phases == {"following 8 training rows, repeat 2", "following 8 training rows, repeat 3"}
    request_stop(tmp_path / "early")
    nothing = value(opened, tmp_path / "early", seed=9)
    assert (nothing.repeats, nothing.whole.r, nothing.whole.horizon) == (0, [], None)


def test_it_depends_on_all_that_the_definition_names(opened, tmp_path):
    run(opened, tmp_path)
    kept = spec_of(opened)

    def key(workspace=opened, repeat=0, **options):
        spec = spec_of(workspace, **options)
        at = ranked(workspace, spec) or given(np.arange(len(workspace.train)))
        return json.dumps(repeat_key(workspace, spec, at, choose(spec, at, repeat), repeat), sort_keys=True)

    assert key() == key(repeats=4, trust=0.5, budget_minutes=3, optimizer_state="warm")  # plain SGD has no state
    for name, other in {
        "target": "gold" if opened.truth(kept.example) != ranked(opened, kept).query.target else "positive",
        "by": "score",
        "scope": "head",
        "optimizer": "adam",
        "learning_rate": 0.06,
        "batch_size": 8,
        "steps": 4,
        "seed": 1,
        "epsilon": -0.02,
        "dropout": False,
        "dtype": "float64",
        "train_rows": 12,
    }.items():
        if name == "target":
            other = next(
                label for label in opened.label_names if opened.label_index(label) != ranked(opened, kept).query.target
            )
            list(
                registry.start(
                    RankSpec(workspace=opened.name, example=kept.example, method="tracin", target=other), tmp_path
                )
            )
        assert key(**{name: other}) != key(), name
        if name != "target":
            assert registry.horizon_ready(opened, kept.model_copy(update={name: other})) is None, name
    states = {key(optimizer="adam", optimizer_state=state) for state in (None, "warm", "zeros")}
    assert len(states) == 2  # without one of its own, the checkpoint's is warmed
    assert key(repeat=1) != key()
    list(registry.start(RankSpec(workspace=opened.name, example=kept.example, method="random"), tmp_path))
    assert key(method="random") != key()
    list(
        registry.start(
            RankSpec(workspace=opened.name, example=kept.example, method="random", settings={"seed": 5}), tmp_path
        )
    )
    assert key(method="random", settings={"seed": 5}) != key(method="random")
    other = str(opened.dataset.splits["test"]["id"].iloc[1])
    assert registry.horizon_ready(opened, kept.model_copy(update={"example": other})) is None
    assert registry.horizon_ready(opened, kept) is not None


def test_a_drawn_row_that_is_relabelled_keeps_its_horizon_until_it_is_scored_again(opened, tmp_path):
    spec = spec_of(opened)
    run(opened, tmp_path)
    row = int(choose(spec, ranked(opened, spec), 0).rows[-1])
    example, names = str(opened.train["id"].iloc[row]), opened.label_names
    label = names[int(opened.labels().values[row])]
    opened.relabel(example, next(name for name in names if name != label), expect=label, annotator="a")
    assert (
        registry.horizon_ready(opened, spec) is not None
    )  # the score is still of the old label, and so is the horizon
    list(registry.start(spec.ranking.model_copy(update={"refresh": True}), tmp_path))
    assert registry.horizon_ready(opened, spec) is None


def test_a_training_row_has_no_horizon(opened, tmp_path):
    spec = spec_of(opened).model_copy(update={"example": str(opened.train["id"].iloc[0])})
    with pytest.raises(UserError, match="is a training row"):
        list(registry.start(spec, tmp_path))


def test_the_command_prints_the_halves_and_json(opened, capsys):
    def call(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(["horizon", opened.name, "--example", first_test(opened), *arguments])
        return int(caught.value.code or 0), *capsys.readouterr()

    sizes = ["--train-rows", "8", "--steps", "2", "--batch-size", "16", "--optimizer", "sgd", "--method", "tracin"]
    code, out, err = call(*sizes, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["horizon"] == found["whole"]["horizon"] == 2
    assert found["integrated_lr"] == pytest.approx(2e-3)
    code, out, err = call(*sizes)
    assert code == 0, err
    for words in ("all rows", "random half", "the two ends", "bootstrap over training rows", "trusted while ≥ 0.3"):
        assert words in out
    assert "this takes about" in err
    for wrong in (["--train-rows", "9"], ["--trust", "2"], ["--method", "magic"], ["--by", "size"]):
        code, out, err = call(*wrong)
        assert (code, out) == (2, "")
        assert "error: " in err
