"""Several corrections on the same charts."""

import math

import pytest
from test_charts import make, title, trace

from influence_core.charts import theme
from influence_core.charts.correction_compared import Followed, compared
from influence_core.events import Reading, SetStep

ONE = Followed("this run: proponents", "this run", "proponents", make([0.1, 0.3, 0.6], retained=[1, 1, 0.94]))
TWO = Followed("random rows, run 2", "run 2", "random", make([0.1, 0.2, 0.3, 0.4]))
BOTH = [ONE, TWO]


def test_a_line_a_run_in_its_strategys_colour_with_its_flip():
    figure = compared(BOTH, "pos", "probability")
    assert trace(figure, "this run: proponents").y == (0.1, 0.3, 0.6)
    assert trace(figure, "random rows, run 2").y == (0.1, 0.2, 0.3, 0.4)
    colours = {trace.name: trace.line.color for trace in figure.data if trace.mode == "lines"}
    assert list(colours.values()) == [theme.PROPONENT, theme.NEUTRAL]
    flips = [trace for trace in figure.data if trace.mode == "markers"]
    assert [(flip.x, flip.y) for flip in flips] == [((2,), (0.6,))]
    assert title(figure) == "Probability of “pos”: 0.6 at the flip, step 2 in this run; 0.4 at step 3 in run 2"


def test_two_runs_of_one_strategy_are_told_apart():
    figure = compared([ONE, Followed("another", "run 3", "proponents", ONE.steps)], "pos", "retention")
    assert trace(figure, "another").line.dash != trace(figure, "this run: proponents").line.dash
    assert trace(figure, "another").y == pytest.approx((100, 100, 94))
    assert title(figure).startswith("Retention: 94 % at the flip, step 2 in this run; 94 %")


def several(flips):
    readings = [
        Reading(example=e, loss=1, probability=0.5, prediction="n", base_probability=0.5, base_prediction="n")
        for e in "ab"
    ]
    about = {"examples": readings, "integrated_lr": 0.0, "retention": 1.0, "changed": []}
    return [SetStep(step=n, flipped=flipped, divergence=0.01 * n, **about) for n, flipped in enumerate(flips)]


def test_runs_of_several_rows_show_how_many_flipped():
    runs = [
        Followed("one", "this run", "proponents", several([0, 1, 2])),
        Followed("two", "run 2", "random", several([0, 1, 1])),
    ]
    figure = compared(runs, "", "flipped")
    assert title(figure) == "Rows predicted as desired: 2 at the flip, step 2 in this run; 1 at step 2 in run 2"
    assert (trace(figure, "two").y, trace(figure, "two").line.shape) == ((0, 1, 1), "hv")
    assert trace(compared(runs, "", "divergence"), "one").x == (1, 2)


def test_a_distance_that_a_log_axis_cannot_show_is_left_out():
    broken = Followed(
        "b", "run 4", "opponents", [*TWO.steps[:2], TWO.steps[2].model_copy(update={"divergence": math.inf})]
    )
    figure = compared([ONE, broken], "pos", "divergence")
    assert trace(figure, "this run: proponents").x == (1, 2)
    assert trace(figure, "b").x == (1,)
    assert figure.layout.yaxis.type == "log"
