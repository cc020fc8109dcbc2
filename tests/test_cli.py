"""Commands against the contract in CLI.md: fields, exit codes, JSON alone on standard output."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from influence_core.cli import main
from influence_core.labels import LabelStore
from influence_core.runs.directory import RunDirectory
from influence_core.specs import PredictSpec

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a command in this process; returns (exit code, standard output, standard error)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return call


def good(run, *arguments):
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def refused(run, *arguments) -> str:
    code, out, err = run(*arguments)
    assert code == 2, (out, err)
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    return lines[0]


def test_open_prints_the_workspace_that_the_other_commands_take(home, run, tiny_checkpoint, data_files):
    value = good(run, "open", tiny_checkpoint, data_files[0], "--test", data_files[1], "--scope", "last:1")
    assert {"workspace", "checkpoint", "data", "rows", "accuracy", "mispredictions"} <= value.keys()
    assert value["rows"] == {"train": 120, "validation": 0, "test": 40}
    rows = good(run, "mispredictions", value["workspace"])
    assert len(rows) == value["mispredictions"]
    assert list(rows[0]) == ["id", "text", "label", "prediction", "confidence", "loss"]
    assert rows == sorted(rows, key=lambda row: -row["confidence"])
    assert all(row["label"] != row["prediction"] for row in rows)
    code, out, _ = run("mispredictions", value["workspace"])
    assert code == 0
    assert f"{len(rows)} of 40 wrong in test" in out


def test_a_second_checkpoint_is_named_wherever_results_are_its(opened, run, data_files, tmp_path):
    from checkpoints import save_tiny_checkpoint

    other = save_tiny_checkpoint(tmp_path / "other", seed=5, trained=False)
    code, out, err = run("open", other, data_files[0], "--test", data_files[1], "--max-length", "16")
    assert code == 0
    assert "give --checkpoint other to the other commands" in out
    assert "class: negative → negative" in err  # before anything ran
    found = good(run, "checkpoints", opened.name)
    assert [row["name"] for row in found] == ["tiny-bert", "other"]
    assert found[1]["prepared"] == {"max_length": 16}
    assert "other" in run("checkpoints", opened.name)[1]
    assert "predicted by other" in run("mispredictions", opened.name, "--checkpoint", "other")[1]
    example = opened.mispredictions("test", "other")["id"].iloc[0]
    out = run("rank", opened.name, "--example", example, "--checkpoint", "other", "--top", "2")[1]
    assert "tracin at other, scope last:1" in out
    refusal = refused(run, "rank", opened.name, "--example", example, "--checkpoint", "other", "--method", "abif")
    assert f"index {opened.name} --checkpoint other" in refusal


def test_check_reports_and_makes_nothing(home, run, tiny_checkpoint, data_files):
    from influence_core.workspace import Workspace

    value = good(run, "open", tiny_checkpoint, data_files[0], "--check")
    assert value["label_names"] == ["negative", "positive"]
    assert value["problems"] == []
    assert value["data"]["held_out"] is True
    assert Workspace.names() == []


def test_problems_come_with_the_options_that_help(home, run, tiny_checkpoint, tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n" + "good film,up\nbad film,down\n" * 10)
    code, out, err = run("open", tiny_checkpoint, rows)
    assert (code, out) == (2, "")
    assert "--class LABEL=CLASS" in err
    assert "--drop-broken" in err
    value = good(run, "open", tiny_checkpoint, rows, "--class", "up=positive", "--class", "down=negative")
    assert value["rows"] == {"train": 16, "validation": 0, "test": 4}


def test_rank_and_index(opened, run):
    example = opened.mispredictions()["id"].iloc[0]
    value = good(run, "rank", opened.name, "--example", example, "--top", "5")
    assert [value[name] for name in ("example", "method", "by")] == [example, "tracin", "cosine"]
    assert list(value["proponents"][0]) == ["id", "rank", "score", "cosine", "label", "text"]
    assert [row["rank"] for row in value["opponents"]] == [1, 2, 3, 4, 5]
    assert value["proponents"][0]["score"] > 0 > value["opponents"][0]["score"]
    built = good(run, "index", opened.name, "--k", "3", "--iterations", "6", "--hessian-rows", "20")
    assert list(built) == ["rows", "k", "eigenvalues", "negative", "orthogonality", "seconds"]
    assert (built["rows"], built["k"], len(built["eigenvalues"])) == (120, 3, 3)
    assert good(run, "rank", opened.name, "--example", example)["method"] == "abif"
    code, out, _ = run("rank", opened.name, "--example", example, "--target", "gold", "--by", "score", "--top", "3")
    assert code == 0
    assert "opponents: rows that oppose" in out


def test_relabel_export_import(opened, run, tmp_path):
    row = opened.train["id"].iloc[3]
    old = opened.label_names[int(opened.labels().values[3])]
    new = next(name for name in opened.label_names if name != old)
    event = good(run, "relabel", opened.name, "--example", row, "--label", new, "--note", "=1+1", "--annotator", "ann")
    assert (event["old"], event["new"], event["annotator"], event["verdict"]) == (old, new, "ann", "change")
    message = refused(run, "relabel", opened.name, "--example", row, "--label", old, "--expect", old)
    assert repr(new) in message
    assert repr(old) in message
    assert len(LabelStore().history(opened.data_fingerprint)) == 1
    out = tmp_path / "labels.csv"
    assert good(run, "labels", "export", opened.name, "--out", out)["rows"] == 120
    assert "'=1+1" in out.read_text()
    again = good(run, "labels", "import", opened.name, out, "--dry-run")
    assert again == {"changed": 0, "unchanged": 120, "conflicts": 0, "unknown": 0}
    code, content, _ = run("labels", "export", opened.name, "--events", "--format", "jsonl")
    assert code == 0
    assert json.loads(content)["example"] == row


def test_correct_prints_a_line_a_step_and_keeps(opened, run):
    example = opened.mispredictions()["id"].iloc[0]
    options = ["--method", "tracin", "--optimizer", "sgd", "--learning-rate", "0.1", "--k", "6", "--batch-size", "16"]
    code, out, err = run("correct", opened.name, "--example", example, *options, "--keep", "better", "--json")
    assert code == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    fields = "step loss probability prediction base_probability base_prediction divergence integrated_lr retention"
    assert list(lines[0]) == [*fields.split(), "changed"]
    assert [line["step"] for line in lines[:-1]] == list(range(len(lines) - 1))
    assert list(lines[-1]) == ["flipped", "flip_step", "base_flip_step", "retention", "checkpoint"]
    assert lines[-1]["flipped"]
    assert lines[-1]["checkpoint"] == "better"
    assert good(run, "mispredictions", opened.name, "--checkpoint", "better") is not None
    message = refused(run, "correct", opened.name, "--example", example, *options, "--keep", "better")
    assert "already has a checkpoint 'better'" in message


def test_correct_by_anothers_proponents_and_by_opponents_says_what_it_notes(opened, run, tmp_path):
    example = opened.mispredictions()["id"].iloc[0]
    options = ["--method", "tracin", "--optimizer", "sgd", "--learning-rate", "0.1", "--k", "6", "--batch-size", "16"]
    asked = ["correct", opened.name, "--example", example, *options, "--steps", "1"]
    code, out, err = run(*asked, "--strategy", "permuted", "--min-retention", "0.5")
    assert code == 0, err
    assert "The rows are the proponents of " in out
    assert "% of the half most similar to the example" in out
    code, out, err = run(*asked, "--strategy", "opponents")
    assert code == 0, err
    assert "of the chosen opponents carry the desired label" in out + err
    html = tmp_path / "report.html"
    code, _, err = run(*asked, "--strategy", "random", "--report", html)
    assert code == 0, err
    page = html.read_text()
    assert f"Correction of {example}: " in page
    assert "The rows of B were drawn at random" in page
    assert "Before and after" in page
    (tmp_path / "folder.html").mkdir()
    for place, words in (
        ("no/r.html", ": give a file that ends in .html, in a folder that exists"),
        ("r.txt", ": give a file that ends in .html, in a folder that exists"),
        ("folder.html", " cannot be written (it is a folder): give another place"),
    ):
        assert refused(run, *asked, "--report", tmp_path / place) == f"error: --report '{tmp_path}/{place}'{words}"
    assert refused(run, *asked, "--min-retention", "0") == "error: min_retention = 0.0: give more than 0"


def test_correct_says_what_influence_predicts_only_when_asked(opened, run):
    example = opened.mispredictions()["id"].iloc[0]
    options = ["--method", "tracin", "--optimizer", "sgd", "--learning-rate", "0.1", "--k", "6", "--batch-size", "16"]
    code, out, err = run("correct", opened.name, "--example", example, *options, "--steps", "2", "--predict", "--json")
    assert code == 0, err
    *lines, _ = (json.loads(line) for line in out.splitlines())
    fields = ["predicted_loss", "predicted_probability", "additive_loss", "additive_probability"]
    assert all(list(line)[-5:] == ["changed", *fields] for line in lines)
    assert lines[1]["predicted_loss"] != lines[1]["additive_loss"] or lines[1]["predicted_loss"] != lines[0]["loss"]
    code, out, err = run("correct", opened.name, "--example", example, *options, "--steps", "1", "--predict")
    assert code == 0, err
    head, first = out.splitlines()[:2]
    assert head.split()[-4:] == fields
    assert len(first.split()) == len(head.split())


def test_runs(home, run):
    mine = RunDirectory.create(PredictSpec(workspace="w"), what="predict w")
    listed = good(run, "runs")
    assert list(listed[0]) == ["id", "kind", "state", "progress", "created", "seconds"]
    assert (listed[0]["id"], listed[0]["state"], listed[0]["progress"]) == (mine.id, "pending", None)
    shown = good(run, "runs", "show", mine.id)
    assert shown["spec"]["workspace"] == "w"
    assert good(run, "runs", "cancel", mine.id)["state"] == "killed"
    assert "error" in refused(run, "runs", "show", "../../etc")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mispredictions", "nowhere"], "there is no workspace 'nowhere'"),
        (["mispredictions", "demo:movie-reviews"], "demo prepare movie-reviews"),
        (["demo", "prepare", "cats"], "there is no demo 'cats'"),
        (["open", "/nowhere", "/nothing.csv"], "there is nothing at /nowhere"),
        (["rank", "nowhere"], "issing option '--example'"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["index", "nowhere", "--k", "many"], "'--k'"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(home, run, arguments, message):
    assert message in refused(run, *arguments)


def test_bad_options_of_a_workspace(opened, run):
    example = opened.mispredictions()["id"].iloc[0]
    assert "no example 'nobody'" in refused(run, "rank", opened.name, "--example", "nobody")
    assert "method" in refused(run, "rank", opened.name, "--example", example, "--method", "magic")
    assert "finite" in refused(run, "correct", opened.name, "--example", example, "--epsilon", "nan")
    assert "(2 of 2 cannot be corrected)" in refused(run, "correct", opened.name, "--example", "a", "--example", "b")
    assert "scope" in refused(run, "index", opened.name, "--scope", "some")
    assert "iterations" in refused(run, "index", opened.name, "--k", "9", "--iterations", "3")
    assert "no checkpoint 'x'" in refused(run, "mispredictions", opened.name, "--checkpoint", "x")


def test_importing_the_library_and_its_front_door_does_not_load_torch():
    code = (
        "import sys, influence_core, influence_core.workspace, influence_core.specs, influence_core.cli\n"
        "import influence_core.attribution.ranking, influence_core.demo.prepare\n"
        "print([name for name in ('torch', 'transformers', 'streamlit', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_as_a_program_with_help():
    done = subprocess.run(
        [sys.executable, "-m", "influence_core", "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    for command in (
        "demo",
        "open",
        "mispredictions",
        "index",
        "rank",
        "relabel",
        "labels",
        "correct",
        "runs",
        "engine",
    ):
        assert command in done.stdout


@pytest.fixture
def name(home, run, tiny_checkpoint, data_files) -> str:
    arguments = ("open", tiny_checkpoint, data_files[0], "--test", data_files[1], "--scope", "head")
    return good(run, *arguments)["workspace"]


def test_a_methods_own_settings(run, name):
    example = good(run, "mispredictions", name)[0]["id"]
    arguments = ("rank", name, "--example", example, "--method", "hif-cr", "--top", "2")
    short = [*arguments, "--set", "iterations=2", "--set", "hessian-rows=20"]
    value = good(run, *short)
    assert value["method"] == "hif-cr"
    assert len(value["proponents"]) == 2
    _, out, _ = run(*short)
    assert "the solve did not converge" in out
    assert refused(run, *arguments, "--set", "damping=-1") == "error: damping = -1: give at least 0"
    assert "hif-cr has no setting 'dumping'" in refused(run, *arguments, "--set", "dumping=1")
    assert "write it as NAME=VALUE" in refused(run, *arguments, "--set", "damping")
    assert "belong to no method" in refused(run, "rank", name, "--example", example, "--set", "damping=1")
    assert "choose one of" in refused(run, "rank", name, "--example", example, "--method", "magic")
    assert "two or more checkpoints" in refused(run, "rank", name, "--example", example, "--method", "tracin-multi")


def test_suspects_and_explain(run, name):
    rows = good(run, "suspects", name, "--method", "tracin", "--top", "5")
    assert list(rows[0]) == ["id", "score", "label", "text"]
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    _, out, _ = run("suspects", name, "--top", "3")
    assert "120 rows by influence on themselves" in out
    assert "no self-influence" in refused(run, "suspects", name, "--method", "embedding")
    value = good(run, "explain", name, "--method", "tracin")
    assert value["examples"] == value["computed"] == len(good(run, "mispredictions", name))
    assert good(run, "explain", name, "--method", "tracin")["computed"] == 0
    assert "choose one of these splits" in refused(run, "explain", name, "--split", "train")


def test_the_stability_study(run, name):
    small = ["--hessian-rows", "30", "--hessian-rows", "20", "--seed", "0", "--k", "3", "--iterations", "9"]
    value = good(run, "study", "stability", name, *small, "--queries", "2", "--top", "5")
    assert [pair["rows"] for pair in value["pairs"]] == [[30, 20]]
    _, out, _ = run("study", "stability", name, *small, "--queries", "2", "--top", "5")
    assert "30 / 20" in out
