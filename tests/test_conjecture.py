"""G.1's table of divergence and fading: pairs by setting, spans, rank correlations."""

import json

import pytest

from influence_core.cli import main
from influence_core.errors import UserError
from influence_core.studies.conjecture import conjecture, rank_correlation

SETTING = {
    "workspace": "w",
    "checkpoint": "c",
    "scope": "last:1",
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "batch_size": 32,
    "seed": 0,
}


def write(folder, name, kind, value, **setting):
    file = folder / f"{name}.json"
    spec = {"kind": kind, "dropout": setting.pop("dropout", True), "dtype": None}
    file.write_text(json.dumps({"spec": spec, "value": {**SETTING, **setting, **value}}))
    return file


def fading(folder, name, faded_at, peak=2, steps=40, low=0.5, **setting):
    row = {"steps": list(range(1, steps + 1)), "peak": peak, "faded_at": faded_at}
    row |= {"low": [low] * steps, "high": [0.9] * steps}
    methods = [{"method": method, **row} for method in ("tracin", "random")]
    value = {"methods": methods, "repeats": 5, "states": [setting.pop("state", "zeros")]}
    return write(folder, f"fading-{name}", "fading", value, **setting)


def divergence(folder, name, slopes, epsilon=0.1, others=(), **setting):
    def one(slope, epsilon):
        fit = None if slope is None else {"slopes": [99.0, slope], "best": "power law"}
        return {"fit": fit, "epsilon": epsilon, "state": "zeros"}

    series = [*(one(slope, epsilon) for slope in slopes), *(one(*other) for other in others)]
    return write(folder, f"divergence-{name}", "divergence", {"series": series}, **setting)


def models(folder, table):
    """Write both studies of several models, {checkpoint: (slope, faded_at)}; return the files."""
    found = []
    for name, (slope, faded_at) in table.items():
        found += [
            fading(folder, name, faded_at, checkpoint=name),
            divergence(folder, name, [slope], checkpoint=name),
        ]
    return found


def test_a_pair_gives_slopes_and_spans_per_step_and_per_learning_rate(tmp_path):
    others = [(70.0, 0.01), (80.0, 1.0)]  # of other ε: not taken
    files = [divergence(tmp_path, "a", [3.0, 50.0, None, 4.0], others=others), fading(tmp_path, "a", 12)]
    found = conjecture(files)
    (row,) = found["rows"]  # the control is left out
    assert row["method"] == "tracin"
    assert (row["model"], row["checkpoint"], row["scope"]) == ("w c", "c", "last:1")
    assert row["slope_lr"] == 4.0  # the median of the second phases
    assert (row["epsilon"], row["described_by"]) == (0.1, "power law")
    assert row["slope_step"] == pytest.approx(0.4)
    assert (row["span_step"], row["span_lr"]) == (10, pytest.approx(1.0))
    assert (row["followed_step"], row["followed_lr"]) == (38, pytest.approx(3.8))
    assert [(each["per"], each["r"], each["models"]) for each in found["spearman"]] == [
        ("step", None, 1),
        ("Σ η", None, 1),
    ]
    assert found["unpaired"] == []


def test_steeper_divergence_and_sooner_fading_correlate_negatively(tmp_path):
    found = conjecture(models(tmp_path, {"a": (1.0, 30), "b": (2.0, 20), "c": (3.0, 25), "d": (4.0, 5)}))
    assert [each["r"] for each in found["spearman"]] == pytest.approx([-0.8, -0.8])  # 1 − 6·Σd²/(n(n² − 1)), Σd² = 18
    agreeing = conjecture(models(tmp_path, {"a": (1.0, 5), "b": (2.0, 20), "c": (3.0, 25)}))
    assert agreeing["spearman"][0]["r"] == pytest.approx(1)


def test_what_never_faded_ranks_last_if_it_was_followed_for_longer():
    def row(slope, span, followed=38):
        return {"slope_step": slope, "span_step": span, "followed_step": followed}

    measured = [row(4.0, 3), row(3.0, 10), row(2.0, 20)]
    assert rank_correlation([*measured, row(1.0, None)], "step") == (pytest.approx(-1), 4)
    assert rank_correlation([*measured, row(5.0, None, followed=20)], "step") == (pytest.approx(-1), 3)
    assert rank_correlation([row(1.0, None), row(2.0, None)], "step") == (None, 0)
    assert rank_correlation([row(1.0, 3), row(1.0, 4), row(1.0, 5)], "step") == (None, 3)
    assert rank_correlation([row(None, 3), *measured[:2]], "step") == (None, 2)


def test_only_equal_settings_are_paired(tmp_path):
    first = fading(tmp_path, "a", 12)
    for name, changed in (
        ("rate", {"learning_rate": 0.2}),
        ("seed", {"seed": 1}),
        ("scope", {"scope": "head"}),
        ("dropout", {"dropout": False}),
    ):
        other = divergence(tmp_path, name, [3.0], **changed)
        with pytest.raises(UserError, match="no fading study has a divergence study of the same setting"):
            conjecture([first, other])
    with pytest.raises(UserError, match="no fading study has a divergence study"):
        conjecture([fading(tmp_path, "warm", 12, state="warm"), divergence(tmp_path, "zeros", [3.0])])
    other = divergence(tmp_path, "head", [3.0], scope="head")
    found = conjecture([first, other, divergence(tmp_path, "a", [3.0])])
    assert found["unpaired"] == ["divergence of w c head, sgd from zeros at 0.1, batch size 32, seed 0"]
    with pytest.raises(UserError, match="a second fading study of w c last:1"):
        conjecture([first, first])


def test_what_predicts_nothing_at_its_peak_cannot_fade(tmp_path):
    found = conjecture([fading(tmp_path, "a", 3, low=-0.1), divergence(tmp_path, "a", [3.0])])
    assert found["rows"] == []
    assert found["powerless"] == ["tracin of w c"]


def test_other_files_are_refused(tmp_path):
    odd = ({"spec": None}, {"spec": {"kind": "fading"}}, {"spec": {"kind": "fading"}, "value": None})
    for number, record in enumerate(odd):
        (tmp_path / f"odd{number}.json").write_text(json.dumps(record))
        with pytest.raises(UserError, match=f"odd{number}.json is of no fading or divergence study"):
            conjecture([tmp_path / f"odd{number}.json"])
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "broken.json").write_text("{")
    other = write(tmp_path, "error", "tracin-error", {})
    for file in (tmp_path / "no.json", tmp_path / "list.json", tmp_path / "broken.json", other):
        with pytest.raises(UserError, match=file.name):
            conjecture([file])
    old = tmp_path / "old.json"
    old.write_text(json.dumps({"spec": {"kind": "fading"}, "value": {"methods": []}}))
    with pytest.raises(UserError, match="does not say its workspace"):
        conjecture([old])
    with pytest.raises(UserError, match="no files"):
        conjecture([])


def test_the_command_reads_what_the_studies_write(opened, capsys, tmp_path):
    def call(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(["study", *arguments])
        return int(caught.value.code or 0), *capsys.readouterr()

    shared = ["--optimizer", "sgd", "--learning-rate", "0.05", "--batch-size", "16", "--steps", "6", "--scope", "head"]
    files = [str(tmp_path / f"{kind}.json") for kind in ("fading", "divergence")]
    rows = ["--train-rows", "4", "--test-rows", "3", "--repeats", "1", "--method", "tracin"]
    assert call("fading", opened.name, *shared, *rows, "--out", files[0])[0] == 0
    assert call("divergence", opened.name, *shared, "--rows", "3", "--epsilon", "0.1", "--out", files[1])[0] == 0
    code, out, err = call("conjecture", *files)
    assert code == 0, err
    assert "tiny-bert" in out
    assert "steps to fade" in out
    assert "Spearman of slope and time to fade over" in out
    code, out, _ = call("conjecture", *files, "--json")
    assert code == 0
    (row,) = json.loads(out)["rows"]
    assert row["learning_rate"] == 0.05
    assert row["slope_step"] == pytest.approx(0.05 * row["slope_lr"])
    code, out, err = call("conjecture", files[0])
    assert (code, out) == (2, "")
    assert "error: no fading study" in err
