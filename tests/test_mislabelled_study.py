"""The study of mislabelled rows on a tiny workspace whose truth is known: precision and corrections by hand."""

import json

import numpy as np
import pytest
from homes import living_in
from noisy_workspaces import noisy_workspace

from influence_core.charts import precision as draw
from influence_core.cli import main
from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.runs import registry
from influence_core.runs.stopping import request_stop
from influence_core.specs import MislabelledSpec, RankSpec, parse_spec
from influence_core.studies.cases import Case
from influence_core.studies.correcting import Corrections
from influence_core.studies.precision import row
from influence_core.studies.resumable import Budget

SMALL = {"optimizer": "sgd", "learning_rate": 0.03, "batch_size": 16, "steps": 8, "mispredictions": 6, "look": 8}
STUDY = {**SMALL, "methods": ("tracin",), "at": (5, 20, 500)}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("mislabelled")
    with living_in(root / "home"):
        yield noisy_workspace(root / "model")


@pytest.fixture(autouse=True)
def at_home(workspace, monkeypatch):
    monkeypatch.setenv("INFLUENCE_HOME", str(workspace.path.parents[1]))


@pytest.fixture(scope="module")
def value(workspace, tmp_path_factory):
    with living_in(workspace.path.parents[1]):
        return study(workspace, tmp_path_factory.mktemp("run"))


def study(workspace, result, **options):
    spec = MislabelledSpec(workspace=workspace.name, **{**STUDY, **options})
    assert parse_spec(spec.model_dump_json()) == spec
    found = list(registry.start(spec, result))[-1].value
    json.dumps(found, allow_nan=False)
    return found


def test_precision_is_a_hand_count_of_the_suspects(workspace, value):
    wrong = dict(zip(workspace.train["id"], workspace.train["label"] != workspace.train["gold"], strict=True))
    assert value["mislabelled"] == sum(wrong.values()) > 0
    own, loss, chance = value["precision"]
    assert (own["order"], own["method"]) == ("self-influence", "tracin")
    suspects = workspace.suspects(method="tracin", top=20).suspects
    assert [each["k"] for each in own["precision"]] == [5, 20]  # there are no 500 rows
    for each in own["precision"]:
        assert each["value"] == sum(wrong[suspect.id] for suspect in suspects[: each["k"]]) / each["k"]
        assert each["low"] < each["high"]
    predictions = workspace.predict("train")
    worst = predictions.sort_values("loss", ascending=False, kind="stable")["id"].tolist()
    for each in loss["precision"]:
        assert each["value"] == sum(wrong[example] for example in worst[: each["k"]]) / each["k"]
    assert {each["value"] for each in chance["precision"]} == {sum(wrong.values()) / len(wrong)}


def test_precision_of_an_order_by_hand():
    wrong = np.array([True, False, True, True, False])
    found = row("loss", None, np.array([0.1, 0.9, 0.9, 0.5, -1.0]), wrong, (3, 1, 2, 9))  # rows 1, 2, 3, 0, 4
    assert [(each["k"], each["value"]) for each in found["precision"]] == [(1, 0), (2, 0.5), (3, 2 / 3)]


def test_pairs_are_the_mislabelled_among_the_top_proponents(workspace, value):
    frame, names = workspace.train.set_index("id"), workspace.label_names
    assert value["pairs"]
    for pair in value["pairs"]:
        ranking = workspace.rank(pair["example"], method="tracin", top=8)
        expected = [each for each in ranking.proponents if frame.loc[each.id, "label"] != frame.loc[each.id, "gold"]]
        assert [each["id"] for each in pair["proponents"]] == [each.id for each in expected]
        for found, each in zip(pair["proponents"], expected, strict=True):
            assert (found["label"], found["gold"]) == (each.label, names[frame.loc[each.id, "gold"]])
            assert found["cosine"] == pytest.approx(each.cosine)
        assert pair["predicted"] != pair["desired"]
    assert 0 < value["proponents_mislabelled"] <= 1


def test_table_two_is_a_hand_count_of_its_pairs(workspace, value):
    own, permuted = value["corrections"]
    pairs = {pair["example"]: pair for pair in value["pairs"]}
    assert own["mispredictions"] == len(pairs)
    cosines = [np.mean([each["cosine"] for each in pair["proponents"]]) for pair in pairs.values()]
    assert own["influence"]["value"] == pytest.approx(np.mean(cosines))
    assert own["influence_variance"] == pytest.approx(np.var(cosines, ddof=1))
    moved = {example: pair for example, pair in pairs.items() if pair["permuted_from"]}
    assert permuted["mispredictions"] == len(moved) == len(pairs) - permuted["without_partner"]
    assert moved
    influences = []
    for example, pair in moved.items():
        partner = pairs[pair["permuted_from"]]
        assert partner["example"] != example
        assert (partner["predicted"], partner["desired"]) == (pair["predicted"], pair["desired"])
        ranking = workspace.rank(example, method="tracin", top=200)
        cosine = {each.id: each.cosine for each in [*ranking.proponents, *ranking.opponents]}
        influences.append(np.mean([cosine[each["id"]] for each in partner["proponents"]]))
    assert permuted["influence"]["value"] == pytest.approx(np.mean(influences))
    assert own["influence"]["value"] > permuted["influence"]["value"]
    for line, kind in ((own, "own"), (permuted, "permuted")):
        done = [pair[kind] for pair in pairs.values() if kind in pair]
        flips = [each["flip"] for each in done if each["flip"] is not None]
        assert line["success"]["value"] == pytest.approx(len(flips) / len(done))
        assert line["median_steps"] == (np.median(flips) if flips else None)
        assert line["retention"]["value"] == pytest.approx(np.mean([each["retention"] for each in done]))


def test_corrections_set_the_rows_to_gold(workspace, value, tmp_path):
    pair, names = value["pairs"][0], workspace.label_names
    _, place = workspace.locate(pair["example"])
    case = Case(pair["example"], place, names.index(pair["predicted"]), names.index(pair["desired"]))
    numbers = np.array([workspace.locate(each["id"])[1] for each in pair["proponents"]])
    gold = np.array([names.index(each["gold"]) for each in pair["proponents"]])
    spec = MislabelledSpec(workspace=workspace.name, **{**STUDY, "learning_rate": 0.03000001})  # none is kept
    given = Corrections(spec, workspace, [case], tmp_path, Budget(None)).course(case, numbers, gold, 0.5)
    while True:
        try:
            next(given)
        except StopIteration as end:
            found = end.value
            break
    assert (found.flip, found.retention) == (pair["own"]["flip"], pytest.approx(pair["own"]["retention"]))


def test_a_stopped_study_is_a_valid_table_and_goes_on(workspace, value, tmp_path):
    spec, ended = MislabelledSpec(workspace=workspace.name, **STUDY, seed=0, dropout=False), None
    for event in registry.start(spec, tmp_path):
        if isinstance(event, Progress) and event.phase.startswith("correcting") and event.done == 1:
            request_stop(tmp_path)
        ended = event
    assert ended.value["corrections"][0]["mispredictions"] == 1
    assert ended.value["corrections"][1]["mispredictions"] == 0
    assert ended.value["corrections"][1]["steps"]["value"] is None
    again = study(workspace, tmp_path / "again")
    assert {**again, "seconds": 0} == {**value, "seconds": 0}


def test_what_it_needs_is_said(workspace, opened, tmp_path):
    with pytest.raises(UserError, match="has no gold labels of its training rows"):
        study(opened, tmp_path)


def test_methods_without_self_influence_are_refused_by_name(workspace, tmp_path):
    with pytest.raises(UserError, match="hif-cr cannot be used here: it gives no self-influence"):
        study(workspace, tmp_path, methods=("hif-cr",))


def test_the_command_and_its_figure(workspace, value, capsys, tmp_path):
    sizes = ["--optimizer", "sgd", "--learning-rate", "0.03", "--batch-size", "16", "--steps", "8", "--look", "8"]
    small = ["study", "mislabelled", workspace.name, *sizes, "--mispredictions", "6", "--judge", "tracin"]
    for options in (["--at", "5", "--at", "20", "--json"], ["--at", "5", "--at", "20"]):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([*small, *options])
        assert not caught.value.code
        out = capsys.readouterr().out
        if "--json" in options:
            assert json.loads(out)["precision"] == value["precision"]
        else:
            assert f"{value['mislabelled']} of 120 training rows are mislabelled" in out
            assert "own minus permuted" in out
    figure = draw(value["precision"])
    assert [trace.name for trace in figure.data] == ["self-influence (TracIn)", "the loss", "chance"]
    assert list(figure.data[0].x) == [5, 20]
    assert figure.layout.meta["title"].startswith("Truly mislabelled among the first 5 training rows: ")
    assert "fewer training rows" in draw([]).layout.meta["title"]


def test_rankings_are_those_of_the_spec(workspace, tmp_path):
    by_score = study(workspace, tmp_path, by="score", look=1)
    first = {pair["example"]: pair["proponents"][0]["id"] for pair in by_score["pairs"]}
    for example, row_id in first.items():
        spec = RankSpec(workspace=workspace.name, example=example, method="tracin", by="score", top=1)
        assert list(registry.start(spec, tmp_path))[-1].value["proponents"][0]["id"] == row_id
