"""What studies write beside what they print: the record of --out, figures as HTML and PNG; and what reads them."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from influence_core.cli import main, study_files
from influence_core.cli.study_files import check_file, save_figure
from influence_core.errors import UserError
from influence_core.specs import DivergenceSpec, FadingSpec, TracinErrorSpec, parse_spec

PNG = b"\x89PNG\r\n\x1a\n"
SIZES = ["--batch-size", "16", "--steps", "2", "--learning-rate", "0.05"]
STUDIES = {
    "fading": ["--optimizer", "sgd", "--train-rows", "4", "--test-rows", "3", "--repeats", "1", "--method", "tracin"],
    "divergence": ["--optimizer", "sgd", "--rows", "3", "--epsilon", "0.1"],
    "tracin-error": ["--rows", "3", "--epsilon", "0.1", "--dtype", "float32"],
}


def call(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["study", *arguments])
    return int(caught.value.code or 0), *capsys.readouterr()


@pytest.mark.parametrize("name", STUDIES)
def test_a_record_has_all_that_it_takes_to_make_it_again(opened, capsys, tmp_path, name):
    file = tmp_path / "a result.json"
    arguments = [name, opened.name, *SIZES, *STUDIES[name], "--json", "--out", str(file)]
    code, out, err = call(capsys, *arguments)
    assert code == 0, err
    record = json.loads(file.read_text(), parse_constant=pytest.fail)  # NaN and Infinity are no JSON
    assert record.keys() == {"command", "spec", "made", "versions", "value"}
    assert record["command"].startswith(f"python -m influence_core study {name} {opened.name} --batch-size 16")
    assert record["command"].endswith(f"--out '{file}'")
    spec = parse_spec(record["spec"])
    assert isinstance(spec, {"fading": FadingSpec, "divergence": DivergenceSpec, "tracin-error": TracinErrorSpec}[name])
    assert (spec.steps, spec.learning_rate) == (2, 0.05)
    assert record["made"].endswith("+00:00")
    assert {"torch", "transformers", "influence_core", "threads", "device", "cpu"} <= record["versions"].keys()
    assert all(record["versions"].values())
    value = record["value"]
    assert value["methods" if name == "fading" else "series"] == json.loads(out)
    assert "this takes about" in err
    assert (value["workspace"], value["checkpoint"], value["scope"]) == (opened.name, "tiny-bert", "last:1")
    assert (value["optimizer"], value["learning_rate"], value["batch_size"], value["seed"]) == ("sgd", 0.05, 16, 0)
    assert not list(tmp_path.glob(".*"))  # no temporary file is left


def test_stability_has_a_record_too(opened, capsys, tmp_path):
    file = tmp_path / "stability.json"
    sizes = ["--hessian-rows", "40", "--k", "2", "--iterations", "4", "--queries", "2", "--top", "3"]
    code, out, err = call(capsys, "stability", opened.name, *sizes, "--json", "--out", str(file))
    assert code == 0, err
    record = json.loads(file.read_text())
    assert record["spec"]["kind"] == "stability"
    assert record["value"] == json.loads(out)


@pytest.mark.parametrize("name", [*STUDIES, "stability"])
def test_a_file_that_cannot_be_written_is_refused_at_once(capsys, tmp_path, name):
    for wrong, words in (("x.txt", "ends in .json"), (str(tmp_path / "no" / "x.json"), "there is no folder")):
        code, out, err = call(capsys, name, "no workspace of this name", "--out", wrong)
        assert (code, out) == (2, "")
        assert "error: --out" in err
        assert words in err


def test_a_png_needs_kaleido_and_says_so(monkeypatch, tmp_path):
    file = tmp_path / "x.png"
    monkeypatch.setattr(study_files, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"x\.png: a PNG needs the kaleido library: run pip install -r req"):
        check_file("--figure", file, (".html", ".png"))
    check_file("--figure", tmp_path / "x.html", (".html", ".png"))
    monkeypatch.setattr(study_files, "find_spec", lambda name: object())
    check_file("--figure", file, (".html", ".png"))


@dataclass
class Figure:
    """What plotly offers for writing."""

    written: list = field(default_factory=list)

    def write_image(self, path: Path, scale: int) -> None:
        self.written.append(scale)
        path.write_bytes(PNG)

    def write_html(self, path: Path, include_plotlyjs: str) -> None:
        self.written.append(include_plotlyjs)
        path.write_text("<html>")


def test_each_ending_has_its_writer(tmp_path):
    figure = Figure()
    save_figure(figure, tmp_path / "x.png")
    save_figure(figure, tmp_path / "x.html")
    assert (tmp_path / "x.png").read_bytes().startswith(PNG)
    assert (tmp_path / "x.html").read_text() == "<html>"
    assert figure.written == [2, "directory"]
