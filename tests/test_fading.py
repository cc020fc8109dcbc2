"""The fading study on a tiny workspace, and R(1) against what one step of plain SGD does in closed form."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import loop_gradients
from step_models import build, mlp, mlp_rows
from test_methods import keep_epochs

from influence_core import charts, events
from influence_core.attribution.base import Query
from influence_core.cli import main
from influence_core.cli.settings import settings_of_methods
from influence_core.errors import RunFailedError, UserError
from influence_core.events import Fading, Progress, Result, through
from influence_core.runs import registry
from influence_core.runs.stopping import request_stop
from influence_core.specs import FadingSpec, parse_spec
from influence_core.studies import fading, following
from influence_core.studies.readings import distances, losses
from influence_core.studies.scoring import _by_table, score
from influence_core.studies.setting import Setting, draw, open_setting, setting_key
from influence_core.studies.statistics import agreement
from influence_core.trajectory.lockstep import lockstep
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.trajectory.trajectories import alike, rollout

SMALL = {"optimizer": "sgd", "train_rows": 6, "test_rows": 5, "batch_size": 16, "steps": 3, "repeats": 2}
EXACT = {**SMALL, "dtype": "float64", "dropout": False, "methods": ("tracin",)}


def run(opened, result, **options):
    spec = FadingSpec(workspace=opened.name, **{**SMALL, **options})
    assert parse_spec(spec.model_dump_json()) == spec
    happened = list(registry.start(spec, result))
    assert isinstance(happened[-1], Result)
    return happened


def value(opened, result, **options):
    return run(opened, result, **options)[-1].value


def last(generator):
    """Run a generator to its end and return what it returns."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def test_the_first_step_of_plain_sgd_is_what_tracin_says(opened, tmp_path):
    missing = []
    for rate in (0.3, 0.1, 1e-2, 1e-3):
        (row,) = value(opened, tmp_path, **EXACT | {"steps": 1, "learning_rate": rate, "repeats": 1})["methods"]
        missing.append(1 - row["r"][0])
        assert row["slope"][0] == pytest.approx(1, abs=rate)
    assert missing[-1] <= 1e-4
    assert missing[-2] > missing[-1]
    assert missing == sorted(missing, reverse=True)


@pytest.mark.parametrize(("found", "then"), [("sequential", "sequential"), ("vmap", "auto")])
def test_vmap_is_not_tried_again_where_one_after_another_was_faster(opened, tmp_path, monkeypatch, found, then):
    asked = []

    def spy(*given):
        asked.append(given[-1])
        for moment in rollout(*given[:-1], "sequential"):
            yield replace(moment, way=found)

    monkeypatch.setattr(following, "rollout", spy)
    value(opened, tmp_path, **EXACT | {"repeats": 3, "seed": 17})
    assert asked == ["auto", then, then]


def test_with_the_gradient_at_the_first_step_only_epsilon_is_left():
    """δ(1) = −ηε ⟨∇l_z(θ_{0,1}), ∇l_x(θ_0)⟩ + O(ε²) exactly: R(1) and the slope go to 1, linearly in ε."""
    rows = mlp_rows(mlp(rate=0.3))  # dropout of B_t is the same for all
    step, parameters, state = build(rows, OptimizerSpec("sgd", 0.7))
    train, test = [0, 3, 5, 8, 11], rows.batch([1, 2, 14])
    gx = loop_gradients(rows.classifier, step.scope, rows.batch(train))

    def measured(epsilon):
        weights = torch.full((len(train), 1), epsilon, dtype=torch.float64)
        *_, end = rollout(step, parameters, state, alike(rows, [[x] for x in train]), weights, 1)
        moved = mlp(rate=0.3)
        moved.module.load_state_dict(end.base_parameters)
        gz = loop_gradients(moved, moved.scope("all"), test)
        scores = 0.7 * sum(np.tensordot(gx[n].flatten(1), gz[n].flatten(1), (1, 1)) for n in gx)
        base = losses(rows.classifier, test, end.base_parameters)
        shifts = np.stack([losses(rows.classifier, test, end.parameters(m)) - base for m in range(end.count)])
        found = agreement(shifts[None], -epsilon * scores)
        return 1 - found.r[0], abs(1 - found.slope[0])

    (r1, slope1), (r2, slope2), (r3, slope3) = (measured(epsilon) for epsilon in (-1e-1, -1e-2, -1e-3))
    assert r1 > 1e-8
    assert r3 < r2 < r1 / 30  # quadratic
    assert slope3 < slope2 / 5 < slope1 / 25  # linear
    assert slope3 < 1e-3


def test_the_shifts_are_those_of_single_runs_in_lockstep(opened, tmp_path):
    spec = FadingSpec(workspace=opened.name, **EXACT, learning_rate=0.05)
    setting = last(through(open_setting(opened, spec), Setting))
    drawn = draw(opened, 0, 0, 6, 5)
    test = setting.batch("test", drawn.test, drawn.targets)
    list(registry.start(spec, tmp_path))
    kept = [path for path, _ in opened.artefacts.find("fading", train=drawn.ids(opened)["train"])]
    from safetensors.numpy import load_file

    arrays = load_file(kept[0] / "trajectories.safetensors")
    assert not arrays["shifts"][0].any()
    assert not arrays["noise"].any()
    assert arrays["apart"].tolist() == [0.0] * 4  # training at ε = 0 repeats the base exactly
    epsilon = torch.tensor([-0.01], dtype=torch.float64)
    for x in (0, 4):
        (perturbation,) = alike(setting.step.rows, [[int(drawn.train[x])]])
        for item in lockstep(setting.step, setting.parameters, setting.state, epsilon, perturbation, 3):
            classifier = setting.opened.classifier
            shift = losses(classifier, test, item.parameters) - losses(classifier, test, item.base_parameters)
            np.testing.assert_allclose(arrays["shifts"][item.t, x], shift, rtol=1e-6, atol=1e-13)
            assert arrays["divergence"][item.t, x] == pytest.approx(item.divergence, rel=1e-6)


def test_a_study_of_few_rows_makes_no_outputs_for_the_others_and_measures_the_same(opened, tmp_path, monkeypatch):
    few = EXACT | {"steps": 3, "repeats": 1, "batch_size": 8, "learning_rate": 0.3}
    (quick,) = value(opened, tmp_path, **few)["methods"]
    assert not (opened.artefacts.folder / "prefix").exists()
    monkeypatch.setattr(fading, "repeat_key", lambda *given: {"again": True})  # it is to be measured anew
    monkeypatch.setattr(fading, "asks_few", lambda *given: False)
    (whole,) = value(opened, tmp_path, **few)["methods"]
    assert (opened.artefacts.folder / "prefix").exists()
    assert quick["r"] == pytest.approx(whole["r"], abs=1e-4)


def test_key_biases_are_no_divergence_under_adam(opened):
    spec = FadingSpec(workspace=opened.name, **SMALL | {"optimizer": "adam", "learning_rate": 1e-3})
    setting = last(through(open_setting(opened, spec), Setting))
    perturbations = alike(setting.step.rows, [[1], [2]])
    *_, end = rollout(setting.step, setting.parameters, setting.state, perturbations, torch.full((2, 1), 1e-3), 3)
    names = [name for name in setting.parameters if name.endswith("key.bias")]
    assert names
    found = distances(setting.opened.classifier, end)
    for m in range(2):
        squares = {n: float((v - end.base_parameters[n]).square().sum()) for n, v in end.parameters(m).items()}
        assert found[m] ** 2 == pytest.approx(sum(v for n, v in squares.items() if n not in names), rel=1e-4)
    assert (end.divergences >= found).all()


@pytest.mark.parametrize("method", ["tracin", "tracin-adam", "hif-cr", "hif-cg", "abif", "embedding", "random"])
def test_scores_of_a_few_rows_are_those_of_whole_rankings(opened, method):
    if method == "abif":
        opened.index(k=4, iterations=12, hessian_rows=40)
    drawn = draw(opened, 0, 0, 6, 4)
    ids = drawn.ids(opened)["test"]
    queries = [Query(*pair) for pair in zip(ids, drawn.targets.tolist(), strict=True)]
    spec = FadingSpec(workspace=opened.name).of_method(method)
    found = last(score(opened, spec, drawn.train, queries))
    from influence_core.attribution.methods import METHODS

    whole = last(_by_table(opened, spec, METHODS[method], drawn.train, queries))
    assert found.shape == (6, 4)
    np.testing.assert_allclose(found, whole, rtol=2e-3, atol=2e-4 * np.abs(whole).max())


def test_scores_follow_a_relabelled_row_and_so_do_the_trajectories(opened, tmp_path):
    before = value(opened, tmp_path, methods=("tracin", "embedding"), repeats=1)
    row = draw(opened, 0, 0, 6, 5)
    example, label = row.ids(opened)["train"][0], opened.label_names[int(row.labels[0])]
    other = next(name for name in opened.label_names if name != label)
    opened.relabel(example, other, expect=label, annotator="a")
    assert draw(opened, 0, 0, 6, 5).labels[0] != row.labels[0]
    after = value(opened, tmp_path, methods=("tracin", "embedding"), repeats=1)
    assert after["methods"][0]["r"] != before["methods"][0]["r"]
    assert after["methods"][0]["r"][0] > 0.99
    assert len(opened.artefacts.find("fading")) == 2


def test_a_stopped_study_is_valid_and_resumes_to_the_same_table(opened, tmp_path):
    options = EXACT | {"methods": ("tracin", "random"), "repeats": 3, "learning_rate": 0.1}
    whole = value(opened, tmp_path / "whole", **options)
    import shutil

    shutil.rmtree(opened.artefacts.folder / "fading")
    spec, result = FadingSpec(workspace=opened.name, **SMALL | options), tmp_path / "stopped"
    for event in registry.start(spec, result):
        if isinstance(event, Fading) and (event.repeat, event.step) == (2, 1):
            request_stop(result)
        if isinstance(event, Result):
            stopped = event.value
    assert stopped["repeats"] == 1
    assert stopped["methods"][0]["band"] == "bootstrap over training rows"
    assert stopped["methods"][0]["verdict"] is None
    resumed = run(opened, tmp_path / "resumed", **options)
    phases = {event.phase for event in resumed if isinstance(event, Progress)}
    assert not any(phase.startswith("repeat 1 of") for phase in phases)
    assert any(phase.startswith("repeat 2 of") for phase in phases)
    shown = [(event.repeat, event.step) for event in resumed if isinstance(event, Fading)]
    assert shown == [(repeat, step) for repeat in (1, 2, 3) for step in (1, 2, 3)]
    for name in ("r", "low", "high", "slope", "spearman"):
        for own, other in zip(whole["methods"], resumed[-1].value["methods"], strict=True):
            np.testing.assert_allclose(own[name], other[name], rtol=1e-6)
    assert resumed[-1].value["rows"] == whole["rows"]


def test_each_call_gets_one_repeat_further_however_small_the_budget(opened, tmp_path):
    options = {"methods": ("tracin",), "repeats": 3, "budget_minutes": 1e-6}
    assert [value(opened, tmp_path, **options)["repeats"] for _ in range(4)] == [1, 2, 3, 3]


def test_a_stop_while_scoring_is_taken_before_training_begins(opened, tmp_path):
    spec = FadingSpec(workspace=opened.name, **SMALL)
    phases, value = [], {}
    for event in registry.start(spec, tmp_path):
        if isinstance(event, Progress):
            phases.append(event.phase)
            if not event.phase.startswith("repeat"):
                request_stop(tmp_path)
        elif isinstance(event, Result):
            value = event.value
    assert phases
    assert not [phase for phase in phases if phase.startswith("repeat")]
    assert value["repeats"] == 0


def test_a_stop_before_the_first_repeat_is_done_gives_an_empty_table(opened, tmp_path):
    request_stop(tmp_path)
    found = value(opened, tmp_path, methods=("tracin",))
    assert (found["repeats"], found["methods"], found["divergence"]) == (0, [], [])


def test_events_carry_the_band_so_far_and_survive_the_wire(opened, tmp_path):
    happened = run(opened, tmp_path, methods=("tracin", "random"), repeats=2)
    found = [event for event in happened if isinstance(event, Fading)]
    for event in found:
        assert events.parse(event.model_dump_json()) == event
    row = happened[-1].value["methods"][0]
    end = found[-1].methods["tracin"]
    assert (end.r, end.low, end.high) == pytest.approx((row["r"][-1], row["low"][-1], row["high"][-1]))
    first = found[0].methods["random"]
    assert first.r == first.own
    assert first.low < first.r < first.high
    assert found[-1].integrated_lr == pytest.approx(3 * 1e-3)
    assert found[-1].divergence > found[-3].divergence > 0


def test_random_scores_predict_nothing_and_tracin_does(opened, tmp_path):
    found = value(opened, tmp_path, methods=("tracin", "random"), repeats=5, train_rows=10, learning_rate=0.02)
    tracin, random = found["methods"]
    zero = [low <= 0 <= high for low, high in zip(random["low"], random["high"], strict=True)]
    assert sum(zero) > len(zero) / 2
    assert random["verdict"] == f"a control: its band contains zero at {sum(zero)} of 3 steps"
    assert min(tracin["low"]) > 0.9
    assert tracin["faded_at"] is None
    assert tracin["horizon"] == 3
    assert tracin["verdict"] == "not faded within 3 steps"
    assert found["noise"] == 0
    assert found["noise_divergence"] == [0.0] * 3


def test_all_methods_but_those_that_cannot_be_used(opened, tmp_path):
    found = value(opened, tmp_path, repeats=1, steps=1)
    assert [row["method"] for row in found["methods"]] == [
        "tracin",
        "tracin-adam",
        "hif-cr",
        "hif-cg",
        "embedding",
        "random",
    ]
    assert "index" in found["left_out"]["abif"]
    assert "two or more checkpoints" in found["left_out"]["tracin-multi"]
    with pytest.raises(UserError, match=r"abif cannot be used here: it needs an index"):
        value(opened, tmp_path, methods=("tracin", "abif"))


def test_several_checkpoints_are_summed_with_their_rates(opened, tmp_path):
    from pathlib import Path

    entry = opened.checkpoint()
    for name, rate in (("early", 0.1), ("late", 0.3)):
        opened.add_checkpoint(
            name,
            model=Path(entry.path),
            kind=entry.kind,
            preparation=entry.preparation,
            optimizer={"kind": "sgd", "learning_rate": rate},
            notes={"recipe": "r", "epoch": 1 if name == "early" else 2},
        )
    drawn = draw(opened, 0, 0, 6, 4)
    queries = [Query(*pair) for pair in zip(drawn.ids(opened)["test"], drawn.targets.tolist(), strict=True)]
    spec = FadingSpec(workspace=opened.name, checkpoint="early")
    one = last(score(opened, spec.of_method("tracin"), drawn.train, queries))
    both = last(score(opened, spec.of_method("tracin-multi"), drawn.train, queries))
    np.testing.assert_allclose(both, 0.4 * one, rtol=1e-5, atol=1e-7)


def test_training_that_explodes_is_said_in_one_line(opened, tmp_path):
    with pytest.raises(RunFailedError, match=r"training diverged at step 1 .*lower the learning rate, 1e"):
        value(opened, tmp_path, methods=("random",), learning_rate=1e30)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"epsilon": 0}, "perturbs nothing"),
        ({"train_rows": 2}, "at least 3"),
        ({"methods": ("magic",)}, "choose one of"),
        ({"budget_minutes": 0}, "more than 0"),
        ({"dtype": "float16"}, "choose one of"),
    ],
)
def test_nonsense_is_one_line(opened, wrong, words):
    with pytest.raises(UserError, match=words):
        opened.spec(FadingSpec, wrong)


def test_more_rows_than_there_are_is_refused(opened, tmp_path):
    with pytest.raises(UserError, match=r"test_rows = 41 but .* has 40 test rows"):
        value(opened, tmp_path, test_rows=41)


def test_the_command_prints_the_list(opened, capsys, tmp_path):
    def call(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(["study", "fading", opened.name, *arguments])
        return int(caught.value.code or 0), *capsys.readouterr()

    sizes = ["--train-rows", "5", "--test-rows", "4", "--repeats", "2", "--steps", "2", "--batch-size", "16"]
    sizes += ["--optimizer", "sgd", "--seed", "3"]
    methods = ["--method", "tracin", "--method", "random"]
    figure = tmp_path / "fading.html"
    code, out, err = call(*sizes, *methods, "--json", "--figure", str(figure))
    assert code == 0, err
    rows = json.loads(out)
    assert [row["method"] for row in rows] == ["tracin", "random"]
    for row in rows:
        assert {"method", "steps", "r", "low", "high", "spearman", "slope", "peak", "faded_at"} <= row.keys()
        assert row["steps"] == [1, 2]
        assert all(len(row[name]) == 2 for name in ("r", "low", "high", "spearman", "slope"))
    assert "peaks at" in figure.read_text()
    code, out, err = call(*sizes, *methods)
    assert code == 0, err
    assert "2 of 2 repeats of 5 × 4 rows, sgd at 0.001, ε = -0.01" in out
    assert "losses differ by exactly 0" in out
    assert "too few repeats" in out
    for wrong in (["--figure", "x.pdf"], ["--figure", str(tmp_path / "no" / "x.html")], ["--method", "magic"]):
        code, out, err = call(*sizes, *wrong)
        assert (code, out) == (2, "")
        assert "error: " in err


def test_repeats_of_another_optimizer_state_are_not_taken_for_its_own(opened, monkeypatch):
    spec = FadingSpec(workspace=opened.name, optimizer="adam")
    warmed = setting_key(opened, spec)
    carrying = opened.checkpoint(None).model_copy(
        update={"optimizer": {"kind": "adam", "state": "optimizer.safetensors"}}
    )
    monkeypatch.setattr(type(opened), "checkpoint", lambda self, name=None: carrying)
    assert setting_key(opened, spec) != warmed
    assert setting_key(opened, spec.model_copy(update={"optimizer_state": "warm"})) != setting_key(opened, spec)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({"optimizer": "adam", "batch_size": 8, "seed": 3}, {"batch_size": 8, "seed": 3}),
        ({"optimizer": "adam", "optimizer_state": "warm"}, {"batch_size": 32, "seed": 0, "state": "warm"}),
        ({"optimizer": "adam", "optimizer_state": "zeros"}, {"batch_size": 32, "seed": 0, "state": "zeros"}),
        ({"optimizer": "sgd", "batch_size": 8}, {}),
        (
            {"optimizer": "adam", "settings": {"tracin-adam": {"form": "twice", "state": "zeros", "seed": 0}}},
            {"batch_size": 32, "seed": 0, "form": "twice", "state": "zeros"},
        ),
        ({"optimizer": "sgd", "settings": {"tracin-adam": {"form": "twice"}}}, {"form": "twice"}),
    ],
)
def test_adams_metric_is_of_the_state_that_the_trajectories_start_from(options, settings, tmp_path):
    spec = FadingSpec(workspace="w", learning_rate=0.1, **options)
    optimizer = OptimizerSpec(kind=options["optimizer"], learning_rate=0.1)
    study = fading.Study(spec, None, optimizer, [], tmp_path, None)
    assert study._asked("tracin-adam").settings == settings
    assert study._asked("tracin").settings == {}


def test_settings_are_of_methods_of_the_study_and_change_scores_alone(opened, tmp_path):
    shared = {"workspace": opened.name, "learning_rate": 0.05, "methods": ("hif-cr",), **{**SMALL, "repeats": 1}}
    spec = FadingSpec(**shared, settings={"hif-cr": {"iterations": 1, "damping": 0.0}})
    assert spec.settings == {"hif-cr": {"iterations": 1}}  # only what differs
    assert "settings" not in FadingSpec(**shared).model_dump()
    first = list(registry.start(FadingSpec(**shared), tmp_path))[-1].value
    events = list(registry.start(spec, tmp_path))
    assert not [event for event in events if isinstance(event, Progress) and "trajectories" in event.phase]
    assert events[-1].value["methods"][0]["r"] != first["methods"][0]["r"]
    assert events[-1].value["rows"] == first["rows"]
    row = events[-1].value["methods"][0]
    assert (row["method"], row["settings"]) == ("hif-cr", {"iterations": 1})
    assert "settings" not in first["methods"][0]
    assert "(Iterations: 1)" in charts.fading([row]).data[-1].name
    with pytest.raises(ValueError, match="settings of ekfac, which is not among the methods"):
        FadingSpec(workspace="w", settings={"ekfac": {"rows": 100}})
    for settings, words in (
        ({"tracin-adam": {"form": "twice"}}, "settings of tracin-adam, which is not among the methods"),
        ({"hif-cr": {"power": 2}}, "hif-cr has no setting 'power'"),
        ({"hif-cr": {"iterations": 0}}, "iterations"),
    ):
        with pytest.raises(ValueError, match=words):
            FadingSpec(**shared, settings=settings)


def test_settings_of_every_kind_of_method_reach_its_scores(opened, tmp_path):
    keep_epochs(opened, [0.1, 0.2])
    methods = ("tracin-multi", "random", "tracin-adam")
    shared = {**SMALL, "workspace": opened.name, "checkpoint": "epoch-2", "learning_rate": 0.05, "repeats": 1}
    usual = list(registry.start(FadingSpec(**shared, methods=methods), tmp_path))[-1].value["methods"]
    settings = {"tracin-multi": {"names": ("epoch-1",)}, "random": {"seed": 7}, "tracin-adam": {"form": "twice"}}
    others = list(registry.start(FadingSpec(**shared, methods=methods, settings=settings), tmp_path))[-1].value[
        "methods"
    ]
    for before, after in zip(usual, others, strict=True):
        assert before["r"] != after["r"], before["method"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("form=twice", "write it as METHOD.NAME=VALUE"),
        ("adam.form=twice", "there is no method 'adam', choose of abif"),
        ("tracin-adam.form", "write it as NAME=VALUE"),
    ],
)
def test_settings_of_methods_on_the_command_line(given, words):
    with pytest.raises(UserError, match=words):
        settings_of_methods([given])
    assert settings_of_methods(None) is None
    found = settings_of_methods(["tracin-adam.form=twice", "hif-cr.damping=0.1", "hif-cr.hessian-rows=64"])
    assert found == {"tracin-adam": {"form": "twice"}, "hif-cr": {"damping": 0.1, "hessian_rows": 64}}


def test_a_series_that_ends_below_zero_predicts_the_opposite_however_it_got_there(opened):
    spec = FadingSpec(workspace=opened.name, **{**SMALL, "repeats": 5})
    done = []
    for seed in range(5):
        random = np.random.default_rng(seed)
        predicted = random.normal(size=(6, 5))
        signs = np.array([0, 1, 1, -1])[:, None, None]  # no step at which the band contains zero
        shifts = signs * predicted + 0.01 * random.normal(size=(4, 6, 5))
        drawn = draw(opened, 0, seed, 6, 5)
        done.append(fading.Measured(drawn, {}, shifts, np.zeros((4, 6)), np.zeros((4, 5)), {"tracin": predicted}))
    row = fading.method_row("tracin", spec, done)
    assert row["faded_at"] is None
    assert row["verdict"] == "predicts the opposite of what happens by step 3"
    assert (
        fading.method_row(
            "tracin", spec.model_copy(update={"steps": 2}), [replace(each, shifts=each.shifts[:3]) for each in done]
        )["verdict"]
        == "not faded within 2 steps"
    )
