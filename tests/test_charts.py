"""Charts say in words what their data shows; asserted on figure data of hand-made inputs."""

import json
import math
import re

import numpy as np
import plotly.graph_objects as go
import pytest

from influence_core.charts import (
    OPPONENT,
    PROPONENT,
    Solve,
    alt_text,
    confusion,
    confusion_counts,
    curvatures,
    divergence,
    find_flip,
    inert,
    loss,
    number,
    parting,
    percent,
    probability,
    residual_history,
    retention,
    spectrum,
    theme,
)
from influence_core.events import Step

EVIL = "<b>x</b><img src=x onerror=1> & $\\alpha$"
CORRECTION_CHARTS = [probability, loss, divergence, retention]


def make(probabilities, *, base=0.1, retained=None, changed=None, learning_rate=0.5):
    """Steps whose prediction is "pos" from probability 0.5 on, else "neg"."""
    base_label = "pos" if base >= 0.5 else "neg"
    return [
        Step(
            step=at,
            loss=-math.log(p),
            probability=p,
            prediction="pos" if p >= 0.5 else "neg",
            base_loss=-math.log(base),
            base_probability=base,
            base_prediction=base_label,
            divergence=0.01 * at,
            integrated_lr=learning_rate * at,
            retention=1.0 if retained is None else retained[at],
            changed=[] if changed is None else changed[at],
        )
        for at, p in enumerate(probabilities)
    ]


def title(figure):
    return figure.layout.title.text.replace("<br>", " ")


def trace(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


FLIP = make([0.1, 0.3, 0.6], retained=[1, 1, 0.94], changed=[[], [], ["r3", "r4", "r5"]])


def test_flip_is_found_and_marked_in_every_chart():
    assert find_flip(FLIP, "pos") == 2
    expected = {probability: (2, 0.6), loss: (2, -math.log(0.6)), divergence: (1.0, 0.02), retention: (2, 94)}
    for chart, (x, y) in expected.items():
        mark = trace(chart(FLIP, "pos", 2), "flip at step 2")
        assert mark.x == (x,)
        assert mark.y == pytest.approx((y,))


def test_probability_has_the_uncorrected_run_dotted_beside_it():
    figure = probability(FLIP, "pos", 2)
    with_, without = trace(figure, "with correction"), trace(figure, "without correction")
    assert (with_.x, with_.y) == ((0, 1, 2), (0.1, 0.3, 0.6))
    assert (without.x, without.y) == ((0, 1, 2), (0.1, 0.1, 0.1))
    assert (with_.line.color, with_.line.dash) == (PROPONENT, None)
    assert without.line.dash == "dot"
    assert title(figure) == "Probability of “pos” rose from 0.1 to 0.6 at the flip"
    assert figure.layout.xaxis.title.text == "step"
    assert figure.layout.yaxis.title.text == "probability of “pos”"


def test_loss_is_in_nats():
    figure = loss(FLIP, "pos", 2)
    assert title(figure) == "Loss of “pos” fell from 2.3 to 0.511 nats at the flip"
    assert figure.layout.yaxis.title.text == "loss (nats)"
    assert trace(figure, "with correction").y == pytest.approx([-math.log(p) for p in (0.1, 0.3, 0.6)])


def test_divergence_is_on_a_log_axis_against_the_summed_rate_and_zeros_are_noted():
    figure = divergence(FLIP, "pos", 2)
    line = trace(figure, "distance")
    assert line.x == (0.5, 1.0)
    assert line.y == (0.01, 0.02)
    assert figure.layout.yaxis.type == "log"
    assert "Σ η" in figure.layout.xaxis.title.text
    assert [note.text for note in figure.layout.annotations] == ["steps not drawn: 1 at distance 0"]
    assert title(figure) == "Distance from the uncorrected run reached 0.02 at the flip"


def test_divergence_without_zeros_has_no_note_and_a_broken_one_is_said():
    assert not divergence(FLIP[1:], "pos", 2).layout.annotations
    broken = [*FLIP, FLIP[2].model_copy(update={"step": 3, "divergence": math.inf})]
    figure = divergence(broken, "pos", None)
    assert [note.text for note in figure.layout.annotations] == ["steps not drawn: 1 at distance 0, 1 not finite"]
    assert title(figure) == "Distance from the uncorrected run reached infinite after 3 steps"


def test_retention_drop_is_the_title():
    figure = retention(FLIP, "pos", 2)
    assert title(figure) == "Retention fell to 94 % at the flip, 3 rows changed"
    assert trace(figure, "retention").y == (100, 100, 94)
    assert figure.layout.yaxis.range[0] <= 88
    deep = retention(make([0.1, 0.2], retained=[1, 0.5], changed=[[], ["r1"]]), "pos", None)
    assert title(deep) == "Retention fell to 50 % after 1 step, 1 row changed"
    assert deep.layout.yaxis.range[0] < 50


def test_retention_near_and_far_are_quieter_lines_with_words():
    halves = zip(FLIP, (1.0, 1.0, 0.88), (1.0, 1.0, 1.0), strict=True)
    steps = [step.model_copy(update={"near_retention": near, "far_retention": far}) for step, near, far in halves]
    figure = retention(steps, "pos", 2)
    assert title(figure) == (
        "Retention fell to 94 % at the flip, 3 rows changed: 88 % of the similar half, 100 % of the others"
    )
    near, far = trace(figure, "the similar half"), trace(figure, "the others")
    assert (near.y, far.y) == ((100, 100, 88), (100, 100, 100))
    whole = trace(figure, "retention")
    assert near.line.width < whole.line.width
    assert near.line.color != whole.line.color
    assert near.line.dash != far.line.dash
    assert figure.layout.yaxis.range[0] < 88
    assert {each.name for each in retention(FLIP, "pos", 2).data} == {"retention", "flip at step 2"}  # older runs
    assert "half" not in title(retention(steps, "pos", 1))  # nothing changed by then


def test_retention_is_told_at_the_flip_even_if_it_falls_later():
    steps = make([0.1, 0.6, 0.7], retained=[1, 1, 0.8])
    assert title(retention(steps, "pos", 1)) == "Retention stayed at 100 % at the flip"
    assert title(retention(steps, "pos", None)) == "Retention fell to 80 % after 2 steps"


def test_no_flip_is_said_and_nothing_is_marked():
    steps = make([0.2, 0.2, 0.15])
    assert find_flip(steps, "pos") is None
    assert title(probability(steps, "pos", None)) == (
        "Probability of “pos” fell from 0.2 to 0.15 after 2 steps; no flip so far"
    )
    for chart in CORRECTION_CHARTS:
        assert not [t for t in chart(steps, "pos", None).data if t.name.startswith("flip")]


def test_the_free_control_is_said():
    figure = probability(make([0.1, 0.6], base=0.7), "pos", 1)
    assert (
        title(figure) == "Probability of “pos” rose from 0.1 to 0.6 at the flip; without correction it flips at step 0"
    )


def test_flip_at_step_0():
    steps = make([0.8, 0.9], base=0.8)
    assert title(probability(steps, "pos", 0)) == (
        "Probability of “pos” is 0.8 at step 0, where the label is predicted already"
    )
    assert title(retention(steps, "pos", 0)) == "Retention is 100 % at step 0, where the label is predicted already"
    assert title(divergence(steps, "pos", 0)).startswith("Distance from the uncorrected run was 0 at step 0")
    assert trace(probability(steps, "pos", 0), "flip at step 0").y == (0.8,)
    # a log axis has no place for the mark at distance 0
    assert [t.name for t in divergence(steps, "pos", 0).data] == ["distance"]


def test_a_single_step():
    steps = make([0.2])
    assert title(probability(steps, "pos", None)) == "Probability of “pos” is 0.2 at step 0"
    assert title(loss(steps, "pos", None)) == "Loss of “pos” is 1.61 nats at step 0"
    assert title(retention(steps, "pos", None)) == "Retention is 100 % at step 0"
    assert title(divergence(steps, "pos", None)) == "No distance from the uncorrected run to draw so far"


@pytest.mark.parametrize("chart", CORRECTION_CHARTS)
def test_no_steps_are_words(chart):
    figure = chart([], "pos", None)
    assert len(figure.data) == 0
    assert title(figure).endswith(": no steps yet")
    assert alt_text(figure).startswith("Empty chart: ")


def test_equal_at_three_digits_is_stayed():
    assert title(probability(make([0.2, 0.20001]), "pos", None)).startswith("Probability of “pos” stayed at 0.2 after")


def test_a_loss_that_broke_is_said():
    steps = make([0.2, 0.3])
    steps[1] = steps[1].model_copy(update={"loss": math.nan})
    assert title(loss(steps, "pos", None)) == "Loss of “pos” went from 1.61 to not a number nats after 1 step"


@pytest.mark.parametrize("chart", CORRECTION_CHARTS)
def test_long_runs_are_thinned_but_keep_both_ends_and_the_flip(chart):
    steps = make(np.linspace(0.1, 0.9, 5_001).tolist())
    flip = find_flip(steps, "pos")
    figure = chart(steps, "pos", flip)
    line = figure.data[0]
    assert 1_000 < len(line.x) <= 2_000
    assert list(line.x) == sorted(set(line.x))
    x = {step.step: step.integrated_lr if chart is divergence else step.step for step in steps}
    assert {x[1 if chart is divergence else 0], x[flip], x[5_000]} <= set(line.x)


@pytest.mark.parametrize("length", [0, 1, 2, 1_999, 2_000, 2_001, 12_345])
def test_thinning_stays_under_the_limit(length):
    kept = theme.thin(length, keep=[length // 3])
    assert len(kept) <= 2_000
    assert kept == sorted(set(kept))
    assert length == 0 or {0, length // 3, length - 1} <= set(kept)
    assert length > 2_000 or kept == list(range(length))


def test_alt_texts_are_one_sentence_with_what_the_chart_shows():
    assert alt_text(probability(FLIP, "pos", 2)) == (
        "Line chart of the test row's probability over 2 steps: probability of “pos” rose from 0.1 to 0.6 at the flip."
    )
    for chart in CORRECTION_CHARTS:
        assert re.fullmatch(r"[^\n]+[a-z]\.", alt_text(chart(FLIP, "pos", 2)))
    assert alt_text(retention(FLIP, "pos", 2)).endswith("retention fell to 94 % at the flip, 3 rows changed.")


# --- confusion -------------------------------------------------------------------------------

TRUE = ["pos", "pos", "neg", "pos", "neg", "mixed"]
PREDICTED = ["pos", "neg", "neg", "neg", "pos", "mixed"]
NAMES = ["neg", "pos", "mixed"]


def test_counts_are_true_by_predicted():
    counts = confusion_counts(TRUE, PREDICTED, NAMES)
    assert counts.to_numpy().tolist() == [[1, 1, 0], [2, 1, 0], [0, 0, 1]]
    assert counts.loc["pos", "neg"] == 2
    assert (counts.index.name, counts.columns.name) == ("true", "predicted")
    numbers = confusion_counts(np.array([1, 1, 0, 1, 0, 2]), np.array([1, 0, 0, 0, 1, 2]), NAMES)
    assert numbers.equals(counts)


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        (["pos", "what"], ["pos", "pos"], "'what' of row 1"),
        ([0], [3], "3 of row 0"),
        ([-1], [0], "-1 of row 0"),
        (["pos"], ["pos", "neg"], "1 labels but 2 predictions"),
    ],
)
def test_counts_refuse_what_they_cannot_count(labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        confusion_counts(labels, predictions, NAMES)


def test_confusion_shows_counts_and_every_cell_can_be_clicked():
    figure = confusion(TRUE, PREDICTED, NAMES, revision="ws")
    cells, markers = figure.data
    assert [list(row) for row in cells.z] == [[1, 1, 0], [2, 1, 0], [0, 0, 1]]
    assert [list(row) for row in cells.text] == [["1", "1", "0"], ["2", "1", "0"], ["0", "0", "1"]]
    assert cells.texttemplate == "%{text}"
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("predicted", "true")
    assert list(figure.layout.xaxis.ticktext) == list(figure.layout.yaxis.ticktext) == NAMES
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]  # the first class on top, as in a table
    counts = confusion_counts(TRUE, PREDICTED, NAMES)
    for x, y, (true, predicted), hover in zip(markers.x, markers.y, markers.customdata, markers.hovertext, strict=True):
        assert (true, predicted) == (NAMES[y], NAMES[x])
        assert list(cells.customdata[y][x]) == [true, predicted]
        assert hover == f"true {true}, predicted {predicted}: {counts.loc[true, predicted]}"
    assert "select" in figure.layout.clickmode
    assert figure.layout.uirevision == "ws"
    assert title(figure) == "3 of 6 wrong, most often pos taken for neg (2)"
    assert alt_text(figure) == (
        "Confusion matrix of 6 rows and 3 classes: 3 of 6 wrong, most often pos taken for neg (2)."
    )


def test_confusion_of_many_classes_is_higher_and_leaves_zeros_out():
    few, many = ["a", "b"], [f"class {number}" for number in range(10)]
    small, large = confusion([0, 1], [1, 1], few), confusion([0, 9, 9], [1, 9, 9], many)
    assert [list(row) for row in small.data[0].text] == [["0", "1"], ["0", "1"]]
    written = {(i, j): text for i, row in enumerate(large.data[0].text) for j, text in enumerate(row) if text}
    assert written == {(0, 1): "1", (9, 9): "2"}
    assert large.layout.height > small.layout.height
    assert large.data[1].marker.size < small.data[1].marker.size  # as the cells are smaller
    assert len(large.data[1].customdata) == 100


def test_confusion_without_errors_and_without_rows():
    assert title(confusion(["pos"] * 1_200, ["pos"] * 1_200, NAMES)) == "All 1,200 predicted right"
    empty = confusion([], [], NAMES)
    assert len(empty.data) == 0
    assert title(empty) == "No predictions to count"


def test_many_classes_show_the_most_confused():
    names = [f"c{n}" for n in range(60)]
    true = [*range(60), 7, 59]
    predicted = [*range(60), 59, 7]
    figure = confusion(true, predicted, names)
    assert len(figure.data[1].x) <= 2_000
    assert {"c7", "c59"} <= set(figure.layout.xaxis.ticktext)
    assert title(figure) == (
        "2 of 62 wrong, most often c7 taken for c59 (1); the 44 of 60 classes with the most errors are shown"
    )


# --- theme -----------------------------------------------------------------------------------


def drawn_texts(figure):
    """Every text that plotly parses; customdata and meta are data that it does not draw."""
    found = []

    def walk(value, key=""):
        if key in ("customdata", "meta"):
            return
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, name)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, key)
        elif isinstance(value, str):
            found.append(value)

    walk(json.loads(figure.to_json()))
    return found


@pytest.mark.parametrize(
    "figure",
    [
        probability(FLIP, EVIL, 2),
        loss(FLIP, EVIL, None),
        divergence(FLIP, EVIL, 2),
        retention(FLIP, EVIL, 2),
        confusion([0, 0, 1], [1, 1, 0], ["neg", EVIL]),
    ],
    ids=["probability", "loss", "divergence", "retention", "confusion"],
)
def test_class_names_are_inert(figure):
    for text in drawn_texts(figure):
        without_breaks = text.replace("<br>", "")
        assert "<" not in without_breaks
        assert ">" not in without_breaks
        assert "$" not in text
        assert not re.search(r"&(?!(amp|lt|gt|#36);)", text)


def test_inert_escapes_and_loses_nothing():
    assert inert("<b>x</b><img src=x onerror=1>") == "&lt;b&gt;x&lt;/b&gt;&lt;img src=x onerror=1&gt;"
    assert inert("&lt;b&gt;") == "&amp;lt;b&amp;gt;"
    assert inert("$x$") == "&#36;x&#36;"
    assert inert("žluť, ‖θ‖ “q” 94 %") == "žluť, ‖θ‖ “q” 94 %"


def test_the_click_carries_the_name_itself():
    figure = confusion([0, 1], [1, 1], ["neg", EVIL])
    assert [EVIL, EVIL] in [list(pair) for pair in figure.data[1].customdata]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0"),
        (0.5, "0.5"),
        (0.123456, "0.123"),
        (0.99951, "1"),
        (0.9994, "0.999"),
        (94.33, "94.3"),
        (999.6, "1,000"),
        (1234.5, "1,230"),
        (-0.01234, "-0.0123"),
        (0.000123456, "0.000123"),
        (1.2345e-7, "1.23e-07"),
        (3.21e9, "3.21e+09"),
        (math.nan, "not a number"),
        (-math.inf, "minus infinite"),
    ],
)
def test_numbers_have_three_significant_digits(value, written):
    assert number(value) == written


def test_percent():
    assert [percent(0.94), percent(1.0), percent(0.98765)] == ["94 %", "100 %", "98.8 %"]


def luminance(colour):
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("background", ["#FFFFFF", "#0E1117"])
@pytest.mark.parametrize("colour", [PROPONENT, OPPONENT, theme.NEUTRAL])
def test_lines_are_readable_in_light_and_dark(colour, background):
    # WCAG 2.1, 1.4.11: graphics need 3 : 1
    dark, light = sorted([luminance(colour), luminance(background)])
    assert (light + 0.05) / (dark + 0.05) >= 3


@pytest.mark.parametrize("chart", CORRECTION_CHARTS)
def test_the_page_theme_decides_text_colours_and_zoom_is_kept(chart):
    figure = chart(FLIP, "pos", 2, revision="run-7")
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == theme.TRANSPARENT
    assert figure.layout.uirevision == "run-7"
    layout = figure.to_plotly_json()["layout"]
    layout.pop("template")

    def fonts(value):
        for key, inner in value.items():
            if key == "font":
                yield inner
            if isinstance(inner, dict):
                yield from fonts(inner)

    assert not [font for font in fonts(layout) if "color" in font]


def test_figures_are_plotly_figures_that_serialise():
    for chart in CORRECTION_CHARTS:
        figure = chart(FLIP, "pos", 2)
        assert isinstance(figure, go.Figure)
        assert json.loads(figure.to_json())["layout"]["meta"]["alt"] == alt_text(figure)


def undrawn(heights, values):
    """The values that asinh heights stand for; the scale is the median of |value|."""
    return np.sinh(np.array(heights, dtype=float)) * np.median(np.abs(values))


VALUES = np.array([80.0, 6.0, -3.0, 2.0, -1.5])
ERRORS = np.array([0.0, 0.0, 0.5, 0.25, 0.1])


def test_the_spectrum_has_both_signs_in_two_colours_with_their_signs():
    figure = spectrum(VALUES, ERRORS)
    assert title(figure) == "2 of 5 kept eigenvalues are negative, the smallest −3"
    positive, negative = trace(figure, "positive (+)"), trace(figure, "negative (−)")
    assert (list(positive.x), list(negative.x)) == ([1, 2, 4], [3, 5])
    assert undrawn(positive.y, VALUES) == pytest.approx([80, 6, 2])
    assert undrawn(negative.y, VALUES) == pytest.approx([-3, -1.5])
    assert (positive.marker.color, negative.marker.color) == (PROPONENT, OPPONENT)
    assert (set(positive.text), set(negative.text)) == ({"+"}, {"−"})
    assert negative.hovertext[0] == "eigenvalue 3: −3, Ritz residual 0.5"


def test_ritz_residuals_are_error_bars_on_the_same_axis():
    bars = trace(spectrum(VALUES, ERRORS), "negative (−)")
    assert undrawn(np.array(bars.y) + bars.error_y.array, VALUES) == pytest.approx([-2.5, -1.4])
    assert undrawn(np.array(bars.y) - bars.error_y.arrayminus, VALUES) == pytest.approx([-3.5, -1.6])


def test_the_axis_names_zero_both_ends_and_powers_of_ten_apart():
    axis = spectrum(VALUES, ERRORS).layout.yaxis
    assert axis.ticktext[0] == "−3"
    assert axis.ticktext[-1] == "+80"
    assert {"0", "+10"} <= set(axis.ticktext)
    assert undrawn(axis.tickvals, VALUES) == pytest.approx(
        [float(text.replace("−", "-").replace("+", "")) for text in axis.ticktext]
    )
    heights = np.array(axis.tickvals)
    assert (np.diff(heights) >= 0.1 * (heights[-1] - heights[0]) - 1e-9).all()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([3.0, 2.0], "None of 2 kept eigenvalues is negative, the smallest +2"),
        ([3.0, -2.0], "1 of 2 kept eigenvalues is negative, the smallest −2"),
        ([], "No eigenvalue is kept"),
    ],
)
def test_the_spectrums_title_in_words(values, said):
    assert title(spectrum(np.array(values), np.zeros(len(values)))) == said


def solve(**fields):
    given = {
        "name": "Conjugate Residual",
        "residual": 0.01,
        "residuals": np.array([1.0, 0.5, 0.01]),
        "curvatures": np.array([4.0, -0.5]),
        "best": 2,
        "converged": True,
        "negative": 1,
        "breakdown": -1,
    }
    return Solve(**{**given, **fields})


GRADIENT = solve(
    name="Conjugate Gradient", residual=0.5, residuals=np.array([1.0, 4.0, 0.5, 7.0]), best=2, converged=False
)


def test_residuals_of_both_solvers_stand_on_one_log_axis_with_b_and_their_best():
    figure = residual_history([solve(), GRADIENT])
    assert figure.layout.yaxis.type == "log"
    assert title(figure) == (
        "Conjugate Residual: 0.01 of ‖b‖ left; Conjugate Gradient: 0.5 of ‖b‖ left, up to 7 on the way"
    )
    residual, gradient = trace(figure, "Conjugate Residual"), trace(figure, "Conjugate Gradient")
    assert (residual.x, residual.y) == ((0, 1, 2), (1, 0.5, 0.01))
    assert gradient.y == (1, 4, 0.5, 7)
    assert (residual.line.color, gradient.line.color) == (PROPONENT, OPPONENT)
    assert trace(figure, "‖b‖").y == (1, 1)
    assert trace(figure, "‖b‖").x == (0, 3)
    star = trace(figure, "best of Conjugate Gradient")
    assert (star.x, star.y, star.marker.symbol) == ((2,), (0.5,), "star")


def test_a_residual_of_zero_has_no_place_on_a_log_axis():
    figure = residual_history([solve(residual=0.0, residuals=np.array([1.0, 0.0]), best=1)])
    assert trace(figure, "Conjugate Residual").y == (1,)
    assert not [found for found in figure.data if found.name.startswith("best")]
    assert "0 of ‖b‖ left" in title(figure)
    assert title(residual_history([])) == "No solve is kept yet"


def test_directions_of_negative_curvature_are_marked_and_counted():
    values = np.array([4.0, np.nan, -0.5, 2.0, -1.5])
    figure = curvatures(solve(curvatures=values, negative=2))
    assert title(figure) == (
        "Conjugate Residual: 2 of 4 search directions curve downwards, first at iteration 3, down to −1.5"
    )
    assert list(trace(figure, "negative (−)").x) == [3, 5]
    assert list(trace(figure, "positive (+)").x) == [1, 4]
    assert title(curvatures(solve(curvatures=np.array([4.0]), negative=-1))) == (
        "Conjugate Residual: none of 1 search direction curves downwards"
    )
    assert "no search direction" in title(curvatures(solve(curvatures=np.array([np.nan]))))


def test_solver_words():
    assert solve().words == "Conjugate Residual converged: its residual is 0.01 of ‖b‖, after 2 iterations."
    assert GRADIENT.words == (
        "Conjugate Gradient did not converge: its best residual was 0.5 of ‖b‖, after 2 iterations."
    )


@pytest.mark.parametrize("figure", [spectrum(VALUES, ERRORS), residual_history([GRADIENT]), curvatures(GRADIENT)])
def test_these_charts_have_axes_an_alt_text_and_survive_json(figure):
    assert figure.layout.xaxis.title.text
    assert figure.layout.yaxis.title.text
    assert alt_text(figure).endswith(".")
    json.loads(figure.to_json())


def with_predictions(steps, exact, additive):
    """Steps with the probabilities that were predicted."""
    return [
        step.model_copy(
            update={
                "predicted_probability": one,
                "predicted_loss": None if one is None else -math.log(max(one, 1e-9)),
                "additive_probability": other,
                "additive_loss": None if other is None else -math.log(max(other, 1e-9)),
            }
        )
        for step, one, other in zip(steps, exact, additive, strict=True)
    ]


EXACT, SUM = "predicted by the exact Jacobian (Eq. 6)", "predicted by TracIn's sum (Eq. 2)"


def test_predictions_are_drawn_dashed_and_dotted_in_a_quieter_colour_under_the_live_curve():
    figure = probability(with_predictions(FLIP, [0.1, 0.3, 0.55], [0.1, 0.35, None]), "pos", 2)
    exact, additive = trace(figure, EXACT), trace(figure, SUM)
    assert (exact.y, additive.y) == ((0.1, 0.3, 0.55), (0.1, 0.35, None))
    assert (exact.line.dash, additive.line.dash) == ("dash", "dot")
    assert exact.line.color == additive.line.color not in (PROPONENT, OPPONENT, theme.NEUTRAL)
    assert exact.hovertext[1] == "step 1, predicted by the exact Jacobian (Eq. 6): 0.3"
    names = [each.name for each in figure.data]
    assert names.index(EXACT) < names.index("with correction")  # drawn over them
    assert "is off by more than" not in alt_text(figure)
    assert "stays within 0.1 of the probability up to step 2" in alt_text(figure)
    assert [each.name for each in probability(FLIP, "pos", 2).data] == [
        "with correction",
        "without correction",
        "flip at step 2",
    ]


def test_predicted_losses_far_off_do_not_press_the_live_curve_flat():
    far = with_predictions(FLIP, [0.1, 0.3, 0.6], [0.1, 1e-9, 1.0])
    figure = loss(far, "pos", 2)
    live = [value for name in ("with correction", "without correction") for value in trace(figure, name).y]
    drawn = trace(figure, SUM)
    room = 0.25 * (max(live) - min(live))
    assert drawn.y[1] == pytest.approx(max(live) + room)
    assert drawn.y[2] == pytest.approx(min(live) - room)
    assert drawn.hovertext[1].endswith(": 20.7, beyond the chart")
    assert trace(figure, EXACT).y == pytest.approx([step.loss for step in FLIP])


@pytest.mark.parametrize(
    ("exact", "additive", "said"),
    [
        (
            [0.1, 0.3, 0.6],
            [0.1, 0.5, 0.9],
            "What the exact Jacobian (Eq. 6) predicts stays within 0.1 of the probability up to step 2. "
            "What TracIn's sum (Eq. 2) predicts is off by more than 0.1 in probability from step 1 on.",
        ),
        (
            [0.1, 0.5, 0.6],
            [0.1, 0.5, 0.6],
            "What the exact Jacobian (Eq. 6) and TracIn's sum (Eq. 2) predict is off by more than 0.1 in probability "
            "at step 1 for the first time.",
        ),
        ([None] * 3, [None] * 3, ""),
    ],
)
def test_when_predictions_part_from_what_happens_is_said(exact, additive, said):
    assert parting(with_predictions(FLIP, exact, additive)) == said
    assert parting(FLIP) == ""
    assert parting([]) == ""


def test_where_there_is_no_probability_the_loss_says_it():
    steps = [
        step.model_copy(update={"predicted_loss": step.loss + 0.2 * step.step, "additive_loss": step.loss})
        for step in FLIP
    ]
    assert "(Eq. 6) predicts is off by more than 0.1 in loss from step 1 on" in parting(steps)
    assert not [each for each in probability(steps, "pos", 2).data if each.name == EXACT]
    assert trace(loss(steps, "pos", 2), EXACT).y[0] == FLIP[0].loss
