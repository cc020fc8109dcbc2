"""The rows of B on the Correct page, before a run and after it: which they are, their labels, who decided on them."""

import json
from types import SimpleNamespace

import pytest
from correct_page import EXAMPLE, captions, finished, opened
from workspaces import HOSTILE, catch_runs, tiny_image_workspace, tiny_workspace, use_home

from influence_core.home import write_json
from influence_core.reports.chosen_rows import ChosenRow, stale_words
from influence_core.specs import CorrectionSpec, RankSpec
from pages.components import correction_settings as form
from pages.components.correction_rows_words import DRAWN, UNKNOWN, set_already, stale_before, title, whose


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    return tiny_workspace()


def rows_of_b(app):
    return next(table.value for table in app.dataframe if "trained as" in table.value)


def expanders(app):
    return [each.label for each in app.expander]


def change(workspace, row, annotator="ann"):
    labels = workspace.labels()
    old = workspace.label_names[int(labels.values[workspace.locate(row)[1]])]
    new = next(name for name in workspace.label_names if name != old)
    workspace.relabel(row, new, expect=old, annotator=annotator)
    return new


def leave(run, **facts):
    manifest = json.loads((run.result / "manifest.json").read_text())
    write_json(run.result / "manifest.json", {**manifest, **facts})


def test_a_run_that_is_over_lists_its_rows_with_both_labels_and_who_decided(workspace):
    new = change(workspace, "train-3", "<b>Ann</b>")
    run = finished(workspace)
    leave(run, cursor=1)
    change(workspace, "train-0", "later")
    app = opened(run=run.id)
    assert "The 2 rows of B" in expanders(app)
    table = rows_of_b(app)
    assert list(table.columns) == ["id", "text", "label", "trained as", "decided"]  # neither groups nor notes are there
    assert table["id"].tolist() == ["train-0", "train-3"]
    assert table["text"][0] == HOSTILE
    own = workspace.original_labels(["train-0"])["train-0"]
    assert table["label"].tolist() == [own, new]
    assert table["trained as"].tolist() == ["positive", "positive"]
    assert table["decided"].tolist() == ["", "changed by <b>Ann</b>"]
    said = captions(app)
    assert "Annotators had decided on 1 of them before: <b>Ann</b>." in said
    assert "no longer ha" not in said


def test_rows_scored_by_earlier_labels_are_counted_and_marked(workspace):
    run = finished(workspace)
    leave(run, stale=3)
    ranking = workspace.ready(RankSpec(workspace=workspace.name, example=EXAMPLE, top=4))
    old = [row.model_copy(update={"stale": row.id in ("train-3", "train-2")}) for row in ranking.proponents]
    write_json(run.result / "ranking.json", ranking.model_copy(update={"proponents": old}).model_dump())
    app = opened(run=run.id)
    said = "3 training rows were scored by labels they no longer have (in B: 1): build the index to refresh."
    assert said in captions(app)
    assert rows_of_b(app)["note"].tolist() == ["", "label changed since"]


def test_pictures_stand_for_themselves(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    images = tiny_image_workspace()
    app = opened(run=finished(images, example="test-6", split="test").id)
    assert rows_of_b(app)["image"].str.startswith("data:image/png;base64,").all()


def test_before_the_start_the_rows_that_would_be_taken_are_listed(workspace, monkeypatch):
    submitted = catch_runs(monkeypatch)
    app = opened(example=EXAMPLE)
    app.number_input(key=form.K).set_value(4).run()
    assert "The 4 rows of B" in expanders(app)
    table = rows_of_b(app)
    asked = RankSpec(workspace=workspace.name, example=EXAMPLE, top=4)
    ranking = workspace.ready(asked)
    assert table["id"].tolist() == [row.id for row in ranking.proponents]
    assert table["label"].tolist() == [row.label for row in ranking.proponents]
    assert set(table["trained as"]) == {"positive"}
    already = sum(row.label == "positive" for row in ranking.proponents)
    assert already == 3
    assert "3 of B's rows are labelled “positive” already: setting them changes nothing." in captions(app)
    assert "relabelled since" not in captions(app)
    app.radio(key=form.STRATEGY).set_value("opponents").run()
    table = rows_of_b(app)
    assert table["id"].tolist() == [row.id for row in ranking.opponents]
    assert table["trained as"].tolist() == table["label"].tolist()
    assert "already: setting" not in captions(app)
    assert submitted == []


def test_before_the_start_rows_relabelled_since_they_were_scored_are_said(workspace):
    ranking = workspace.ready(RankSpec(workspace=workspace.name, example=EXAMPLE, top=1))
    new = change(workspace, ranking.proponents[0].id)
    change(workspace, ranking.opponents[0].id)
    app = opened(example=EXAMPLE)
    assert "2 training rows were relabelled since the rows were scored (in B: 1): the run scores them" in captions(app)
    first = rows_of_b(app).iloc[0]
    assert (first["id"], first["label"], first["decided"]) == (ranking.proponents[0].id, new, "changed by ann")
    assert first["note"] == "label changed since"
    # annotators' rows keep their labels; the page does not refuse what the run would do
    app.toggle(key=form.ANNOTATED).set_value(True)
    app.radio(key=form.STRATEGY).set_value("opponents").run()
    assert not app.error
    assert rows_of_b(app)["id"].tolist() == [ranking.proponents[0].id]
    assert rows_of_b(app)["trained as"].tolist() == [new]


def test_rows_that_are_not_known_yet_are_not_guessed(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    tiny_workspace(tracin=False)
    app = opened(example=EXAMPLE)
    assert UNKNOWN in captions(app)
    assert not any("of B" in label for label in expanders(app))
    app.radio(key=form.STRATEGY).set_value("random").run()
    assert DRAWN in captions(app)


def test_rows_of_other_data_are_not_taken_for_those_of_the_run(workspace):
    """A workspace was removed and another made under its name: the page stays, without the rows."""
    run = finished(workspace)
    leave(run, data="0" * 64, rows=["train-0", "train-gone"])
    app = opened(run=run.id)
    assert not app.exception
    assert "is recorded" in app.error[0].value
    assert not any("of B" in label for label in expanders(app))
    assert any(button.key == f"change_{run.id}" for button in app.button)


def ran(stale, rankings=("a ranking",)):
    """What a correction left, as far as these words look at it."""
    return SimpleNamespace(manifest={"stale": stale}, rankings=rankings)


def test_the_words():
    rows = [ChosenRow("a", "n", "p"), ChosenRow("b", "p", "p", stale=True), ChosenRow("b", "p", "p", stale=True)]
    spec = CorrectionSpec(workspace="w", example="x")
    assert (title(1), title(1200)) == ("The 1 row of B", "The 1,200 rows of B")
    assert stale_words(ran(0), rows) is None
    assert stale_words(ran(1), rows) == (
        "1 training row was scored by a label it no longer has (in B: 1): build the index to refresh."
    )
    assert "(in B: none)" in stale_words(ran(2), rows[:1])
    assert "(in B" not in stale_words(ran(2, rankings=()), rows[:1])  # which they are is not known
    assert stale_before(0, rows) is None
    assert "1 training row was relabelled" in stale_before(1, [])
    assert set_already(spec, rows[:1], "p") is None
    assert set_already(spec, rows[:2], "p").startswith("1 of B's rows is labelled “p” already")
    assert set_already(spec, rows[1:], "p").startswith("All of B's rows are")
    for keeps in ({"strategy": "opponents"}, {"only_annotated": True}):
        kept = spec.model_copy(update=keeps)
        assert set_already(kept, rows, "p") is None
        assert "keep the labels that they have" in whose(kept, "p")
    assert "are set to “p”, in this run and nowhere else" in whose(spec, "p")
