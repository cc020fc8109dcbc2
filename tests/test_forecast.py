"""Forecasts: Eq. 6's prediction against trainings with a little more and less of a row, Eq. 2's against a hand sum."""

import json

import numpy as np
import pytest
import torch

from influence_core.cli import main
from influence_core.errors import UserError
from influence_core.events import Progress, Result, through
from influence_core.horizons import Forecast
from influence_core.models.loading import rows_of
from influence_core.runs import registry
from influence_core.specs import ForecastSpec, parse_spec
from influence_core.studies.setting import Setting, open_setting
from influence_core.trajectory.perturbation import Perturbation

EXACT = {"dtype": "float64", "batch_size": 16, "steps": 5, "learning_rate": 0.05, "optimizer": "sgd"}


def spec_of(opened, **options):
    test, train = (opened.dataset.splits[split]["id"] for split in ("test", "train"))
    rows = (str(train.iloc[3]), str(train.iloc[40]))
    return ForecastSpec(workspace=opened.name, **{"example": str(test.iloc[0]), "rows": rows, **EXACT, **options})


def value(spec, result):
    assert parse_spec(spec.model_dump_json()) == spec
    *_, end = registry.start(spec, result)
    assert isinstance(end, Result)
    return Forecast(**end.value)


class Trainings:
    """Plain trainings on L + ε l_x for one row, reading the whole model's loss of the test row."""

    def __init__(self, opened, spec):
        events = through(open_setting(opened, spec), Setting)
        while True:
            try:
                next(events)
            except StopIteration as end:
                self.setting = end.value
                break
        split, row = opened.locate(spec.example)
        self.spec, self.whole = spec, self.setting.opened.whole
        label = opened.label_index("positive") if spec.target == "positive" else opened.truth(spec.example)
        self.test = rows_of(opened, self.whole, split).batch([row], np.array([label]))
        self.labels = opened.labels().values

    def group(self, row):
        return Perturbation.mean(self.setting.step.rows.batch([row], [int(self.labels[row])]))

    def loss(self, parameters):
        return self.whole.losses(self.test, parameters).sum()

    def losses(self, row, weight):
        parameters, state = self.setting.parameters, self.setting.state
        found = [float(self.loss(parameters))]
        for t in range(self.spec.steps):
            epsilon = torch.tensor([weight], dtype=torch.float64)
            parameters, state = self.setting.step(parameters, state, epsilon, self.group(row), t)
            found.append(float(self.loss(parameters)))
        return np.array(found)

    def derivative(self, row, h=1e-3):
        """d l_z / d ε by central differences of two widths, Richardson's rule."""
        wide, narrow = ((self.losses(row, w) - self.losses(row, -w)) / (2 * w) for w in (2 * h, h))
        return (4 * narrow - wide) / 3


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_eq_6_is_the_derivative_of_what_trainings_do(opened, tmp_path, optimizer):
    rate = {"sgd": 0.05, "adam": 1e-3}[optimizer]
    spec = spec_of(opened, optimizer=optimizer, learning_rate=rate, target="gold", epsilon=0.02)
    found, trainings = value(spec, tmp_path), Trainings(opened, spec)
    for q, row in enumerate((3, 40)):
        expected = 0.02 * trainings.derivative(row)
        assert found.exact[q][0] == 0
        assert np.abs(expected[1:]).min() > 0
        np.testing.assert_allclose(found.exact[q][1:], expected[1:], rtol=1e-4)
    assert found.state == {"sgd": "zeros", "adam": "warm"}[optimizer]


def test_eq_2_is_the_sum_of_gradients_by_hand(opened, tmp_path):
    spec = spec_of(opened, target="positive")
    found, trainings = value(spec, tmp_path), Trainings(opened, spec)
    step, setting = trainings.setting.step, trainings.setting
    for q, row in enumerate((3, 40)):
        parameters, state = setting.parameters, setting.state
        summed = {name: torch.zeros_like(one) for name, one in parameters.items()}
        batch = step.rows.batch([row], [int(trainings.labels[row])])
        for t in range(1, spec.steps + 1):
            own = torch.func.grad(lambda p, b=batch: step.classifier.losses(b, p).mean())(parameters)
            summed = {name: one - 0.05 * own[name] for name, one in summed.items()}
            nothing = torch.zeros(1, dtype=torch.float64)
            parameters, state = step(parameters, state, nothing, trainings.group(row), t - 1)
            slope = torch.func.grad(trainings.loss)(parameters)
            expected = -0.01 * sum(float((slope[name] * summed[name]).sum()) for name in summed)
            assert found.additive[q][t] == pytest.approx(expected, rel=1e-9)
        assert found.additive[q][1] == pytest.approx(found.exact[q][1], rel=1e-9)  # one step: the two agree
        assert found.additive[q][-1] != pytest.approx(found.exact[q][-1], rel=1e-6)


def test_a_row_is_kept_by_itself_for_any_weight(opened, tmp_path):
    spec = spec_of(opened)
    assert registry.forecast_ready(opened, spec) is None
    assert not opened.artefacts.find("forecast")
    found = value(spec, tmp_path)
    assert registry.forecast_ready(opened, spec) == found
    alone = registry.forecast_ready(opened, spec.model_copy(update={"rows": spec.rows[1:], "epsilon": 0.03}))
    np.testing.assert_allclose(alone.exact[0], -3 * np.array(found.exact[1]))
    assert alone.labels == found.labels[1:]
    further = spec.model_copy(update={"rows": (spec.rows[0], str(opened.train["id"].iloc[7]))})
    assert registry.forecast_ready(opened, further) is None
    events = list(registry.start(further, tmp_path))
    assert [event.total for event in events if isinstance(event, Progress)][-1] == spec.steps  # of the new row alone
    np.testing.assert_allclose(events[-1].value["exact"][0], found.exact[0], rtol=1e-12)
    for name, other in {"steps": 4, "seed": 1, "learning_rate": 0.04, "batch_size": 8, "scope": "head"}.items():
        assert registry.forecast_ready(opened, spec.model_copy(update={name: other})) is None, name


def test_a_relabelled_row_is_forecast_anew(opened, tmp_path):
    spec = spec_of(opened, steps=1)
    before = value(spec, tmp_path)
    other = next(name for name in opened.label_names if name != before.labels[0])
    opened.relabel(spec.rows[0], other, expect=before.labels[0], annotator="a")
    assert registry.forecast_ready(opened, spec) is None
    after = value(spec, tmp_path)
    assert after.labels[0] == other
    assert np.sign(after.exact[0][1]) == -np.sign(before.exact[0][1])
    assert after.exact[1] == before.exact[1]


def test_rows_that_are_none_are_refused_in_a_line(opened, tmp_path):
    test, train = (str(opened.dataset.splits[split]["id"].iloc[1]) for split in ("test", "train"))
    for options, words in (
        ({"rows": (test,)}, "takes ids of training rows"),
        ({"rows": ("nowhere",)}, "there is no example 'nowhere'"),
        ({"example": train}, "is a training row"),
    ):
        with pytest.raises(UserError, match=words):
            list(registry.start(spec_of(opened, **options), tmp_path))
    for wrong, words in (({"rows": ()}, "at least"), ({"rows": ("x",) * 9}, "at most"), ({"repeats": 2}, "choose")):
        with pytest.raises(UserError, match=words):
            opened.spec(ForecastSpec, {"example": test, "rows": (train,), **wrong})


def test_the_command_prints_both_predictions(opened, capsys):
    spec = spec_of(opened)

    def call(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(["forecast", opened.name, "--example", spec.example, *arguments])
        return int(caught.value.code or 0), *capsys.readouterr()

    sizes = ["--row", spec.rows[0], "--steps", "2", "--batch-size", "16", "--optimizer", "sgd"]
    code, out, err = call(*sizes, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["rows"] == [spec.rows[0]]
    assert [len(curve) for curve in (found["exact"][0], found["additive"][0])] == [3, 3]
    code, out, err = call(*sizes)
    assert code == 0, err
    assert f"{spec.rows[0]} Eq. 6" in out
    assert f"{spec.rows[0]} Eq. 2" in out
    assert "sgd (zeros state) at 0.001" in out
    code, out, err = call("--row", "nowhere")
    assert (code, out) == (2, "")
    assert "error: " in err
