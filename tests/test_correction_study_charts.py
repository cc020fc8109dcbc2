"""Charts of the correction study say in words what its table shows."""

import pytest

from influence_core.charts import (
    OPPONENT,
    PROPONENT,
    alt_text,
    correction_methods,
    correction_outcome,
    correction_retention,
    correction_steps,
    correction_success,
    retrained,
    theme,
)
from influence_core.settings import METHOD_NAMES


def interval(value, half=0.1, n=30):
    known = value is not None
    return {"value": value, "low": value - half if known else None, "high": value + half if known else None, "n": n}


def cell(strategy, share, success, method="abif", by="cosine", n=30, steps=8.0):
    if strategy == "random":
        method = by = None
    return {
        "strategy": strategy,
        "method": method,
        "by": by,
        "share": share,
        "mispredictions": n,
        "success": interval(success),
        "retention": interval(None if success is None else 0.95, 0.01),
        "steps": interval(steps, 2.0),
        "median_steps": 7.0,
        "by_itself": interval(0.1),
    }


CELLS = [
    cell(strategy, share, success + share / 10)
    for strategy, success in (("proponents", 0.8), ("opponents", 0.7), ("random", 0.5), ("permuted", 0.6))
    for share in (0.52, 0.27)
]


def named(figure, name):
    (found,) = [trace for trace in figure.data if trace.name == name]
    return found


def test_the_axis_names_the_shares_that_were_studied_and_no_others():
    figure = correction_success(CELLS)
    assert list(figure.layout.xaxis.tickvals) == [0.27, 0.52]
    assert list(figure.layout.xaxis.ticktext) == ["27 %", "52 %"]
    one = correction_success([row for row in CELLS if row["share"] == 0.27]).layout.xaxis
    assert list(one.tickvals) == [0.27]
    assert one.range[0] < 0.2 < 0.3 < one.range[1]  # the lines' points, apart by less, are in the middle


def test_each_strategy_is_a_line_with_its_intervals():
    figure = correction_success(CELLS)
    line = named(figure, "proponents (+)")
    assert list(line.y) == pytest.approx([0.827, 0.852])  # by rising share
    assert list(line.x) == pytest.approx([0.27, 0.52], abs=0.02)
    assert list(line.error_y.array) == pytest.approx([0.1, 0.1])
    assert list(line.error_y.arrayminus) == pytest.approx([0.1, 0.1])
    assert line.line.color == PROPONENT
    assert named(figure, "opponents (−)").line.color == OPPONENT
    controls = [named(figure, name) for name in ("random rows (control)", "another's proponents (control)")]
    assert {trace.line.color for trace in controls} == {theme.NEUTRAL}
    assert controls[0].line.dash != controls[1].line.dash
    assert list(named(figure, "by itself, without a correction").y) == [0.1, 0.1]
    assert "share 52 %: 85.2 % (75.2 % to 95.2 %), 30 mispredictions" in line.hovertext[1]


def test_the_title_says_what_was_reached_without_up_sampling():
    figure = correction_success(CELLS)
    expected = "Corrected at a share of 27 %: 82.7 % by proponents (+), 72.7 % by opponents (−), "
    assert figure.layout.meta["title"].startswith(expected)
    assert "with 95 % intervals" in alt_text(figure)


def test_points_of_one_share_do_not_hide_each_other():
    x = [trace.x[0] for trace in correction_retention(CELLS).data]
    assert len(set(x)) == 4
    assert max(x) - min(x) < 0.05


def test_methods_and_orders_are_named_where_there_are_several():
    cells = [cell("proponents", 0.3, 0.8), cell("proponents", 0.3, 0.7, by="score"), cell("random", 0.3, 0.5)]
    names = [trace.name for trace in correction_retention(cells).data]
    assert names == ["proponents (+), ABIF by cosine", "proponents (+), ABIF by dot product", "random rows (control)"]
    assert len({trace.marker.symbol for trace in correction_retention(cells).data}) == 3


def test_steps_tell_the_median_and_leave_out_what_never_flipped():
    cells = [cell("proponents", 0.3, 0.8), cell("random", 0.3, 0.0, steps=None)]
    figure = correction_steps(cells)
    assert [trace.name for trace in figure.data] == ["proponents (+)"]
    assert "8 (6 to 10), median 7, 30 mispredictions" in figure.data[0].hovertext[0]


def test_nothing_yet_is_said_in_words():
    for chart in (correction_success, correction_retention, correction_steps):
        figure = chart([cell("proponents", 0.3, None, n=0, steps=None)])
        assert "No correction has been made yet" in figure.layout.meta["title"]
        assert not figure.data


def by_method():
    ways = [("abif", "cosine", 0.8), ("abif", "score", 0.4), ("tracin", "cosine", 0.9), ("tracin", "score", 0.3)]
    own = [cell("proponents", 0.27, share, method=method, by=by) for method, by, share in ways]
    return [*own, cell("random", 0.27, 0.7), cell("opponents", 0.27, 0.6)]


def test_several_methods_at_one_share_are_drawn_by_method():
    figure = correction_outcome(by_method())
    assert list(figure.layout.xaxis.ticktext) == ["ABIF", "TracIn"]
    by_cosine, by_score = named(figure, "proponents (+) by cosine"), named(figure, "proponents (+) by dot product")
    assert (by_cosine.y, by_score.y) == ((0.8, 0.9), (0.4, 0.3))
    assert [round(x) for x in by_cosine.x] == [0, 1]
    assert by_cosine.marker.symbol != by_score.marker.symbol
    assert list(by_score.error_y.array) == pytest.approx([0.1, 0.1])
    others = named(figure, "opponents (−) by cosine")
    assert (others.y, others.marker.color) == ((0.6,), OPPONENT)
    said = [
        "80 % to 90 % by proponents (+) by cosine",
        "30 % to 40 % by proponents (+) by dot product",
        "60 % by opponents (−) by cosine",
        "70 % by random rows (dotted, with their interval)",
    ]
    assert figure.layout.meta["title"] == f"Corrected at a share of 27 %: {'; '.join(said)}"
    assert said[-1] in alt_text(figure)
    (line, band) = figure.layout.shapes
    assert (line.y0, band.y0, band.y1) == pytest.approx((0.7, 0.6, 0.8))


def test_a_method_that_ranked_for_few_is_said_to_be_of_these():
    few = cell("proponents", 0.27, 1.0, method="hif-cg", n=2)
    figure = correction_outcome([*by_method(), few])
    name = METHOD_NAMES["hif-cg"]
    assert list(figure.layout.xaxis.ticktext) == ["ABIF", "TracIn", f"{name}<br>2 of 30"]
    assert figure.layout.meta["title"].endswith(f"; {name} of 2 of 30 mispredictions")


def test_one_method_or_several_shares_are_drawn_against_the_share():
    assert correction_outcome(CELLS) == correction_success(CELLS)
    shares = [*by_method(), cell("random", 0.52, 0.9)]
    assert correction_outcome(shares) == correction_success(shares)
    without = [row for row in by_method() if row["strategy"] == "random"]
    assert correction_methods(without) == correction_success(without)


def trained(strategy, flipped, by_itself, by_seeds, n=30):
    shares = {"flipped": flipped, "by_itself": by_itself, "by_seeds": by_seeds}
    return {"strategy": strategy, "mispredictions": n, **{name: interval(value) for name, value in shares.items()}}


def test_flips_after_training_again_stand_beside_those_without_relabels():
    figure = retrained(
        [trained("proponents", 0.4, 0.1, 0.2), trained("gold", 0.3, None, None, 8), trained("x", 0, 0, 0, 0)]
    )
    assert [trace.name for trace in figure.data] == [
        "with the relabels",
        "the same training without",
        "without, other seeds",
    ]
    assert [trace.y for trace in figure.data] == [(0.4, 0.3), (0.1,), (0.2,)]
    assert list(figure.data[0].error_y.arrayminus) == pytest.approx([0.1, 0.1])
    assert figure.layout.meta["title"] == (
        "Trained again: 40 % of 30 flip with proponents' relabels, 10 % without; "
        "30 % of 8 flip with true labels of mislabelled proponents"
    )
    assert "No training has been made" in alt_text(retrained([]))
