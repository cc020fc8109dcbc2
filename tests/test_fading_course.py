"""What the Fading page draws and says of a run's events, against the study's own statistics."""

import numpy as np
import pytest

from influence_core.charts import alt_text, course, divergence_so_far, noise_so_far, rows_so_far, theme
from influence_core.charts import fading_course as drawn
from influence_core.events import Correlation, Fading, Progress, Result
from influence_core.runs.directory import RunDirectory
from influence_core.specs import FadingSpec
from influence_core.studies import statistics
from influence_core.workspace import Checkpoint
from pages.components import fading_words as words
from pages.components.fading_reading import FadingReading

CURVE = [0.6, 0.9, 0.5, 0.2, 0.05, 0.4]


def event(step, r, repeat=1, repeats=5, half=0.1, divergence=None, methods=("tracin",)):
    low, high = (None, None) if r is None else (r - half, r + half)
    each = Correlation(own=r, r=r, low=low, high=high)
    apart = 0.01 * step if divergence is None else divergence
    return Fading(
        repeat=repeat,
        repeats=repeats,
        step=step,
        integrated_lr=0.1 * step,
        divergence=apart,
        methods=dict.fromkeys(methods, each),
    )


def events(curve=CURVE, **fields):
    return [event(step, r, **fields) for step, r in enumerate(curve, start=1)]


def test_a_verdict_takes_as_many_repeats_as_in_the_study():
    assert drawn.VERDICT_REPEATS == statistics.VERDICT_REPEATS


@pytest.mark.parametrize(
    "curve", [CURVE, [0.9, 0.8, 0.7], [0.05, 0.02], [None, 0.8, None, 0.0, 0.6], [0.5], [-0.5, -0.3]]
)
@pytest.mark.parametrize("half", [0.1, 0.3])
def test_peak_and_fading_are_those_of_the_studys_statistics(curve, half):
    (row,) = rows_so_far(events(curve, half=half))
    r = np.array([np.nan if value is None else value for value in curve])
    said = statistics.fading(statistics.Band(r, r - half, r + half, "t-interval over repeats"))
    assert row["peak"] == (None if said.peak is None else said.peak + 1)
    assert row["faded_at"] == (None if said.faded is None else said.faded + 1)


def test_a_later_repeat_replaces_the_steps_it_has_reached():
    so_far = [*events([0.9, 0.6, 0.3], divergence=0.1), event(1, 0.8, repeat=2, divergence=0.3)]
    (row,) = rows_so_far(so_far)
    assert (row["steps"], row["r"]) == ([1, 2, 3], [0.8, 0.6, 0.3])
    assert divergence_so_far(so_far) == pytest.approx([0.2, 0.1, 0.1])  # the mean over both repeats where both are
    assert rows_so_far([]) == []
    assert divergence_so_far([]) == []


def test_both_panels_share_their_axis_and_say_what_they_show():
    figure = course(rows_so_far(events()), [0.01, 0.02, 0.04, 0.0, 0.16], 12, 5, revision="r")
    assert tuple(figure.layout.xaxis.range) == (0.5, 12.5)
    assert figure.layout.xaxis.anchor == "y2"
    above, below = figure.layout.yaxis, figure.layout.yaxis2
    assert above.domain[0] > below.domain[1]
    assert below.type == "log"
    assert above.range[1] >= 1
    (apart,) = [trace for trace in figure.data if trace.yaxis == "y2"]
    assert list(apart.x) == [1, 2, 3, 5]  # a log axis has no zero
    assert list(apart.y) == [0.01, 0.02, 0.04, 0.16]
    assert apart.line.color == theme.NEUTRAL
    assert all(trace.xaxis in (None, "x") for trace in figure.data)
    assert "TracIn peaks at 0.9 (step 2), faded by step 5" in figure.layout.title.text.replace("<br>", " ")
    assert "The distance between the trainings grew from 0.01 to 0.16" in figure.layout.annotations[-1].text
    assert "5 repeats" in alt_text(figure)
    assert "grew from 0.01 to 0.16" in alt_text(figure)


def test_few_repeats_are_never_said_to_have_faded():
    figure = course(rows_so_far(events()), [0.01], 6, 4)
    assert "faded" not in figure.layout.title.text
    assert not [trace for trace in figure.data if trace.marker.symbol == "x"]


def test_nothing_measured_is_said_in_words():
    figure = course([], [], 6, 1)
    assert not figure.data
    assert "No repeat has been measured yet" in figure.layout.title.text.replace("<br>", " ")
    still = course(rows_so_far(events([0.5])), [0.0], 6, 1)
    assert "No distance between the trainings" in still.layout.annotations[-1].text


@pytest.mark.parametrize(
    ("repeats", "said"),
    [
        (1, "bootstrap over its training rows"),
        (2, "95 % interval over 2 repeats: over so few it is wide whatever happens, so there is no verdict"),
        (4, "no verdict"),
        (5, "95 % interval over 5 repeats, enough for a verdict"),
    ],
)
def test_what_the_band_means(repeats, said):
    assert said in words.band_words(repeats)


def wide_at_the_peak():
    """A method whose band contains zero where R is largest, but not at every step."""
    return {
        "method": "tracin",
        "steps": [1, 2],
        "r": [0.6, 0.4],
        "low": [-0.5, 0.35],
        "high": [0.99, 0.45],
        "peak": 1,
        "faded_at": None,
    }


def test_a_verdict_is_said_from_five_repeats_on():
    table = rows_so_far(events())
    assert words.fading_words(table, 5) == ["After 5 steps the scores no longer predict what happens."]
    assert words.fading_words(table, 4) == [
        "The match of scores with what happens went from R = 0.9 after 2 steps to 0.4 after 6 steps."
    ]
    assert words.fading_words(rows_so_far(events([0.9, 0.8])), 5) == [
        "After 2 steps the scores still predict something of what happens, R = 0.8."
    ]
    (never,) = words.fading_words(rows_so_far(events([0.05, 0.02])), 5)
    assert never == "At none of 2 steps do the scores predict what happens beyond chance."
    (late,) = words.fading_words([wide_at_the_peak()], 5)
    assert late == "After 2 steps the scores still predict something of what happens, R = 0.4."
    (opposite,) = words.fading_words(rows_so_far(events([-0.8, -0.9])), 5)
    assert opposite == "After 2 steps the scores predict the opposite of what happens, R = -0.9."
    assert words.fading_words(rows_so_far(events([0.5])), 1) == [
        "The scores match what happens with R = 0.5 after 1 step."
    ]
    assert words.fading_words(rows_so_far(events([None])), 5) == []


def test_controls_are_no_finding_and_several_methods_have_their_names():
    table = rows_so_far(events(methods=("tracin", "tracin-adam", "random")))
    said = words.fading_words(table, 5)
    assert [line.split(":")[0] for line in said] == ["TracIn", "TracIn under Adam"]


def test_what_going_on_does_is_said():
    assert "nothing is kept" in words.kept_words(0, 3)
    assert words.kept_words(2, 3).startswith("2 of 3 repeats are finished and kept. Going on starts with repeat 3;")
    assert words.mixed_words(1, 3, 12) == words.mixed_words(2, 12, 12) == ""
    assert words.mixed_words(3, 7, 12) == "Up to step 7 the curve rests on 3 repeats, behind it on 2."


def test_the_settings_name_optimizer_state_and_scope():
    spec = FadingSpec(workspace="w", methods=("tracin", "hif-cr"), scope="last:1", optimizer="adam", learning_rate=1e-4)
    said = words.settings_words(spec, Checkpoint(name="c", path="/c", fingerprint="f", created="2026"), "last:1")
    assert "Scores: TracIn, Hessian-based, Conjugate Residual." in said
    assert "Adam, state warmed over 100 batches at learning rate 0, learning rate 0.0001." in said
    assert "Trained and scored: last block and head. Seed 0." in said
    assert words.sizes_words(spec) == "5 repeats of 32 × 16 rows, 40 steps"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("INFLUENCE_HOME", str(tmp_path))
    made = RunDirectory.create(FadingSpec(workspace="w", steps=6, repeats=3))
    made.claim()
    return made


def test_reading_goes_on_where_it_stopped_and_tells_the_time_left_of_all_repeats(run):
    reading = FadingReading(run.id, repeats=3, steps=6)
    reading.read(run, 0.0)
    assert reading.words() == "starting"
    run.append(Progress(phase="scoring by tracin", done=2, total=8))
    reading.read(run, 1.0)
    assert reading.words() == "scoring by tracin: 2 of 8 rows"
    run.append(Progress(phase="scoring by tracin", done=4, total=8))
    reading.read(run, 3.0)
    assert reading.words() == "scoring by tracin: 4 of 8 rows · about 4 s left"
    assert reading.share == 0.5
    run.append(Progress(phase="repeat 1 of 3: 10 trajectories", done=0, total=6, unit="steps"))
    reading.read(run, 4.0)
    assert reading.words() == "measured so far: repeat 1 of 3, step 0 of 6"
    for step in (1, 2):
        run.append(event(step, 0.9))
        run.append(Progress(phase="repeat 1 of 3: 10 trajectories", done=step, total=6, unit="steps"))
        reading.read(run, 10.0 * step)
    # by hand: from step 1 at 10 s to step 2 at 20 s, so the 16 that are left take 160 s
    assert reading.words() == "measured so far: repeat 1 of 3, step 2 of 6 · about 3 min left"
    assert reading.share == pytest.approx(2 / 18)
    run.append(Result(value={"repeats": 0}))
    reading.read(run, 21.0)
    assert reading.result == {"repeats": 0}
    assert [each.step for each in reading.events] == [1, 2]


def test_repeats_that_were_kept_come_at_once_and_tell_no_pace(run):
    reading = FadingReading(run.id, repeats=3, steps=6)
    for each in events():
        run.append(each)
    reading.read(run, 0.0)
    assert reading.words() == "measured so far: repeat 1 of 3, step 6 of 6"
    for each in events(repeat=2):
        run.append(each)
    reading.read(run, 1.0)
    assert reading.words() == "measured so far: repeat 2 of 3, step 6 of 6"
    run.append(Progress(phase="repeat 3 of 3: 10 trajectories", done=0, total=6, unit="steps"))
    reading.read(run, 2.0)
    assert reading.words() == "measured so far: repeat 3 of 3, step 0 of 6"
    run.append(event(1, 0.9, repeat=3))
    reading.read(run, 11.0)
    assert reading.words() == "measured so far: repeat 3 of 3, step 1 of 6 · about 50 s left"  # 10 s a step since


def test_noise_is_drawn_where_it_is_not_exactly_zero():
    silent = course(rows_so_far(events()), [0.01] * 6, 6, 5, [0.0] * 6)
    noisy = course(rows_so_far(events()), [0.01] * 6, 6, 5, [0.0, 1e-7, 4e-7, None, 2e-7, 0.0])
    assert "floor" not in str(silent)
    (floor,) = [trace for trace in noisy.data if trace.line.dash == "dot" and trace.yaxis == "y2"]
    assert (list(floor.x), list(floor.y)) == ([2, 3, 5], [1e-7, 4e-7, 2e-7])
    assert noisy.layout.meta["below"].endswith("; at ε = 0 up to 4e-07")
    assert "at ε = 0 up to 4e-07" in alt_text(noisy)


def test_the_noise_so_far_is_the_largest_of_the_repeats():
    first, second = event(1, 0.9), event(2, 0.8)
    assert noise_so_far([first, second]) == []  # repeats of before
    with_noise = [
        first.model_copy(update={"noise": 0.0}),
        second,
        first.model_copy(update={"noise": 3e-8, "repeat": 2}),
    ]
    assert noise_so_far(with_noise) == [3e-8]
    assert noise_so_far([*with_noise, second.model_copy(update={"noise": 0.0})]) == [3e-8, 0.0]


def test_what_is_said_of_noise():
    assert words.noise_words([]) == words.noise_words([None]) == ""
    assert "repeats itself exactly" in words.noise_words([None, 0.0, 0.0])
    assert "up to 3e-08 away" in words.noise_words([0.0, 3e-8], 0.0)
    assert "gives the same losses exactly" in words.noise_words([], 0.0)  # older records
    assert "losses up to 2e-06 away" in words.noise_words([], 2e-6)
