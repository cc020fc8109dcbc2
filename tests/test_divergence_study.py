"""The divergence study and TracIn's error, on a tiny workspace."""

import json
import math
import shutil

import numpy as np
import pytest
import torch

from influence_core.cli import main
from influence_core.errors import RunFailedError, UserError
from influence_core.events import Progress, Result, through
from influence_core.runs import registry
from influence_core.runs.stopping import request_stop
from influence_core.specs import DivergenceSpec, TracinErrorSpec, parse_spec
from influence_core.studies.divergence import repeat_key
from influence_core.studies.resumable import Repeat
from influence_core.studies.setting import Setting, draw, open_setting
from influence_core.trajectory.lockstep import lockstep
from influence_core.trajectory.perturbation import Perturbation

SMALL = {"optimizer": "sgd", "rows": 4, "batch_size": 16, "steps": 8, "learning_rate": 0.05}


def run(kind, opened, result, **options):
    spec = kind(workspace=opened.name, **{**SMALL, **options})
    assert parse_spec(spec.model_dump_json()) == spec
    happened = list(registry.start(spec, result))
    assert isinstance(happened[-1], Result)
    return happened


def test_the_distances_are_those_of_single_runs(opened, tmp_path):
    spec = DivergenceSpec(workspace=opened.name, **SMALL, epsilons=(0.1, 1.0), dtype="float64")
    found = list(registry.start(spec, tmp_path))[-1].value["series"]
    setting = last(through(open_setting(opened, spec), Setting))
    drawn = draw(opened, 0, 0, 4, 0)
    perturbation = Perturbation.mean(setting.batch("train", drawn.train, drawn.labels))
    for row in found:
        epsilon = torch.tensor([row["epsilon"]], dtype=torch.float64)
        items = list(lockstep(setting.step, setting.parameters, setting.state, epsilon, perturbation, 8))
        np.testing.assert_allclose(row["divergence"], [item.divergence for item in items], rtol=1e-6)
        assert row["integrated_lr"] == pytest.approx([item.integrated_lr for item in items])
        assert row["fit"]["bic"].keys() == row["fit"]["aic"].keys() == {"two phases", "one line", "power law"}
    assert found[1]["divergence"][-1] > 5 * found[0]["divergence"][-1]
    assert [row["noise"] for row in found] == [[0.0] * 9] * 2  # training at ε = 0 repeats the base exactly


def test_the_noise_floor_of_a_repeat_kept_without_one_is_made_alone(opened, tmp_path):
    spec = DivergenceSpec(workspace=opened.name, **SMALL, epsilons=(0.1,))
    first = list(registry.start(spec, tmp_path))[-1].value["series"]
    floor = Repeat(opened, "divergence", repeat_key(opened, spec, draw(opened, 0, 0, 4, 0), 0.0))
    shutil.rmtree(floor.folder)
    events = list(registry.start(spec, tmp_path))
    phases = {event.phase for event in events if isinstance(event, Progress) and "repeat" in event.phase}
    assert phases == {"repeat 1 of 1: the noise floor"}
    assert events[-1].value["series"] == first
    shutil.rmtree(floor.folder)
    for event in registry.start(spec, tmp_path):
        if isinstance(event, Progress) and event.phase.endswith("the noise floor") and event.done == 3:
            request_stop(tmp_path)
    assert event.value["series"] == [{**first[0], "noise": None}]  # what was measured before is not lost


def test_a_stop_is_taken_within_the_bounds(opened, tmp_path):
    spec = DivergenceSpec(workspace=opened.name, **SMALL, epsilons=(0.1, 1.0), bounds=True)
    seen = []
    for event in registry.start(spec, tmp_path):
        seen.append(event)
        if isinstance(event, Progress) and event.phase.endswith("bounds at ε = 1") and event.done == 3:
            request_stop(tmp_path)
    assert seen[-1].value["repeats"] == 1  # the distances are measured, and one of two bounds
    assert [row["bound"] is None for row in seen[-1].value["series"]] == [False, True]
    assert max(each.done for each in seen if isinstance(each, Progress) and each.phase.endswith("ε = 1")) == 3


@pytest.mark.parametrize("kind", [DivergenceSpec, TracinErrorSpec])
def test_a_stop_is_taken_within_a_repeat_and_what_is_finished_counts(opened, tmp_path, kind):
    options = {name: value for name, value in SMALL.items() if kind is DivergenceSpec or name != "optimizer"}
    stopped_in = "repeat 2 in float32" if kind is TracinErrorSpec else "repeat 2"  # the second of two precisions
    spec = kind(workspace=opened.name, **options, repeats=2)
    seen = []
    for event in registry.start(spec, tmp_path):
        seen.append(event)
        if isinstance(event, Progress) and event.phase.startswith(stopped_in) and event.done == 3:
            request_stop(tmp_path)
    value = seen[-1].value
    assert (value["repeats"], value["repeats_asked"]) == (1, 2)
    assert {row["repeat"] for row in value["series"]} == {0}
    assert max(event.done for event in seen if isinstance(event, Progress) and event.phase.startswith(stopped_in)) == 3
    again = list(registry.start(spec, tmp_path / "again"))[-1].value
    assert again["repeats"] == 2
    assert {row["repeat"] for row in again["series"]} == {0, 1}


def last(generator):
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def test_other_weights_and_repeats_cost_only_themselves(opened, tmp_path):
    first = run(DivergenceSpec, opened, tmp_path, epsilons=(0.1,))[-1].value
    happened = run(DivergenceSpec, opened, tmp_path, epsilons=(0.1, 0.5), repeats=2)
    phases = {event.phase for event in happened if isinstance(event, Progress)}
    assert {"repeat 1 of 2: 1 ε and the base", "repeat 2 of 2: 2 ε and the base"} <= phases
    more = happened[-1].value
    assert more["series"][0] == first["series"][0]
    assert [(row["repeat"], row["epsilon"]) for row in more["series"]] == [(0, 0.1), (0, 0.5), (1, 0.1), (1, 0.5)]
    assert more["rows"][0] != more["rows"][1]
    again = run(DivergenceSpec, opened, tmp_path, epsilons=(0.1, 0.5), repeats=2)
    assert not [event for event in again if isinstance(event, Progress)]


def test_few_steps_have_no_fit_and_explosions_are_said(opened, tmp_path):
    assert run(DivergenceSpec, opened, tmp_path, steps=3)[-1].value["series"][0]["fit"] is None
    with pytest.raises(RunFailedError, match="training diverged at step"):
        run(DivergenceSpec, opened, tmp_path, learning_rate=1e30)
    for wrong in ({"epsilons": ()}, {"epsilons": (0,)}, {"rows": 0}):
        with pytest.raises(UserError):
            opened.spec(DivergenceSpec, wrong)


def test_theorem_3_lies_over_the_distance_and_costs_only_itself(opened, tmp_path):
    options = {"scope": "head", "epsilons": (0.1, 1.0), "steps": 5, "dtype": "float64", "dropout": False}
    plain = run(DivergenceSpec, opened, tmp_path, **options)[-1].value["series"]
    assert all(row["bound"] is row["bound_tight"] is row["bounds_unavailable"] is None for row in plain)
    happened = run(DivergenceSpec, opened, tmp_path, **options, bounds=True)
    phases = {event.phase for event in happened if isinstance(event, Progress)}
    assert phases == {f"repeat 1 of 1: bounds at ε = {weight}" for weight in ("0.1", "1")}  # the distances are kept
    found = happened[-1].value["series"]
    for row, before in zip(found, plain, strict=True):
        assert row["divergence"] == before["divergence"]
        assert len(row["bound"]) == len(row["bound_tight"]) == 6
        for distance, tight, bound in zip(row["divergence"], row["bound_tight"], row["bound"], strict=True):
            assert distance <= tight * (1 + 1e-9) <= bound * (1 + 1e-9)
        assert row["bound_tight"][1] == pytest.approx(row["divergence"][1], rel=1e-6)  # one step from one point
    assert not [e for e in run(DivergenceSpec, opened, tmp_path, **options, bounds=True) if isinstance(e, Progress)]


def test_adam_has_no_bound_and_says_why(opened, tmp_path):
    options = {"optimizer": "adam", "optimizer_state": "zeros", "steps": 1, "epsilons": (0.1,), "bounds": True}
    (row,) = run(DivergenceSpec, opened, tmp_path, **options)[-1].value["series"]
    assert row["bound"] is row["bound_tight"] is None
    assert "proved for SGD" in row["bounds_unavailable"]


def test_the_exact_jacobian_errs_quadratically_and_tracins_linearly(opened, tmp_path):
    options = {"dropout": False, "steps": 6, "epsilons": (1e-4, 1e-3, 1e-2)}
    found = run(TracinErrorSpec, opened, tmp_path, **options)[-1].value["series"]
    exact = [row for row in found if row["dtype"] == "float64"]
    for small, large in ((exact[0], exact[1]), (exact[1], exact[2])):
        orders = {n: math.log10(large[n][-1] / small[n][-1]) for n in ("error_eq2", "error_eq6")}
        assert orders["error_eq6"] == pytest.approx(2, abs=0.05)
        assert orders["error_eq2"] == pytest.approx(1, abs=0.05)
    ratios = {row["dtype"]: [own["ratio"][-1] for own in found if own["dtype"] == row["dtype"]] for row in found}
    assert ratios["float64"] == sorted(ratios["float64"], reverse=True)
    assert ratios["float32"][0] < ratios["float64"][0] / 3  # rounding hides what Eq. 6 gets right
    assert exact[0]["ratio"][0] == pytest.approx(1, rel=0.5)  # one step: Eq. 2 is Eq. 6


def test_tracin_error_is_kept_and_refuses_what_makes_no_sense(opened, tmp_path):
    options = {"steps": 2, "epsilons": (0.1,), "dtypes": ("float32",)}
    first = run(TracinErrorSpec, opened, tmp_path, **options)[-1].value
    again = run(TracinErrorSpec, opened, tmp_path, **options)
    assert not [event for event in again if isinstance(event, Progress)]
    assert again[-1].value["series"] == first["series"]
    for wrong in ({"dtype": "float64"}, {"optimizer": "adam"}, {"dtypes": ()}):
        with pytest.raises(UserError):
            opened.spec(TracinErrorSpec, wrong)


def test_both_commands(opened, capsys, tmp_path):
    def call(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(["study", arguments[0], opened.name, *arguments[1:]])
        return int(caught.value.code or 0), *capsys.readouterr()

    sizes = ["--rows", "4", "--batch-size", "16", "--epsilon", "0.1", "--learning-rate", "0.05"]
    figure = tmp_path / "figure.html"
    more = ["--optimizer", "sgd", "--steps", "8"]
    code, out, err = call("divergence", *sizes, *more, "--json", "--figure", str(figure))
    assert code == 0, err
    (row,) = json.loads(out)
    assert row["epsilon"] == 0.1
    assert len(row["fit"]["slopes"]) == 2
    assert "Second phase" in figure.read_text()
    assert "slope 2" in call("divergence", *sizes, *more)[1]
    printed = call("divergence", *sizes, *more, "--bounds", "--scope", "head")[1]
    assert "bound (8)" in printed
    assert "estimated from below" in printed
    code, out, err = call("tracin-error", *sizes, "--steps", "2", "--json")
    assert code == 0, err
    assert [row["dtype"] for row in json.loads(out)] == ["float64", "float32"]
    assert "Eq. 2 errs by" in call("tracin-error", *sizes, "--steps", "2")[1]
