"""Groups from a file on the Correct page: given, refused, kept over a reload, taken over from a run."""

import json

import pytest
from test_app_correct_set import WRONG, opened, spec_of
from workspaces import catch_runs, tiny_workspace, use_home

from influence_core.groups import UNNAMED, keep_groups, kept_groups
from influence_core.runs.directory import RunDirectory
from pages.components import correction_set
from pages.components import correction_set_groups as groups
from pages.components.correction_set_words import given_words, settings_words

LINES = [f"train-{number},{('web', 'books')[number % 2]},{number % 4}" for number in range(30)]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    return tiny_workspace()


@pytest.fixture
def submitted(workspace, monkeypatch):
    return catch_runs(monkeypatch)


@pytest.fixture
def examples(workspace):
    return [each for each in WRONG if workspace.truth(each) == 1][:3]


def table(lines=LINES, head="id,source,part"):
    return "\n".join([head, *lines, ""]).encode()


def asked(examples):
    """The form with the choice made, before a file is given."""
    app = opened(set=json.dumps(examples))
    app.selectbox(key=groups.GROUP).set_value("given").run()
    assert not app.exception
    return app


def give(app, content, name="sources.csv"):
    app.file_uploader(key=groups.UPLOAD).set_value((name, content, "text/csv")).run()
    assert not app.exception
    return app


def can_start(app):
    return any(button.key == correction_set.START for button in app.button)


def address(app):
    return app.query_params["groups"]


def test_a_file_of_sources_makes_the_groups_and_survives_a_reload(workspace, examples, submitted):
    app = asked(examples)
    assert "column id" in app.info[0].value
    assert not can_start(app)
    give(app, table())
    said = next(each.value for each in app.caption if "30 training rows" in each.value).replace("\\", "")
    assert "sources.csv, column source: 2 groups of 30 training rows (web 15, books 15)." in said
    assert f"The other 10 are the group “{UNNAMED}”." in said
    key = address(app)
    assert dict(kept_groups(workspace, key).groups)["train-3"] == "books"
    # a reload: a new session knows the address only
    again = opened(set=json.dumps(examples), groups=key)
    assert again.selectbox(key=groups.GROUP).value == "given"
    assert again.file_uploader(key=groups.UPLOAD).value is None
    assert any("Groups: by column source of sources.csv." in each.value for each in again.text)
    again.button(key=correction_set.START).click().run()
    assert not again.exception
    expected = spec_of(workspace, examples, group_by="given", groups=key, learning_rate=1e-5)
    assert RunDirectory.open(submitted[0]).spec() == expected


def test_another_column_may_be_the_group(workspace, examples):
    app = give(asked(examples), table())
    first = kept_groups(workspace, address(app))
    app.selectbox(key=groups.COLUMN).set_value("part").run()
    assert not app.exception
    other = kept_groups(workspace, address(app))
    assert (first.column, other.column, len(other.counts)) == ("source", "part", 4)
    app = give(asked(examples), table(head="id,domain,part"))
    assert app.selectbox(key=groups.COLUMN).value is None  # none of them has a usual name
    assert not can_start(app)
    app.selectbox(key=groups.COLUMN).set_value("domain").run()
    assert can_start(app)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "sources.csv cannot be read"),
        (table(head="row,source,part"), "sources.csv has no column 'id'"),
        (table([*LINES, "test-0,web,1"]), "1 of the 31 ids in sources.csv are no training row of tiny: 'test-0'"),
        (table([*LINES, "train-1,web,1"]), "two groups: 'train-1' is in 'books' by row 2, in 'web' by 31"),
    ],
)
def test_a_file_that_gives_no_groups_is_refused_in_words(workspace, examples, content, message):
    app = give(give(asked(examples), table()), content)
    assert any(message in error.value.replace("\\", "") for error in app.error)
    assert not can_start(app)
    assert "groups" not in app.query_params
    assert can_start(give(app, table()))


def test_a_file_that_is_taken_out_gives_no_groups(workspace, examples):
    app = give(asked(examples), table())
    app.file_uploader(key=groups.UPLOAD).set_value(None).run()
    assert "groups" not in app.query_params
    assert not can_start(app)


def test_other_groups_leave_the_address_and_coming_back_has_the_file_still(workspace, examples):
    app = give(asked(examples), table())
    key = address(app)
    app.selectbox(key=groups.GROUP).set_value("cell").run()
    assert "groups" not in app.query_params
    assert can_start(app)
    app.toggle(key=groups.EVEN).set_value(True).run()
    assert any("each group the same part of it" in element.value for element in app.text)
    app.selectbox(key=groups.GROUP).set_value("all").run()
    assert app.toggle(key=groups.EVEN).disabled
    assert not any("each group the same part" in element.value for element in app.text)
    app.selectbox(key=groups.GROUP).set_value("given").run()
    assert address(app) == key
    app.button(key="set_close").click().run()
    assert "groups" not in app.query_params


def test_an_address_of_groups_that_are_not_kept_says_so(workspace, examples):
    for garbled in ("0" * 16, "../../labels"):
        app = opened(set=json.dumps(examples), groups=garbled)
        assert any("keeps no groups of the key" in error.value for error in app.error)
        assert not can_start(app)


def test_changing_the_settings_of_a_run_has_its_groups(workspace, examples, submitted, tmp_path):
    file = tmp_path / "sources.csv"
    file.write_bytes(table())
    key = keep_groups(workspace, file).key
    spec = spec_of(workspace, examples, group_by="given", groups=key, learning_rate=1e-5)
    run = RunDirectory.create(spec)
    run.claim()
    app = opened(run=run.id)
    assert any("Groups: by column source of sources.csv." in each.value for each in app.text)
    app.button(key=f"change_{run.id}").click().run()
    assert not app.exception
    app.button(key=correction_set.START).click().run()
    assert RunDirectory.open(submitted[0]).spec() == spec


def test_words_of_given_groups(workspace, tmp_path):
    file = tmp_path / "many.csv"
    file.write_bytes(table([f"train-{number},g{number % 8}" for number in range(40)], "id,slice"))
    given = keep_groups(workspace, file)
    said = given_words(given, 40)
    assert said.startswith("many.csv, column slice: 8 groups of 40 training rows (g0 5, ")
    assert said.endswith("g5 5 and 2 more).")
    spec = spec_of(workspace, ["a", "b"], group_by="given", groups=given.key)
    assert "Groups: source or slice, from a file." in settings_words(spec, workspace.checkpoint("first"))
