"""The benchmarks' own arithmetic: what is compared, what counts as met, what is printed."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from models import mlp, random_directions

from benchmarks import __main__ as program
from benchmarks import libraries, projection, query
from benchmarks.agreement import spearman
from benchmarks.models import Setup
from benchmarks.processes import in_fresh_process
from benchmarks.timing import Measurement, Target, measurement
from influence_core.gradients.project import project
from influence_core.models.classifier import Rows


def small(count: int = 12) -> Setup:
    classifier = mlp(dtype=torch.float32)
    draw = np.random.default_rng(0)
    rows = Rows(classifier, list(draw.normal(size=(count, 4)).astype(np.float32)), draw.integers(0, 3, count))
    return Setup("mlp", rows, classifier.scope("all"), "random")


def line(ratio: float, target: Target | None) -> Measurement:
    return Measurement("what", 2.0, 1.0, 3.0, ratio, target=target)


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (None, None),
        (Target(1.4), False),
        (Target(1.5), True),
        (Target(1.5, "≥"), True),
        (Target(1.6, "≥"), False),
        (Target(2.0, of="seconds"), True),
        (Target(1.9, of="seconds"), False),
    ],
)
def test_a_target_bounds_the_ratio_or_the_seconds_from_one_side(target, met):
    assert line(1.5, target).met is met


def test_a_measurement_is_the_scaled_median_over_the_baselines():
    found = measurement("x", [3.0, 1.0, 2.0], [4.0, 5.0, 3.0], factor=10)
    assert (found.seconds, found.low, found.high, found.ratio) == (20.0, 10.0, 30.0, 5.0)


def run_with(monkeypatch, tmp_path, result: Measurement) -> tuple[int, dict]:
    file = tmp_path / "figures.json"
    fake = type(sys)("benchmarks.curvature")
    fake.run = lambda: [result]
    monkeypatch.setitem(sys.modules, "benchmarks.curvature", fake)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "curvature", "--json", str(file)])
    return program.main(), json.loads(file.read_text())


@pytest.mark.parametrize(("required", "code"), [(False, 0), (True, 1)])
def test_a_missed_target_is_printed_and_kept_and_fails_the_run_only_where_required(
    monkeypatch, tmp_path, capsys, required, code
):
    missed = line(2.0, Target(1.5, required=required))
    returned, kept = run_with(monkeypatch, tmp_path, missed)
    assert returned == code
    assert "≤ 1.5: MISSED" in capsys.readouterr().out
    assert kept["lines"][0]["met"] is False
    assert kept["lines"][0]["benchmark"] == "curvature"
    assert kept["lines"][0]["ratio"] == 2.0
    assert kept["threads"] == torch.get_num_threads()


def test_every_module_is_a_benchmark_or_a_helper():
    assert {"curvature", "projection", "query"} <= set(program.names())
    for folder in program.benchmarks.__path__:
        for file in Path(folder).glob("*.py"):
            listed = file.stem in program.names()
            assert ("\ndef run(" in file.read_text()) is listed, file.name


def test_forward_mode_gives_what_projection_gives():
    setup = small()
    directions = random_directions(setup.classifier, setup.scope, 3)
    batches = setup.batches(12, 5)
    own = setup.classifier.parameters(setup.scope)
    found = libraries.forward_mode(setup, own, batches, directions)
    torch.testing.assert_close(found, project(setup.classifier, setup.scope, batches, directions).dots[:, :1])


def test_the_floor_counts_the_products_beside_the_epochs_multiplications():
    """Per row: forward 4·5 + 5·5 + 5·3 = 60; backward the weights again, and the inputs but the first's: 60 + 40."""
    setup = small()
    weights, parameters = 60, 60 + 5 + 5 + 3
    epoch = weights + weights + (weights - 4 * 5)
    assert projection.floor(setup, 5) == pytest.approx(1 + projection.DIRECTIONS * parameters / epoch)


def test_the_comparison_takes_each_side_at_its_best(monkeypatch):
    times = {"plain 2": [4.0], "project 2": [5.0], "plain 3": [2.0], "project 3": [6.0]}
    monkeypatch.setattr(projection, "in_turns", lambda ways, repeats: {name: times[name] for name in ways})
    lines = projection.compare(small(), 1.4, sizes=(2, 3))
    assert [each.ratio for each in lines] == [1.0, 1.25, 1.0, 3.0, 2.5]
    assert lines[-1].met is False


def test_spearman_is_the_correlation_of_ranks():
    values = np.array([3.0, -1.0, 7.0, 0.5])
    assert spearman(values, np.exp(values)) == pytest.approx(1)
    assert spearman(values, -values) == pytest.approx(-1)
    assert spearman(values, np.array([3.0, -1.0, 0.5, 7.0])) == pytest.approx(1 - 6 * 8 / (4 * 15))


def test_a_query_of_a_written_index_is_timed_part_by_part(tmp_path):
    query.write(tmp_path, 1500)
    found = in_fresh_process("benchmarks.query:cold", str(tmp_path))
    assert found["total"] == pytest.approx(found["read"] + found["scores"] + found["order"])
    assert min(found.values()) > 0


def test_a_failure_in_another_process_is_not_a_figure(tmp_path):
    with pytest.raises(RuntimeError, match="manifest"):
        in_fresh_process("benchmarks.query:cold", str(tmp_path))
