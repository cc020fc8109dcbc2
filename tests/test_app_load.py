"""The Load page: demos, entries that become a check, what it found, what is confirmed, and what is opened."""

import numpy as np
import pytest
from workspaces import HOSTILE, add_checkpoint, catch_runs, open_app, tiny_workspace, use_home

from influence_core.demo import prepare as demo
from influence_core.errors import UserError
from influence_core.events import Progress, Result
from influence_core.runs.directory import RunDirectory
from influence_core.specs import CheckSpec, OpenSpec
from influence_core.survey import BrokenRow, CheckpointFound, DataFound, SplitFound, Survey
from pages.components import demos, survey_choices
from pages.components.source_entries import FILES, FILES_MORE, HUB, HUB_MORE, spec_of, typed_of

CHECK = CheckSpec(checkpoint="/models/a", data="/data/train.csv", drop_broken=True)
BERT = CheckpointFound(
    path="/models/a", kind="text", family="bert", classes=("negative", "positive"), parameters=27_000
)
DATA = DataFound(
    source="CSV file",
    modality="text",
    columns=("review", "stars", "mood"),
    input_column="review",
    label_column="mood",
    id_column=None,
    splits={
        "train": SplitFound(rows=800, broken=0, duplicates=0, leaks=0),
        "test": SplitFound(rows=200, broken=0, duplicates=0, leaks=0),
    },
    held_out=False,
    labels={"neg": 420, "pos": 380},
    matched="name",
    classes={"neg": "negative", "pos": "positive"},
    broken=(),
    sample=(("a fine film", "pos"), (HOSTILE, "neg")),
)
BROKEN = {
    "splits": {
        "train": SplitFound(rows=798, broken=2, duplicates=12, leaks=0),
        "test": SplitFound(rows=200, broken=1, duplicates=0, leaks=4),
    },
    "broken": (
        BrokenRow(split="train", position="train.csv, row 12", reason="the text is empty"),
        BrokenRow(split="train", position="train.csv, row 40", reason="not UTF-8", shown=HOSTILE),
        BrokenRow(split="test", position="test.csv, row 3", reason="the label 7 is out of range", shown="fine"),
    ),
}


@pytest.fixture
def home(monkeypatch, tmp_path):
    return use_home(monkeypatch, tmp_path)


def field(app, name, card="files"):
    found = [*app.text_input, *app.text_area]
    return next(element for element in found if element.key == f"load_{card}_{name}")


def press(app, label):
    next(button for button in app.button if button.label == label).click().run()
    assert not app.exception
    return app


def submit(app, card="files"):
    app.button(key=f"check_{card}").click().run()
    assert not app.exception
    return app


def checked(checkpoints=(BERT,), problems=(), spec=CHECK, names=("negative", "positive"), **data):
    """A finished check, and the page that shows it."""
    survey = Survey(
        checkpoints=checkpoints, data=DATA.model_copy(update=data), label_names=names, problems=tuple(problems)
    )
    run = RunDirectory.create(spec, what="check a with train.csv")
    run.claim()
    run.append(Result(value=survey.model_dump(mode="json")))
    run.finish()
    app = open_app("load", run=run.id)
    assert not app.exception
    return app, run.id


def open_button(app):
    return app.button(key="open_found")


def texts(app):
    return [found.value for found in app.main.text]


def test_entries_become_a_check_that_the_page_follows(monkeypatch, home):
    made = catch_runs(monkeypatch)
    app = open_app("load")
    assert not app.exception
    field(app, "checkpoint").set_value(" /models/a ")
    field(app, "data").set_value("/data/train.csv")
    field(app, "test").set_value("/data/test.csv")
    field(app, "label_column").set_value("y")
    field(app, "max_length").set_value("128")
    field(app, "prefix").set_value("sst2 sentence: ")
    field(app, "label_words").set_value("positive = very good\n\nnegative=bad")
    field(app, "also").set_value("/models/b\n /models/c \n")
    submit(app)
    assert RunDirectory.open(made[0]).spec() == CheckSpec(
        checkpoint="/models/a",
        also=("/models/b", "/models/c"),
        data="/data/train.csv",
        test="/data/test.csv",
        label_column="y",
        max_length=128,
        prefix="sst2 sentence: ",
        label_words={"positive": "very good", "negative": "bad"},
        drop_broken=True,
    )
    assert app.query_params["run"] == made[0]
    assert "place 1 in the queue" in app.progress[0].text


def test_names_on_the_hub_become_a_check_too(monkeypatch, home):
    made = catch_runs(monkeypatch)
    app = open_app("load")
    typed = {"checkpoint": "owner/model", "revision": "abc123", "data": "stanfordnlp/sst2", "test": "validation"}
    for name, value in {**typed, "configuration": "plain", "data_revision": "def456"}.items():
        field(app, name, "hub").set_value(value)
    submit(app, "hub")
    assert RunDirectory.open(made[0]).spec() == CheckSpec(
        checkpoint="owner/model",
        revision="abc123",
        data="stanfordnlp/sst2",
        configuration="plain",
        data_revision="def456",
        test="validation",
        drop_broken=True,
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("checkpoint", " ", "the checkpoint is empty"),
        ("data", "", "the training data is empty"),
        ("max_length", "long", "max_length = 'long'"),
        ("scope", "some", "scope"),
        ("label_words", "positive", "class = words"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said_and_nothing_is_started(monkeypatch, home, name, value, said):
    made = catch_runs(monkeypatch)
    app = open_app("load")
    field(app, "checkpoint").set_value("/models/a")
    field(app, "data").set_value("/data/train.csv")
    field(app, name).set_value(value)
    submit(app)
    assert said in app.error[0].value.replace("\\", "")
    assert made == []


def test_entries_survive_a_reload_and_a_failed_check(home):
    spec = CheckSpec(
        checkpoint="/none",
        also=("/b", "/c"),
        data="/data.csv",
        label_words={"pos": "good"},
        max_length=64,
        prefix="x: ",
    )
    run = RunDirectory.create(spec)
    run.claim()
    run.fail("/none is not a checkpoint folder (no config.json in it): give a folder that save_pretrained wrote")
    app = open_app("load", run=run.id)  # a new session, as after a reload
    assert "is not a checkpoint folder" in app.error[0].value
    shown = {name: field(app, name).value for name in ("checkpoint", "data", "test", "also", "max_length", "prefix")}
    assert shown == {
        "checkpoint": "/none",
        "data": "/data.csv",
        "test": "",
        "also": "/b\n/c",
        "max_length": "64",
        "prefix": "x: ",
    }
    assert field(app, "label_words").value == "pos = good"
    assert field(app, "checkpoint", "hub").value == ""
    field(app, "checkpoint").set_value("/models/a")
    field(app, "data").set_value("")
    submit(app)  # refused: what is typed since stays
    assert (field(app, "checkpoint").value, field(app, "data").value) == ("/models/a", "")


def test_names_on_the_hub_come_back_into_their_own_card(home):
    run = RunDirectory.create(CheckSpec(checkpoint="owner/model", data="owner/data", train="most"))
    run.claim()
    run.fail("no connection")
    app = open_app("load", run=run.id)
    assert (field(app, "checkpoint", "hub").value, field(app, "train", "hub").value) == ("owner/model", "most")
    assert field(app, "checkpoint").value == ""


@pytest.mark.parametrize(
    "options",
    [
        {
            "also": ("/b", "/c d"),
            "revision": "r",
            "architecture": "resnet18",
            "configuration": "c",
            "data_revision": "d",
        },
        {"train": "most", "test": "/t.csv", "validation": "rest", "max_length": 64, "scope": "last:3"},
        {
            "label_words": {"pos": "very = good", "neg": "bad"},
            "prefix": " sst2: ",
            "id_column": "n",
            "image_column": "i",
        },
    ],
)
def test_entries_and_specs_turn_into_each_other(options):
    spec = CHECK.model_copy(update=options)
    assert spec_of(typed_of(spec)) == spec


def test_each_form_has_an_entry_for_every_field():
    fields = set(CheckSpec.model_fields) - {"kind", "classes", "drop_broken"}  # these are asked with what was found
    assert {entry.name for entry in FILES + FILES_MORE} == fields
    assert {entry.name for entry in HUB + HUB_MORE} == fields - {"architecture"}


def test_the_check_list_fills_in(home):
    run = RunDirectory.create(CHECK)
    run.claim()
    run.append(Progress(phase="checking the checkpoint", done=1, total=2, unit="checks"))
    run.append(Progress(phase="reading the data", done=8, total=24))
    app = open_app("load", run=run.id)
    assert not app.exception
    shown = [found.value for found in app.main.markdown]
    assert ":material/check_circle: checking the checkpoint: done" in shown
    assert ":material/pending: reading the data: going on" in shown


def test_what_was_found_is_shown_before_anything_is_made(home):
    app, _ = checked(
        checkpoints=(
            BERT.model_copy(
                update={
                    "step": 500,
                    "optimizer": {"kind": "adam", "state": "optimizer.pt"},
                    "notes": ("Cased: the tokenizer keeps capitals.",),
                }
            ),
        ),
        **BROKEN,
    )
    table = app.dataframe[0].value
    assert table.to_dict("records") == [
        {
            "Name": "a",
            "Family": "bert",
            "Classes": "2",
            "Parameters": "27,000",
            "Step": "500",
            "Optimizer": "Adam, its state is there",
        }
    ]
    assert any("Cased" in found.value for found in app.main.caption)
    assert "CSV file: 798 train · 200 test." in texts(app)
    said = [found.value.replace("\\", "") for found in app.warning]
    assert said[0].startswith("Duplicates: 12 in train.")
    assert said[1].startswith("Leaks: 4 of test stand in the training split as well.")
    sample = app.dataframe[1].value
    assert sample["Text"].to_list() == ["a fine film", HOSTILE]
    assert not any("onerror" in found.value for found in [*app.markdown, *app.caption, *app.warning])


def test_without_test_data_the_page_says_where_test_rows_come_from(home):
    app, _ = checked(held_out=True)
    assert "CSV file: 800 train · 200 test. No test data was given: every fifth row is held out as one." in texts(app)


def test_every_label_stands_beside_its_class_and_open_takes_what_was_checked(monkeypatch, home):
    app, run = checked()
    made = catch_runs(monkeypatch)
    assert texts(app)[texts(app).index("neg") :][:4] == ["neg", "420", "pos", "380"]
    boxes = {label: app.selectbox(key=f"survey_class_{label}_{run}") for label in ("neg", "pos")}
    assert [box.value for box in boxes.values()] == ["negative", "positive"]
    assert boxes["neg"].options == ["negative", "positive"]
    assert not open_button(app).disabled
    open_button(app).click().run()
    assert not app.exception
    assert RunDirectory.open(made[0]).spec() == OpenSpec(checkpoint="/models/a", data="/data/train.csv")
    assert app.query_params["run"] == made[0]


def test_a_changed_class_goes_into_the_spec(monkeypatch, home):
    app, run = checked()
    made = catch_runs(monkeypatch)
    app.selectbox(key=f"survey_class_neg_{run}").set_value("positive").run()
    app.selectbox(key=f"survey_class_pos_{run}").set_value("negative").run()
    open_button(app).click().run()
    spec = RunDirectory.open(made[0]).spec()
    assert isinstance(spec, OpenSpec)
    assert spec.classes == {"neg": "positive", "pos": "negative"}


def test_a_label_without_a_class_disables_open_until_one_is_chosen_and_checked(monkeypatch, home):
    labels = {"neg": 420, "pos": 373, "meh": 7}
    classes = {"neg": "negative", "pos": "positive", "meh": None}
    app, run = checked(problems=["the label 'meh' (7 rows) matches no class"], labels=labels, classes=classes)
    made = catch_runs(monkeypatch)
    assert "meh" in app.error[0].value
    assert open_button(app).disabled
    assert "No class is chosen for 'meh'." in [found.value.replace("\\", "") for found in app.main.caption]
    app.selectbox(key=f"survey_class_meh_{run}").set_value("negative").run()
    assert open_button(app).disabled  # what was said in red may still hold
    app.button(key="check_again").click().run()
    spec = RunDirectory.open(made[0]).spec()
    assert isinstance(spec, CheckSpec)
    assert spec.classes == {"neg": "negative", "pos": "positive", "meh": "negative"}


def test_a_label_on_few_rows_is_broken_unless_a_class_is_chosen(monkeypatch, home):
    labels = {"neg": 420, "pos": 378, "-1": 2}
    splits = {**DATA.splits, "train": SplitFound(rows=798, broken=2, duplicates=0, leaks=0)}
    rows = tuple(
        BrokenRow(split="train", position=f"train.csv, row {n}", reason="label '-1' is none of the classes")
        for n in (7, 8)
    )
    app, run = checked(labels=labels, splits=splits, broken=rows)
    made = catch_runs(monkeypatch)
    box = app.selectbox(key=f"survey_class_-1_{run}")
    assert box.value == survey_choices.FEW
    app.radio(key=f"survey_broken_choice_{run}").set_value(survey_choices.LEAVE).run()
    open_button(app).click().run()
    first = RunDirectory.open(made[0]).spec()
    assert isinstance(first, OpenSpec)
    assert (first.classes, first.drop_broken) == ({}, True)
    app = open_app("load", run=run)
    app.selectbox(key=f"survey_class_-1_{run}").set_value("negative").run()
    app.radio(key=f"survey_broken_choice_{run}").set_value(survey_choices.LEAVE).run()
    open_button(app).click().run()
    second = RunDirectory.open(made[1]).spec()
    assert isinstance(second, OpenSpec)
    assert second.classes == {"neg": "negative", "pos": "positive", "-1": "negative"}


def test_the_datas_own_names_stand_beside_generic_ones(home):
    generic = BERT.model_copy(update={"classes": ("LABEL_0", "LABEL_1")})
    app, run = checked((generic,), names=("neg", "pos"), classes={"neg": "neg", "pos": "pos"}, matched="number")
    box = app.selectbox(key=f"survey_class_pos_{run}")
    assert box.options == ["LABEL_0, named neg", "LABEL_1, named pos"]
    assert box.value == "LABEL_1"
    assert any("Look closely" in found.value for found in app.main.caption)
    assert not open_button(app).disabled


def test_a_generator_is_given_label_words(monkeypatch, home):
    t5 = CheckpointFound(path="/models/t5", kind="seq2seq", family="t5", classes=(), parameters=60_500_000)
    classes = {"neg": "neg", "pos": "pos"}
    spec = CHECK.model_copy(update={"label_words": {"pos": "great"}})
    app, run = checked((t5,), spec=spec, names=("neg", "pos"), classes=classes)
    made = catch_runs(monkeypatch)
    words = {label: app.text_input(key=f"survey_words_{label}_{run}") for label in classes}
    assert {label: found.value for label, found in words.items()} == {"neg": "neg", "pos": "great"}
    words["neg"].set_value("terrible").run()
    open_button(app).click().run()
    opened = RunDirectory.open(made[0]).spec()
    assert isinstance(opened, OpenSpec)
    assert opened.label_words == {"neg": "terrible", "pos": "great"}
    assert opened.classes == {}


def test_rows_that_cannot_be_used_are_listed_and_their_fate_is_asked(monkeypatch, home):
    app, run = checked(**BROKEN)
    made = catch_runs(monkeypatch)
    table = app.dataframe[2].value
    assert table["position"].to_list() == ["train.csv, row 12", "train.csv, row 40", "test.csv, row 3"]
    assert table["shown"].to_list() == ["", HOSTILE, "fine"]
    choice = app.radio(key=f"survey_broken_choice_{run}")
    assert choice.options == ["Leave these 3 rows out", "I fix the file and check again"]
    assert choice.value is None
    assert open_button(app).disabled
    choice.set_value(survey_choices.FIX).run()
    assert open_button(app).disabled
    app.radio(key=f"survey_broken_choice_{run}").set_value(survey_choices.LEAVE).run()
    assert not open_button(app).disabled
    open_button(app).click().run()
    assert RunDirectory.open(made[0]).spec() == CHECK.opening  # which leaves them out


def test_without_broken_rows_none_may_be_left_out(monkeypatch, home):
    app, _ = checked()
    made = catch_runs(monkeypatch)
    open_button(app).click().run()
    spec = RunDirectory.open(made[0]).spec()
    assert isinstance(spec, OpenSpec)
    assert not spec.drop_broken


def test_a_problem_disables_open(home):
    app, _ = checked(problems=["the data has 3 classes, the checkpoint 2: choose another checkpoint"])
    assert "3 classes" in app.error[0].value
    assert open_button(app).disabled


def test_other_columns_are_checked_again_before_anything_is_opened(monkeypatch, home):
    spec = CHECK.model_copy(update={"classes": {"neg": "negative", "pos": "positive"}})
    app, run = checked(spec=spec)
    made = catch_runs(monkeypatch)
    assert app.selectbox(key=f"survey_text_column_{run}").options == ["review", "stars", "mood"]
    app.selectbox(key=f"survey_label_column_{run}").set_value("stars").run()
    app.selectbox(key=f"survey_id_column_{run}").set_value("mood").run()
    assert open_button(app).disabled
    app.button(key="check_again").click().run()
    again = RunDirectory.open(made[0]).spec()
    assert again == CHECK.model_copy(update={"label_column": "stars", "id_column": "mood"})  # without the old classes
    assert field(app, "label_column").value == "stars"


def test_confirmed_classes_stay_while_the_form_names_the_same_data(monkeypatch, home):
    spec = CHECK.model_copy(update={"classes": {"neg": "negative", "pos": "positive"}})
    app, _ = checked(spec=spec)
    made = catch_runs(monkeypatch)
    field(app, "max_length").set_value("32")
    submit(app)
    field(app, "data").set_value("/data/other.csv")
    submit(app)
    first, second = (RunDirectory.open(run).spec() for run in made)
    assert isinstance(first, CheckSpec)
    assert isinstance(second, CheckSpec)
    assert (first.classes, first.max_length) == (spec.classes, 32)
    assert second.classes == {}


def test_a_folder_of_images_has_no_columns_and_its_files_as_sample(home):
    vit = BERT.model_copy(update={"kind": "image", "family": "vit"})
    data = {"modality": "image", "source": "image folder", "columns": (), "input_column": "image"}
    app, _ = checked((vit,), **data, sample=(("cat/1.png", "cat"),))
    assert not [box for box in app.selectbox if "column" in (box.key or "")]
    assert list(app.dataframe[1].value.columns) == ["Label", "File"]
    assert not open_button(app).disabled


def test_several_checkpoints_of_one_training_are_listed(home):
    app, _ = checked(tuple(BERT.model_copy(update={"path": f"/run/checkpoint-{s}", "step": s}) for s in (500, 1000)))
    assert app.dataframe[0].value["Name"].to_list() == ["checkpoint-500", "checkpoint-1000"]
    assert any("2 checkpoints of one training" in found.value for found in app.main.markdown)


def test_what_was_opened_is_shown_with_its_classes_and_used(home):
    workspace = tiny_workspace("mine")
    run = RunDirectory.create(OpenSpec(checkpoint="/models/a", data="/data/train.csv"))
    run.claim()
    value = {
        "workspace": workspace.name,
        "checkpoint": "first",
        "data": workspace.data_fingerprint,
        "rows": {"train": 40, "validation": 0, "test": 24},
        "accuracy": 2 / 3,
        "mispredictions": 8,
    }
    run.append(Progress(phase="predicting the test split", done=24, total=24))
    run.append(Result(value=value))
    run.finish()
    app = open_app("load", run=run.id)
    assert ":material/check_circle: predicting the test split: done" in [found.value for found in app.main.markdown]
    assert "Rows: 40 train · 24 test" in texts(app)
    assert "Accuracy 66.7 %, 8 mispredictions" in texts(app)
    assert "Classes: 0 is “negative” (20 training rows) · 1 is “positive” (20 training rows)" in texts(app)
    app.button(key="open_it").click().run()
    assert [title.value for title in app.title] == ["Mispredictions"]
    assert "run" not in app.query_params


def test_a_failed_opening_says_why_and_keeps_its_entries(home):
    run = RunDirectory.create(OpenSpec(checkpoint="/models/a", data="/data.csv", scope="all"))
    run.claim()
    run.fail("the weights have 3 values that are not numbers: choose another checkpoint")
    app = open_app("load", run=run.id)
    assert "not numbers" in app.error[0].value
    assert (field(app, "checkpoint").value, field(app, "scope").value) == ("/models/a", "all")


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


def test_opening_a_second_checkpoint_of_a_workspace_selects_it(home):
    workspace = tiny_workspace("mine")
    add_checkpoint(workspace, "second", np.random.default_rng(4))
    run = RunDirectory.create(OpenSpec(checkpoint="/models/b", data="/data/train.csv"))
    run.claim()
    value = {"workspace": "mine", "checkpoint": "second", "notes": ["optimizer.pt is not used: choose warm"]}
    run.append(Result(value={**value, "rows": {}, "accuracy": 0.5, "mispredictions": 1}))
    run.finish()
    app = open_app("load", run=run.id)
    assert "optimizer.pt is not used: choose warm" in [found.value for found in app.main.text]
    app.button(key="open_it").click().run()
    assert app.query_params["checkpoint"] == "second"


@pytest.mark.parametrize("name", ["demo:movie-reviews", "demo:fashion-mnist"])
def test_a_demo_is_prepared_in_the_page_and_opened(monkeypatch, home, name):
    def prepare(asked):
        yield Progress(phase="fetching", done=1, total=2, unit="parts")
        tiny_workspace(asked)
        yield Result(value={})

    monkeypatch.setattr(demos, "prepare", prepare)
    app = open_app("load")
    assert len([button for button in app.button if button.key.startswith("prepare_demo_")]) == 2
    app.button(key=f"prepare_demo_{name.removeprefix('demo:')}").click().run()
    assert not app.exception
    assert [title.value for title in app.title] == ["Mispredictions"]
    assert app.sidebar.selectbox[0].value == name
    again = open_app("load")
    again.button(key=f"open_demo_{name.removeprefix('demo:')}").click().run()
    assert [title.value for title in again.title] == ["Mispredictions"]


def test_a_demo_that_cannot_be_fetched_says_why(monkeypatch, home):
    def prepare(asked):
        yield Progress(phase="fetching", done=0, total=2, unit="parts")
        raise UserError("no connection: connect once, then it is kept")

    monkeypatch.setattr(demos, "prepare", prepare)
    app = open_app("load")
    app.button(key="prepare_demo_fashion-mnist").click().run()
    assert "no connection" in app.error[0].value
    assert demo.prepare is not prepare


def test_every_demo_has_its_words():
    assert set(demos.WORDS) == set(demos.DEMOS)


def test_what_a_look_tells_of_the_data_is_shown(home):
    app, _ = checked(notes=("2 files are no images and passed over in /data (first: a*b/notes.txt).",))
    (said,) = [found.value for found in app.main.caption if "passed over" in found.value]
    assert "a\\*b" in said
    assert not open_button(app).disabled


def test_a_class_that_was_chosen_for_a_label_since_renamed_goes_with_checking_again(monkeypatch, home):
    spec = CHECK.model_copy(update={"classes": {"nay": "negative", "pos": "positive"}})
    app, _ = checked(problems=["label 'nay' was given a class, but the data have no such label"], spec=spec)
    made = catch_runs(monkeypatch)
    app.button(key="check_again").click().run()
    assert RunDirectory.open(made[0]).spec() == CHECK.model_copy(update={"classes": {"pos": "positive"}})
