"""Charts of the studies say in words what their tables show; asserted on figure data of hand-made rows."""

import math

import pytest

from influence_core.charts import PROPONENT, alt_text, fading, fading_distance, phases, theme, tracin_error


def curve(method, r, faded_at=None, half=0.1, **more):
    return {
        "method": method,
        "steps": list(range(1, len(r) + 1)),
        "r": r,
        "low": [None if value is None else value - half for value in r],
        "high": [None if value is None else value + half for value in r],
        "distance": [0.0 if value is None else max(0.0, abs(value) - half) for value in r],
        "faded_at": faded_at,
        **more,
    }


ROWS = [curve("tracin", [0.7, 0.9, 0.4, 0.05], faded_at=4), curve("random", [0.02, 0.0, -0.03, 0.01])]


def lines(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def test_r_is_drawn_with_its_band_and_the_fading_step():
    figure = fading(ROWS)
    (line,) = lines(figure, "TracIn")
    assert list(line.x) == [1, 2, 3, 4]
    assert list(line.y) == [0.7, 0.9, 0.4, 0.05]
    assert line.hovertext[1] == "TracIn, step 2: 0.9 (0.8 to 1)"
    (band,) = lines(figure, "TracIn, 95 % band")
    assert list(band.x) == [1, 2, 3, 4, 4, 3, 2, 1]
    assert list(band.y) == pytest.approx([0.8, 1.0, 0.5, 0.15, -0.05, 0.3, 0.8, 0.6])
    (mark,) = [trace for trace in figure.data if trace.marker.symbol == "x"]
    assert (list(mark.x), list(mark.y)) == ([4], [0.05])
    assert figure.layout.meta["title"] == "TracIn peaks at 0.9 (step 2), faded by step 4"
    assert "over 4 steps" in alt_text(figure)
    low, high = figure.layout.yaxis.range
    assert low <= -0.13
    assert high >= 1


def test_a_band_that_holds_zero_throughout_has_nothing_to_fade():
    figure = fading([curve("tracin", [0.05, 0.02, 0.04], faded_at=2)])
    assert not [trace for trace in figure.data if trace.marker.symbol == "x"]
    assert figure.layout.meta["title"] == "TracIn peaks at 0.05 (step 1), its band holds zero throughout"


def test_controls_are_grey_and_methods_are_not():
    figure = fading([*ROWS, curve("hif-cr", [0.5, 0.6]), curve("embedding", [0.1, 0.1])])
    colours = {trace.name: (trace.line.color, trace.line.dash) for trace in figure.data if trace.showlegend is None}
    assert colours["TracIn"][0] == PROPONENT
    assert colours["Hessian-based, Conjugate Residual"][0] != PROPONENT
    controls = [colours["Random (control)"], colours["Embedding (control)"]]
    assert {colour for colour, _ in controls} == {theme.NEUTRAL}
    assert len(set(controls)) == 2
    assert "random" not in figure.layout.meta["title"].lower()


def test_steps_that_are_not_defined_leave_a_gap():
    figure = fading([curve("tracin", [None, 0.8, 0.6])])
    (line,) = lines(figure, "TracIn")
    assert list(line.y) == [None, 0.8, 0.6]
    (band,) = lines(figure, "TracIn, 95 % band")
    assert list(band.x) == [2, 3, 3, 2]
    assert "peaks at 0.8 (step 2), 0.6 at step 3" in figure.layout.meta["title"]


@pytest.mark.parametrize("draw", [fading, fading_distance])
def test_without_a_repeat_there_are_words(draw):
    for rows in ([], [curve("tracin", [None, None])]):
        figure = draw(rows)
        assert not figure.data
        assert "No repeat" in figure.layout.meta["title"]


def test_the_distance_to_zero():
    figure = fading_distance(ROWS)
    (line,) = lines(figure, "TracIn")
    assert list(line.y) == pytest.approx([0.6, 0.8, 0.3, 0.0])
    assert figure.layout.meta["title"] == "Distance of the band to zero after 4 steps: TracIn 0"


def series(epsilon, scale, repeat=0, fit=True):
    x = [0.1 * t for t in range(6)]
    distances = [0.0, *(scale * math.exp(3 * at) for at in x[1:])]
    found = {
        "slopes": [3.0, 3.0],
        "intercepts": [math.log(scale)] * 2,
        "breakpoint": 0.25,
        "r2": [1.0, 1.0],
        "aic": {},
        "best": "one line",
    }
    return {
        "repeat": repeat,
        "epsilon": epsilon,
        "integrated_lr": x,
        "divergence": distances,
        "fit": found if fit else None,
    }


def test_divergence_by_epsilon_with_its_fit():
    figure = phases([series(0.1, 1e-3), series(1.0, 1e-2, repeat=1)])
    (line,) = lines(figure, "ε = 0.1")
    assert list(line.x) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])  # step 0 has no logarithm
    assert lines(figure, "ε = 1, repeat 2")
    (fit,) = lines(figure, "ε = 0.1: slopes 3 and 3")
    assert list(fit.x) == pytest.approx([0.1, 0.25, 0.5])
    assert list(fit.y) == pytest.approx([1e-3 * math.exp(3 * at) for at in (0.1, 0.25, 0.5)])
    assert figure.layout.yaxis.type == "log"
    assert figure.layout.meta["title"] == "Second phase with slope 3; best described by one line in 2 of 2"
    assert "too few steps" in phases([series(0.1, 1e-3, fit=False)]).layout.meta["title"]
    assert "No repeat" in phases([]).layout.meta["title"]


def test_tracins_error_by_epsilon_and_precision():
    rows = [
        {"repeat": 0, "dtype": dtype, "epsilon": epsilon, "ratio": [1.0, ratio]}
        for dtype, ratios in (("float64", (2470.0, 4.4)), ("float32", (46.0, 4.4)))
        for epsilon, ratio in zip((1e-4, 1e-1), ratios, strict=True)
    ]
    figure = tracin_error(rows)
    assert [trace.name for trace in figure.data] == ["float64", "float32"]
    assert list(figure.data[0].x) == [1e-4, 1e-1]
    assert list(figure.data[1].y) == [46.0, 4.4]
    assert "2,470 at ε = 0.0001 in float64" in figure.layout.meta["title"]
    assert "46 at ε = 0.0001 in float32" in figure.layout.meta["title"]
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    nothing = tracin_error([{"repeat": 0, "dtype": "float64", "epsilon": 0.1, "ratio": [None]}])
    assert "No repeat" in nothing.layout.meta["title"]


def bounded(**more):
    row = series(0.1, 1e-3)
    bound, tight = ([0.0, *(factor * value for value in row["divergence"][1:])] for factor in (100.0, 2.0))
    return {**row, "bound": bound, "bound_tight": tight, "bounds_unavailable": None, **more}


def test_theorem_3_is_thin_and_said_to_be_estimated_from_below():
    figure = phases([bounded(), series(1.0, 1e-2)])
    named = {trace.name: trace for trace in figure.data if "Theorem 3" in trace.name or "product" in trace.name}
    assert len(named) == 2
    for name, trace in named.items():
        assert "estimated from below" in name
        assert trace.line.width == 1
        assert trace.line.color == lines(figure, "ε = 0.1")[0].line.color
        assert list(trace.x) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    title = figure.layout.meta["title"]
    assert "bound (8) 100 times the distance (estimated from below)" in title
    assert "tighter form 2 times" in title


def test_a_bound_that_explodes_does_not_flatten_the_chart():
    end = series(0.1, 1e-3)["divergence"][-1]
    figure = phases([bounded(bound=[0.0, 1e-3, 1.0, 1e9, 1e200, None])])
    (trace,) = [trace for trace in figure.data if "Theorem 3" in trace.name]
    assert list(trace.y) == [1e-3, 1.0]
    assert max(trace.y) <= 1e3 * end
    assert "bound (8) infinite times" in figure.layout.meta["title"]
    why = phases([bounded(bound=None, bound_tight=None, bounds_unavailable="Theorem 3 is proved for SGD")])
    assert "no bound: Theorem 3 is proved for SGD" in why.layout.meta["title"]
    assert len(why.data) == 2


def test_a_figure_of_its_own_has_its_title_in_long_lines_on_white():
    figure = fading([curve(name, [1.0, 0.5, 0.0], faded_at=3) for name in ("tracin", "abif", "hif-cr")])
    narrow = figure.layout.title.text
    wide = theme.standalone(figure).layout
    assert wide.paper_bgcolor == "white"
    assert wide.title.text.replace("<br>", " ") == narrow.replace("<br>", " ")
    assert wide.title.text.count("<br>") < narrow.count("<br>")


def test_the_noise_floor_is_drawn_where_it_is_not_exactly_zero():
    row = {"repeat": 0, "epsilon": 0.1, "integrated_lr": [0.0, 0.1, 0.2], "divergence": [0.0, 0.01, 0.02], "fit": None}
    assert not any("floor" in str(trace.name) for trace in phases([{**row, "noise": [0.0] * 3}, row]).data)
    figure = phases([{**row, "noise": [0.0, 1e-8, 3e-8]}, {**row, "epsilon": 1.0, "noise": [0.0, 1e-8, 3e-8]}])
    (floor,) = lines(figure, "ε = 0, the noise floor")  # one a repeat, whatever the ε
    assert (floor.x, floor.y, floor.line.dash) == ((0.1, 0.2), (1e-8, 3e-8), "dot")
