"""The correction study on a tiny workspace: its table against plain corrections, pairing, resuming, tuning."""

import json
import shutil

import numpy as np
import pytest
from homes import living_in
from noisy_workspaces import noisy_workspace

from influence_core.checks import ranked_example
from influence_core.cli import main
from influence_core.cli.correction_studies import ranged
from influence_core.correction.strategies import Chosen
from influence_core.errors import RunFailedError, UserError
from influence_core.events import Progress, Result
from influence_core.runs import registry
from influence_core.runs.stopping import request_stop
from influence_core.specs import CorrectionStudySpec, parse_spec
from influence_core.studies import correcting
from influence_core.studies.cases import Case, cases, partners
from influence_core.studies.choosing import CONTROL, Cell, Choice
from influence_core.studies.correction_table import against, cell_row
from influence_core.studies.courses import Course
from influence_core.studies.intervals import wilson
from influence_core.studies.tuning import TRIES, tune

SMALL = {"optimizer": "sgd", "learning_rate": 0.03, "k": 4, "batch_size": 16, "steps": 8}
STUDY = {**SMALL, "mispredictions": 4, "shares": (0.52,)}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("corrections")
    with living_in(root / "home"):
        yield noisy_workspace(root / "model")


@pytest.fixture(autouse=True)
def at_home(workspace, monkeypatch):
    monkeypatch.setenv("INFLUENCE_HOME", str(workspace.path.parents[1]))


def study(workspace, result, **options):
    spec = CorrectionStudySpec(workspace=workspace.name, **{**STUDY, **options})
    assert parse_spec(spec.model_dump_json()) == spec
    happened = list(registry.start(spec, result))
    assert isinstance(happened[-1], Result)
    json.dumps(happened[-1].value, allow_nan=False)
    return happened[-1].value


def last(generator):
    """Run a generator to its end and return what it returns."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def timeless(value):
    return {**value, "seconds": 0}


def test_a_row_is_the_hand_count_of_plain_corrections(workspace, tmp_path):
    value = study(workspace, tmp_path, strategies=("proponents", "opponents"))
    assert [row["strategy"] for row in value["cells"]] == ["proponents", "opponents"]
    outcomes = {}
    for row in value["cells"]:
        found = []
        for case in value["mispredictions"]:
            asked = {**SMALL, "share": 0.52, "method": "tracin", "strategy": row["strategy"]}
            *_, end = workspace.correct(case["example"], **asked)
            found.append(end.value)
            outcomes[row["strategy"], case["example"]] = end.value
        flips = [each["flip_step"] for each in found if each["flipped"]]
        assert row["mispredictions"] == len(found) == 4
        assert row["success"]["value"] == len(flips) / 4
        assert row["success"]["low"] == wilson(len(flips), 4).low
        assert row["retention"]["value"] == pytest.approx(np.mean([each["retention"] for each in found]))
        assert row["steps"]["value"] == (pytest.approx(np.mean(flips)) if flips else None)
        assert row["median_steps"] == (np.median(flips) if flips else None)
        assert row["by_itself"]["value"] == sum(each["base_flip_step"] is not None for each in found) / 4
    assert any(outcome["flipped"] for outcome in outcomes.values())
    for piece in value["pieces"]:
        outcome = outcomes[piece["strategy"], piece["example"]]
        assert (piece["flip"], piece["steps"]) == (outcome["flip_step"], outcome["steps"])
        assert piece["retention"] == pytest.approx(outcome["retention"])


def test_the_run_without_corrections_is_the_base_of_a_plain_one(workspace, tmp_path):
    fast = {"learning_rate": 0.3, "steps": 6}  # so fast that some flip by themselves
    value = study(workspace, tmp_path, strategies=("random",), mispredictions=8, **fast)
    flips = {case["example"]: case["by_itself"] for case in value["mispredictions"]}
    assert any(flips.values())
    asked = {**SMALL, **fast, "method": "tracin", "epsilon": 0.0, "strategy": "random", "after_flip": 6}
    for example in [*sorted(flips, key=lambda each: flips[each] is None)[:2], *list(flips)[:2]]:
        *_, end = workspace.correct(example, **asked)
        assert flips[example] == end.value["base_flip_step"]


def test_random_rows_differ_between_mispredictions_and_are_the_controls(workspace, tmp_path):
    list(workspace.mispredictions()["id"])
    drawn = cases(workspace, None, 0)[:4]
    choice = Choice(CorrectionStudySpec(workspace=workspace.name, **STUDY), tmp_path)
    found = [last(choice.rows(case, CONTROL)) for case in drawn]
    labels = workspace.labels().values
    for case, chosen in zip(drawn, found, strict=True):
        assert (labels[chosen.numbers] == case.predicted).all()
        assert (chosen.labels == case.desired).all()
        assert len(set(chosen.numbers.tolist())) == 4
    assert len({tuple(chosen.numbers) for chosen in found}) > 1


def test_permuted_is_what_a_plain_correction_does(workspace, tmp_path):
    value = study(workspace, tmp_path, strategies=("permuted",), mispredictions=2)
    choice = Choice(CorrectionStudySpec(workspace=workspace.name, **STUDY), tmp_path)
    drawn = {case.example: case for case in cases(workspace, None, 0)}
    for piece in value["pieces"]:
        *_, end = workspace.correct(piece["example"], **SMALL, share=0.52, method="tracin", strategy="permuted")
        assert (piece["flip"], piece["steps"]) == (end.value["flip_step"], end.value["steps"])
        assert piece["retention"] == pytest.approx(end.value["retention"])
        case = drawn[piece["example"]]
        chosen = last(choice.rows(case, Cell("permuted", "tracin", "cosine")))
        other = drawn[chosen.proponents_of]
        assert other != case
        assert (other.predicted, other.desired) == (case.predicted, case.desired)
        of = workspace.rank(other.example, method="tracin", top=4)
        assert [workspace.train["id"].iloc[row] for row in chosen.numbers] == [row.id for row in of.proponents]


def test_opponents_say_how_many_have_the_desired_label(workspace, tmp_path):
    options = {"strategies": ("opponents", "random"), "mispredictions": 2}
    opponents, random = study(workspace, tmp_path, **options)["cells"]
    labels, shares = dict(zip(workspace.train["id"], workspace.train["label"], strict=True)), []
    for case in cases(workspace, None, 0)[:2]:
        rows = workspace.rank(case.example, method="tracin", top=4).opponents
        shares.append(np.mean([labels[row.id] == case.desired for row in rows]))
    assert opponents["desired_share"] == pytest.approx(np.mean(shares))
    assert random["desired_share"] is None


@pytest.mark.parametrize("seed", range(30))
def test_partners_are_a_permutation_without_fixed_points_within_each_set(seed):
    sizes = {(0, 1): 5, (1, 0): 2, (2, 1): 1}
    drawn = [Case(f"{pair}-{number}", 10 * pair[0] + number, *pair) for pair, n in sizes.items() for number in range(n)]
    found = partners(drawn, seed)
    assert found == partners(reversed(drawn), seed)
    own = {case.example: case for case in drawn}
    assert found.keys() == {case.example for case in drawn if case.predicted != 2}  # a set of one has no partner
    for example, other in found.items():
        assert other.example != example
        assert (other.predicted, other.desired) == (own[example].predicted, own[example].desired)
    assert sorted(other.example for other in found.values()) == sorted(found)


def test_seeds_permute_differently():
    drawn = [Case(str(number), number, 0, 1) for number in range(8)]
    assert len({tuple(case.row for case in partners(drawn, seed).values()) for seed in range(10)}) > 5


def test_an_interrupted_study_goes_on_to_the_same_table(workspace, tmp_path, monkeypatch):
    shutil.rmtree(workspace.path / "artefacts" / correcting.KIND, ignore_errors=True)
    whole = study(workspace, tmp_path / "whole", points=2, shares=())
    shutil.rmtree(workspace.path / "artefacts" / correcting.KIND)
    result, spec = tmp_path / "stopped", CorrectionStudySpec(workspace=workspace.name, **STUDY)
    spec = spec.model_copy(update={"points": 2, "shares": ()})
    events = registry.start(spec, result)
    for event in events:
        if isinstance(event, Progress) and event.phase == "correcting" and event.done == 3:
            request_stop(result)
        ended = event
    partial = ended.value
    assert 3 <= partial["corrections"] < partial["corrections_asked"] == whole["corrections_asked"]
    known = {(row["strategy"], row["share"]): row["mispredictions"] for row in partial["cells"]}
    assert set(known.values()) == {0, 1}
    rushed = study(workspace, tmp_path / "rushed", points=2, shares=(), budget_minutes=1e-9)
    assert rushed["corrections"] == partial["corrections"] + 1  # a call always gets further
    assert timeless(study(workspace, tmp_path / "rest", points=2, shares=())) == timeless(whole)
    monkeypatch.setattr(correcting, "open_setting", lambda *_: pytest.fail("all of it is kept"))
    assert timeless(study(workspace, tmp_path / "again", points=2, shares=())) == timeless(whole)


def test_differences_are_paired(workspace, tmp_path):
    value = study(workspace, tmp_path)
    rows = {row["strategy"]: row for row in value["cells"]}
    pieces = {name: {p["example"]: p for p in value["pieces"] if p["strategy"] == name} for name in rows}
    assert rows["random"]["against"] == {}
    assert rows["permuted"]["against"].keys() == {"random"}
    found = rows["proponents"]["against"]
    assert found.keys() == {"random", "permuted"}
    for name, difference in found.items():
        both = pieces["proponents"].keys() & pieces[name].keys()
        ours, theirs = ([pieces[each][one] for one in sorted(both)] for each in ("proponents", name))
        assert difference["success"]["n"] == len(both)
        flipped = [(a["flip"] is not None) - (b["flip"] is not None) for a, b in zip(ours, theirs, strict=True)]
        assert difference["success"]["value"] == pytest.approx(np.mean(flipped))
        kept = [a["retention"] - b["retention"] for a, b in zip(ours, theirs, strict=True)]
        assert difference["retention"]["value"] == pytest.approx(np.mean(kept))


def test_a_table_row_by_hand():
    def course(flip, retention):
        return Course(np.zeros(5), flip, retention)

    done = {"a": course(2, 0.9), "b": course(None, 1.0), "c": course(4, 0.8)}
    other = {"a": course(4, 0.7), "c": course(None, 1.0), "d": course(1, 1.0)}
    base = {"a": course(None, 1), "b": course(3, 1), "c": course(None, 1), "d": course(None, 1)}
    row = cell_row(Cell("proponents", "abif", "cosine"), 0.5, done, base, ["none", "none"], {"random": other})
    assert row["epsilon"] == 1
    assert row["skipped"] == {"none": 2}
    assert row["success"]["value"] == pytest.approx(2 / 3)
    assert (row["steps"]["value"], row["median_steps"], row["steps"]["n"]) == (3, 3, 2)
    assert row["retention"]["value"] == pytest.approx(0.9)
    assert row["retention_at_flip"]["value"] == pytest.approx(0.85)
    assert (row["retention_at_last"]["value"], row["retention_at_last"]["n"]) == (1, 1)
    assert row["by_itself"]["value"] == pytest.approx(1 / 3)
    assert against(done, other)["success"]["value"] == 0.5  # of a and c: both here, a alone there
    assert against(done, other)["steps"] == {"value": -2, "low": None, "high": None, "n": 1}
    assert against(done, other)["retention"]["value"] == pytest.approx(0)


def counted(by_rate):
    """Return a function as `tune` wants it, and the rates it was asked for."""
    asked = []

    def successes(rate):
        asked.append(rate)
        yield Progress(phase="", done=1, total=1)
        return by_rate(rate)

    return successes, asked


def test_tuning_finds_a_rate_between_none_and_all():
    successes, asked = counted(lambda rate: 0 if rate < 2e-4 else 5 if rate < 2.3e-4 else 10)
    found = last(tune(successes, 1e-2, list("abcdefghij")))
    assert 2e-4 <= found.rate < 2.3e-4
    assert [rate for rate, _ in found.tried] == asked
    assert asked[:3] == pytest.approx([1e-2, 1e-2 / 10**0.5, 1e-3])
    assert [count for _, count in found.tried[-1:]] == [5]
    assert last(tune(counted(lambda rate: 3 if rate > 0.5 else 0)[0], 1e-2, list("abcd"))).rate == pytest.approx(1)


def test_tuning_takes_a_diverging_run_for_too_fast_and_gives_up_in_words():
    def by_rate(rate):
        if rate > 1e-3:
            raise RunFailedError("diverged")
        return 0

    with pytest.raises(UserError, match=r"no learning rate found .*0\.01: diverged, .*give --learning-rate"):
        last(tune(counted(by_rate)[0], 1e-2, list("abcd")))
    successes, asked = counted(lambda rate: None)
    assert last(tune(successes, 1e-2, list("abcd"))) is None  # interrupted
    assert len(asked) == 1 < TRIES


def test_the_rate_is_tuned_on_other_mispredictions(workspace, tmp_path):
    value = study(workspace, tmp_path, learning_rate=None, tune=True, tuning=6, strategies=("random",))
    tuned = value["tuned"]
    assert len(tuned["examples"]) == 6
    assert not set(tuned["examples"]) & {case["example"] for case in value["mispredictions"]}
    assert value["learning_rate"] == tuned["learning_rate"]
    assert tuned["tried"][-1]["learning_rate"] == tuned["learning_rate"]
    assert 0 < tuned["tried"][-1]["flipped"] < 6
    assert all(each["flipped"] in (0, 6, None) for each in tuned["tried"][:-1])
    drawn = Choice(CorrectionStudySpec(workspace=workspace.name, **STUDY), tmp_path)
    assert isinstance(last(drawn.rows(cases(workspace, None, 0)[0], CONTROL)), Chosen)


def test_methods_and_orders_are_cells_and_random_is_one(workspace, tmp_path):
    options = {"methods": ("tracin", "embedding"), "orders": ("cosine", "score"), "mispredictions": 2}
    value = study(workspace, tmp_path, **options, strategies=("proponents", "random"))
    cells = [(row["strategy"], row["method"], row["by"]) for row in value["cells"]]
    ranked = [("proponents", m, by) for m in ("tracin", "embedding") for by in ("cosine", "score")]
    assert cells == [*ranked, ("random", None, None)]
    assert all(row["mispredictions"] == 2 for row in value["cells"])


def test_a_misprediction_without_enough_rows_is_skipped_and_counted(workspace, tmp_path):
    value = study(workspace, tmp_path, k=110, batch_size=119, strategies=("random",), steps=1)
    (row,) = value["cells"]
    assert row["mispredictions"] == 0
    assert sum(row["skipped"].values()) == 4
    assert all("k = 110 but only" in why for why in row["skipped"])
    assert row["success"]["value"] is None
    assert value["corrections"] == value["corrections_asked"] == 4


def test_the_same_reason_is_counted_as_one_whatever_the_misprediction(workspace, tmp_path, monkeypatch):
    partners_seen = set()

    def none_found(setting, result):
        ranked = ranked_example(setting.workspace, setting.spec)  # another misprediction under permuted
        if ranked != setting.spec.example:
            partners_seen.add(ranked)
        raise UserError(f"embedding finds no proponents of {ranked!r}: choose another method or strategy")
        yield

    monkeypatch.setattr("influence_core.studies.choosing.choose", none_found)
    value = study(workspace, tmp_path, strategies=("random", "permuted"), steps=1)
    assert len(partners_seen) > 1
    said = {"embedding finds no proponents of it: choose another method or strategy": 4}
    assert [row["skipped"] for row in value["cells"]] == [said, said]


def test_what_cannot_be_done_is_said_at_once(workspace, tmp_path):
    with pytest.raises(UserError, match=r"mispredictions = 500, but noisy has \d+ in its test split: give at most"):
        study(workspace, tmp_path, mispredictions=500)
    with pytest.raises(UserError, match=r"500 and 8 others to tune on"):
        study(workspace, tmp_path, mispredictions=500, tune=True, learning_rate=None)
    with pytest.raises(UserError, match="there is no ABIF index"):
        study(workspace, tmp_path, methods=("abif",))
    with pytest.raises(RunFailedError, match=r"diverged at step \d+ .* lower the learning rate, 1e\+39"):
        study(workspace, tmp_path, learning_rate=1e39, strategies=("random",))


def test_specs_refuse_what_says_nothing():
    def spec(**options):
        return parse_spec({"kind": "correction", "workspace": "w", **options})

    assert spec().sweep == pytest.approx([12 / 44, 0.334545, 0.396364, 0.458182, 0.52], abs=1e-6)
    assert spec(points=1).sweep == (12 / 44,)
    assert spec(shares=[0.3, 0.5]).sweep == (0.3, 0.5)
    with pytest.raises(UserError, match="nothing to sweep"):
        spec(k=32)
    assert spec(k=32, points=1).sweep == (0.5,)
    with pytest.raises(UserError, match="give one of the two"):
        spec(tune=True, learning_rate=1e-4)
    with pytest.raises(UserError, match="strategies"):
        spec(strategies=["friends"])


def call(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["study", "correction", *arguments])
    return int(caught.value.code or 0), *capsys.readouterr()


def test_the_command_prints_writes_and_draws(workspace, capsys, tmp_path):
    sizes = ["--optimizer", "sgd", "--learning-rate", "0.03", "--k", "4", "--batch-size", "16", "--steps", "8"]
    small = [workspace.name, *sizes, "--mispredictions", "4", "--share", "0.52"]
    out, figure = tmp_path / "study.json", tmp_path / "study.html"
    code, said, err = call(capsys, *small, "--json", "--out", str(out), "--figure", str(figure))
    assert code == 0, err
    record = json.loads(out.read_text())
    assert record["value"]["cells"] == json.loads(said)
    assert record["spec"]["kind"] == "correction"
    assert "Corrected at a share of 52 %" in figure.read_text().replace("\\u003cbr\\u003e", " ").replace("<br>", " ")
    code, said, err = call(capsys, *small)
    assert code == 0, err
    assert "16 of 16 corrections" in said
    cells = record["value"]["cells"]
    assert said.count(" random ") == sum("random" in cell["against"] for cell in cells) == 3  # "minus random"
    own = next(cell for cell in cells if cell["strategy"] == "proponents")
    line = next(line for line in said.splitlines() if line.startswith("proponents") and " random " in line)
    assert own["method"] in line
    assert all(ranged(own["against"]["random"][name]) in line for name in ("success", "steps", "retention"))
    code, said, err = call(capsys, *small, "--strategy", "random")
    assert (code, "minus" in said) == (0, False)  # nothing to compare, so no empty table
    code, said, err = call(capsys, *small[:-4], "--mispredictions", "500")
    assert (code, said) == (2, "")
    assert err.startswith("error: mispredictions = 500, but ")  # no estimate before it
    code, said, err = call(capsys, *small, "--draw", "love")
    assert (code, err) == (2, "error: draw = 'love': choose one of success, retention, steps\n")
