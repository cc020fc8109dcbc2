"""Several corrections on the same charts."""

import math
from dataclasses import replace

import pytest
from test_charts import make, title, trace

from influence_core.charts import theme
from influence_core.charts.correction_compared import compared
from influence_core.charts.followed import Followed
from influence_core.events import Reading, SetStep

ONE = Followed("this run: proponents", "this run", "proponents", make([0.1, 0.3, 0.6], retained=[1, 1, 0.94]))
TWO = Followed("random rows, run 2", "run 2", "random", make([0.1, 0.2, 0.3, 0.4]))
BOTH = [ONE, TWO]
POS, SET = {"row": "pos"}, {"a": "p", "b": "p"}  # desired labels by example


def dotted(figure):
    """Names and values of the lines of runs without correction."""
    return {line.name: line.y for line in figure.data if line.mode == "lines" and line.name.startswith("without")}


def test_a_line_a_run_in_its_strategys_colour_with_its_flip():
    figure = compared(BOTH, POS, "probability")
    assert trace(figure, "this run: proponents").y == (0.1, 0.3, 0.6)
    assert trace(figure, "random rows, run 2").y == (0.1, 0.2, 0.3, 0.4)
    runs = [line for line in figure.data if line.mode == "lines" and line.name not in dotted(figure)]
    assert [line.line.color for line in runs] == [theme.PROPONENT, theme.NEUTRAL]
    flips = [trace for trace in figure.data if trace.mode == "markers"]
    assert [(flip.x, flip.y) for flip in flips] == [((2,), (0.6,))]
    assert title(figure) == "Probability of “pos”: 0.6 at the flip, step 2 in this run; 0.4 at step 3 in run 2"


def test_a_run_without_correction_that_all_share_is_drawn_once_as_far_as_it_is_known():
    figure = compared(BOTH, POS, "probability")
    assert dotted(figure) == {"without correction": (0.1, 0.1, 0.1, 0.1)}  # of the longer run
    line = trace(figure, "without correction").line
    assert (line.color, line.dash) == (theme.NEUTRAL, "dot")
    for what in ("divergence", "retention"):
        assert not dotted(compared(BOTH, POS, what))


def test_runs_without_correction_that_differ_are_each_drawn_and_named():
    other = replace(TWO, settings="another seed", steps=make([0.1, 0.2, 0.3], base=0.2))
    third = replace(TWO, name="third", short="run 3", strategy="opponents")
    figure = compared([ONE, other, third], POS, "probability")
    assert dotted(figure) == {
        "without correction, of this run and run 3": (0.1, 0.1, 0.1, 0.1),
        "without correction, of run 2": (0.2, 0.2, 0.2),
    }
    lines = [trace(figure, name).line for name in dotted(figure)]
    assert lines[0].dash != lines[1].dash
    assert {trace(figure, each.name).line.dash for each in (ONE, other, third)}.isdisjoint(
        {each.dash for each in lines}
    )


def test_equal_settings_with_other_readings_are_no_shared_run():
    moved = [step.model_copy(update={"base_probability": 0.1 + 0.05 * step.step}) for step in TWO.steps]
    assert len(dotted(compared([ONE, replace(TWO, steps=moved)], POS, "probability"))) == 2
    noisy = [step.model_copy(update={"base_probability": 0.1 + 1e-6 * step.step}) for step in TWO.steps]
    assert len(dotted(compared([ONE, replace(TWO, steps=noisy)], POS, "probability"))) == 1


def test_a_flip_by_itself_is_in_the_title():
    own = [step.model_copy(update={"base_prediction": "pos"}) if step.step == 3 else step for step in TWO.steps]
    late = replace(TWO, steps=own)
    assert late.by_itself(POS) == [3]
    assert ONE.by_itself(POS) == [None]
    said = title(compared([ONE, late], POS, "probability"))
    assert said.endswith("in run 2; without correction it flips by itself at step 3")
    said = title(compared([ONE, replace(late, settings="another seed")], POS, "probability"))
    assert said.endswith("; without correction it does not (this run), it flips by itself at step 3 (run 2)")
    both = [late, replace(late, short="run 3", settings="another seed")]
    assert title(compared(both, POS, "probability")).endswith("run 3; without correction it flips by itself at step 3")


def test_two_runs_of_one_strategy_are_told_apart():
    figure = compared([ONE, Followed("another", "run 3", "proponents", ONE.steps)], POS, "retention")
    assert trace(figure, "another").line.dash != trace(figure, "this run: proponents").line.dash
    assert trace(figure, "another").y == pytest.approx((100, 100, 94))
    assert title(figure).startswith("Retention: 94 % at the flip, step 2 in this run; 94 %")


def several(flips, alone=()):
    """Steps at which so many flipped, and by themselves those examples whose step of ``alone`` has come."""
    return [
        SetStep(
            step=n,
            flipped=flipped,
            divergence=0.01 * n,
            examples=[reading(e, alone=e in dict(alone) and n >= dict(alone)[e]) for e in "ab"],
            integrated_lr=0.0,
            retention=1.0,
            changed=[],
        )
        for n, flipped in enumerate(flips)
    ]


def reading(example, alone):
    base = {"base_probability": 0.6 if alone else 0.4, "base_prediction": "p" if alone else "n"}
    return Reading(example=example, loss=1, probability=0.5, prediction="n", **base)


def test_runs_of_several_rows_show_how_many_flipped():
    runs = [
        Followed("one", "this run", "proponents", several([0, 1, 2])),
        Followed("two", "run 2", "random", several([0, 1, 1])),
    ]
    figure = compared(runs, SET, "flipped")
    assert title(figure) == "Rows predicted as desired: 2 at the flip, step 2 in this run; 1 at step 2 in run 2"
    assert (trace(figure, "two").y, trace(figure, "two").line.shape) == ((0, 1, 1), "hv")
    assert trace(compared(runs, SET, "divergence"), "one").x == (1, 2)
    assert dotted(figure) == {"without correction": (0, 0, 0)}


def test_of_several_rows_those_that_flip_by_themselves_are_counted():
    runs = [
        Followed("one", "this run", "proponents", several([0, 1, 2], [("b", 1)])),
        Followed("two", "run 2", "random", several([0, 1, 1])),
    ]
    figure = compared(runs, SET, "flipped")
    assert dotted(figure) == {
        "without correction, of this run": (0, 1, 1),
        "without correction, of run 2": (0, 0, 0),
    }
    assert trace(figure, "without correction, of this run").line.shape == "hv"
    assert runs[0].by_itself(SET) == [None, 1]
    assert title(figure).endswith(
        "; without correction 1 of 2 flip by themselves (this run), none of 2 flip by themselves (run 2)"
    )


def test_a_long_title_and_a_long_legend_leave_the_plot_its_height():
    few, many = (
        compared(
            [replace(TWO, name=f"run number {n}", short=f"run {n}", settings=n) for n in range(count)],
            POS,
            "probability",
        )
        for count in (1, 4)
    )
    lines = [figure.layout.title.text.count("<br>") for figure in (few, many)]
    names = [len(figure.data) for figure in (few, many)]
    grown = 20 * (lines[1] - lines[0] + names[1] - names[0])
    assert grown > 100
    assert many.layout.height - few.layout.height == grown


def test_a_distance_that_a_log_axis_cannot_show_is_left_out():
    broken = Followed(
        "b", "run 4", "opponents", [*TWO.steps[:2], TWO.steps[2].model_copy(update={"divergence": math.inf})]
    )
    figure = compared([ONE, broken], POS, "divergence")
    assert trace(figure, "this run: proponents").x == (1, 2)
    assert trace(figure, "b").x == (1,)
    assert figure.layout.yaxis.type == "log"
