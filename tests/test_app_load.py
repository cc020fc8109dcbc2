import pytest
from workspaces import catch_runs, open_app, tiny_workspace, use_home

from influence_core.demo import prepare as demo
from influence_core.errors import UserError
from influence_core.events import Progress, Result
from influence_core.runs.directory import RunDirectory
from influence_core.specs import OpenSpec
from pages.components import loading


@pytest.fixture
def home(monkeypatch, tmp_path):
    return use_home(monkeypatch, tmp_path)


def field(app, label, place=0):
    return [found for found in app.text_input if found.label == label][place]


def test_files_become_a_spec_and_a_run_that_the_page_follows(monkeypatch, home):
    made = catch_runs(monkeypatch)
    app = open_app("load")
    assert not app.exception
    field(app, "Checkpoint folder").set_value(" /models/a ")
    field(app, "Training data").set_value("/data/train.csv")
    field(app, "Test data (optional)").set_value("/data/test.csv")
    field(app, "Label column").set_value("y")
    next(button for button in app.button if button.label == "Check and open").click().run()
    assert not app.exception
    spec = OpenSpec(
        checkpoint="/models/a", data="/data/train.csv", test="/data/test.csv", label_column="y", scope="last:2"
    )
    assert RunDirectory.open(made[0]).spec() == spec
    assert app.query_params["run"] == made[0]
    assert "place 1 in the queue" in app.progress[0].text


def test_an_empty_field_is_named_and_nothing_is_started(monkeypatch, home):
    made = catch_runs(monkeypatch)
    app = open_app("load")
    next(button for button in app.button if button.label == "Fetch and open").click().run()
    assert app.error[0].value.startswith("checkpoint is empty")
    assert made == []


def test_the_check_list_fills_in_and_the_classes_are_shown_before_use(home):
    workspace = tiny_workspace("mine")
    run = RunDirectory.create(OpenSpec(checkpoint="/models/a", data="/data/train.csv"))
    run.claim()
    run.append(Progress(phase="checking the checkpoint", done=1, total=4, unit="checks"))
    run.append(Progress(phase="predicting the test split", done=8, total=24))
    app = open_app("load", run=run.id)
    assert not app.exception
    shown = [found.value for found in app.main.markdown]
    assert ":material/check_circle: checking the checkpoint: done" in shown
    assert ":material/pending: predicting the test split: going on" in shown
    value = {
        "workspace": workspace.name,
        "checkpoint": "first",
        "data": workspace.data_fingerprint,
        "rows": {"train": 40, "validation": 0, "test": 24},
        "accuracy": 2 / 3,
        "mispredictions": 8,
    }
    run.append(Result(value=value))
    run.finish()
    app = open_app("load", run=run.id)
    texts = [found.value for found in app.main.text]
    assert "Rows: 40 train · 24 test" in texts
    assert "Accuracy 66.7 %, 8 mispredictions" in texts
    assert "Classes: 0 is “negative” (20 training rows) · 1 is “positive” (20 training rows)" in texts
    app.button(key="open_it").click().run()
    assert [title.value for title in app.title] == ["Mispredictions"]
    assert "run" not in app.query_params


def test_a_failed_opening_says_why(home):
    run = RunDirectory.create(OpenSpec(checkpoint="/none", data="/data.csv"))
    run.claim()
    run.fail("/none is not a checkpoint folder (no config.json in it): give a folder that save_pretrained wrote")
    app = open_app("load", run=run.id)
    assert "is not a checkpoint folder" in app.error[0].value


def test_opening_another_workspace_selects_it(home):
    tiny_workspace("first")
    second = tiny_workspace("second", names=("no", "yes"))
    run = RunDirectory.create(OpenSpec(checkpoint="/models/a", data="/data/train.csv"))
    run.claim()
    run.append(Result(value={"workspace": second.name, "rows": {}, "accuracy": 0.5, "mispredictions": 1}))
    run.finish()
    app = open_app("load", run=run.id, example="test-3")
    app.button(key="open_it").click().run()
    assert app.query_params["workspace"] == "second"
    assert "example" not in app.query_params


def test_the_demo_is_prepared_in_the_page_and_opened(monkeypatch, home):
    def prepare():
        yield Progress(phase="fetching", done=1, total=2, unit="parts")
        tiny_workspace(loading.DEMO)
        yield Result(value={})

    monkeypatch.setattr(loading, "prepare", prepare)
    app = open_app("load")
    app.button(key="prepare_demo").click().run()
    assert not app.exception
    assert [title.value for title in app.title] == ["Mispredictions"]
    assert open_app("load").button(key="open_demo").label == "Open the demo"


def test_a_demo_that_cannot_be_fetched_says_why(monkeypatch, home):
    def prepare():
        yield Progress(phase="fetching", done=0, total=2, unit="parts")
        raise UserError("no connection: connect once, then it is kept")

    monkeypatch.setattr(loading, "prepare", prepare)
    app = open_app("load")
    app.button(key="prepare_demo").click().run()
    assert "no connection" in app.error[0].value
    assert demo.prepare is not prepare
