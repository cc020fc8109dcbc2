"""The Runs page: states in words, filters, and buttons that act on the run whose id they carry."""

import re
import shutil

import correct_page
import pytest
from workspaces import catch_runs, open_app, tiny_workspace, use_home

from influence_core.events import Progress
from influence_core.runs.directory import RunDirectory
from influence_core.specs import CheckSpec, CorrectionSpec, IndexSpec, PredictSpec, RankSpec
from pages.components import discarding, run_table


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    return tiny_workspace()


def opened(**query):
    app = open_app("runs", **query)
    assert not app.exception
    return app


def shown(app):
    """Ids of the runs in the table, from top to bottom."""
    return [element.key.removeprefix("open_") for element in app.button if (element.key or "").startswith("open_")]


def words(app, run):
    container = app.container(key=f"run_{run.id}")
    return " | ".join(element.value for element in [*container.markdown, *container.text])


def make(kind, workspace, end=None, **fields):
    options = {"workspace": workspace.name, "checkpoint": "first"}
    spec = {
        "correct": lambda: CorrectionSpec(**options, example="test-3", k=7),
        "rank": lambda: RankSpec(**options, example="test-6"),
        "index": lambda: IndexSpec(**options),
        "predict": lambda: PredictSpec(**options, split="test"),
    }[kind]()
    run = RunDirectory.create(spec, **fields)
    if end is not None:
        run.claim()
    if end == "finished":
        run.finish()
    elif end == "failed":
        run.fail("k = 99: there are 40 training rows; give at most 40")
    elif end == "killed":
        run.kill()
    elif end == "crashed":
        run.reconcile(at_once=True)
    return run


def test_without_runs_the_page_says_what_appears_here(workspace):
    assert "No runs yet" in opened().info[0].value


def test_without_a_workspace_the_page_still_opens(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    assert "No runs yet" in opened().info[0].value


@pytest.mark.parametrize(
    ("end", "word"),
    [
        (None, "Waiting"),
        ("finished", "Finished"),
        ("failed", "Failed"),
        ("killed", "Cancelled"),
        ("crashed", "Crashed"),
    ],
)
def test_each_state_has_a_word_and_an_icon(workspace, end, word):
    run = make("rank", workspace, end, what="rank test-6", who="Ada")
    said = words(opened(), run)
    assert re.search(rf":material/\w+: {word}", said)
    assert "rank test-6" in said
    assert "Ada" in said


def test_the_newest_run_stands_first_and_running_shows_progress(workspace):
    old = make("index", workspace, "finished")
    new = make("correct", workspace, "running")
    new.append(Progress(phase="warming the optimizer", done=25, total=100, unit="batches"))
    app = opened()
    assert shown(app) == [new.id, old.id]
    bar = app.container(key=f"run_{new.id}").progress[0]
    assert bar.value == 25
    assert "warming the optimizer, 25 of 100 batches" in bar.text.replace("\\", "")


def test_filters_by_state_and_kind(workspace):
    failed = make("rank", workspace, "failed")
    finished = make("rank", workspace, "finished")
    other = make("index", workspace, "finished")
    app = opened()
    assert set(shown(app)) == {failed.id, finished.id, other.id}
    app.pills(key="runs_states").set_value(["finished"]).run()
    assert set(shown(app)) == {finished.id, other.id}
    app.pills(key="runs_kinds").set_value(["rank"]).run()
    assert shown(app) == [finished.id]
    app.pills(key="runs_states").set_value(["killed"]).run()
    assert "None of the 3 runs match" in app.info[0].value
    app.button(key="runs_clear").click().run()
    assert len(shown(app)) == 3


def test_discarded_runs_are_hidden_until_asked_for(workspace):
    run = make("correct", workspace, "finished")
    discarding.discard(run)
    app = opened()
    assert shown(app) == []
    app.toggle(key="runs_discarded").set_value(True).run()
    assert shown(app) == [run.id]


def test_cancel_ends_the_run_whose_id_it_carries_even_when_the_table_moved(workspace):
    first = make("rank", workspace)
    app = opened()
    second = make("index", workspace)  # now on top of the table, unseen by the page
    app.button(key=f"cancel_{first.id}").click().run()
    assert not app.exception
    assert first.state().state == "killed"
    assert second.state().state == "pending"
    assert shown(app) == [second.id, first.id]


def test_a_running_run_is_asked_to_stop_and_said_to_be_cancelling(workspace):
    run = make("correct", workspace, "running")
    app = opened()
    app.button(key=f"cancel_{run.id}").click().run()
    assert run.cancel_requested()
    assert "Cancelling" in words(app, run)
    assert app.button(key=f"cancel_{run.id}").disabled


def test_again_submits_the_same_spec(workspace, monkeypatch):
    run = make("correct", workspace, "failed", what="correct test-3")
    made = catch_runs(monkeypatch)
    app = opened()
    app.button(key=f"table_again_{run.id}").click().run()
    assert not app.exception
    (run_id,) = made
    again = RunDirectory.open(run_id)
    assert again.spec() == run.spec()
    assert again.record().what == "correct test-3"
    assert shown(app)[0] == run_id
    app.run()  # after st.rerun() AppTest's elements carry ids of no page: a fresh run has the page's
    app.button(key=f"table_again_{run.id}").click().run()
    assert len(made) == 2  # a click on another day is another run


def test_only_live_runs_can_be_cancelled_and_only_ended_ones_repeated(workspace):
    live, over = make("rank", workspace), make("rank", workspace, "finished")
    keys = {element.key for element in opened().button}
    assert f"cancel_{live.id}" in keys
    assert f"table_again_{live.id}" not in keys
    assert f"cancel_{over.id}" not in keys
    assert f"table_again_{over.id}" in keys


def test_open_leads_to_the_page_of_the_kind_with_the_runs_own_example(workspace):
    run = make("correct", workspace, "failed")
    app = opened(example="test-9")
    app.button(key=f"open_{run.id}").click().run()
    assert not app.exception
    assert app.title[0].value == "Correct"
    assert app.query_params["run"] == run.id
    assert app.query_params["example"] == "test-3"


def test_a_check_opens_on_load_with_what_was_typed(workspace):
    run = RunDirectory.create(CheckSpec(checkpoint="/models/a", data="/data/train.csv"), what="check a with train.csv")
    app = opened()
    assert "Check · a new workspace" in [found.value for found in app.main.caption]
    app.button(key=f"open_{run.id}").click().run()
    assert not app.exception
    assert [title.value for title in app.title] == ["Load"]
    assert app.query_params["run"] == run.id
    assert "checkpoint" not in app.query_params  # a path, not one of this workspace's
    assert app.text_input(key="load_files_checkpoint").value == "/models/a"


def test_a_failed_run_says_why_and_details_are_folded(workspace):
    run = make("correct", workspace, "failed")
    (run.path / "traceback.txt").write_text("Traceback: the innards", encoding="utf-8")
    app = opened()
    assert "there are 40 training rows" in words(app, run)
    assert not app.code
    app.session_state[f"details_{run.id}"] = True
    app.run()
    assert any('"k": 7' in block.value for block in app.code)
    assert any("the innards" in block.value for block in app.code)


def test_a_run_of_a_workspace_that_is_gone_is_said(workspace):
    run = make("rank", workspace, "finished")
    other = tiny_workspace("another")
    shutil.rmtree(workspace.path)
    app = opened()
    app.button(key=f"open_{run.id}").click().run()
    assert "is gone" in app.error[0].value
    assert other.name == "another"


def test_hostile_words_of_a_run_stay_text(workspace):
    bad = "![x](http://x) <img src=x onerror=1> **bold**"
    run = make("rank", workspace, None, what=bad, who=bad)
    run.claim()
    run.append(Progress(phase=bad, done=1, total=2))
    app = opened()
    assert bad in words(app, run)
    marked = [element.value for element in [*app.markdown, *app.caption]] + [bar.text for bar in app.progress]
    for text in marked:
        live = re.sub(r"\\.", "", text)
        for part in ("![", "](", "**bold", "<img"):
            assert part not in live


def test_many_runs_come_in_pages(workspace):
    for _ in range(run_table.PAGE_SIZE + 3):
        make("rank", workspace, "finished")
    app = opened()
    assert len(shown(app)) == run_table.PAGE_SIZE
    app.session_state["runs_page"] = 2
    app.run()
    assert len(shown(app)) == 3


def steps_of(run, flip):
    for n in range(4):
        run.append(correct_page.step(n, "positive" if n >= flip else "negative"))
    run.finish()


def test_two_corrections_are_chosen_and_compared(workspace):
    runs = [make("correct", workspace) for _ in range(2)]
    for run in runs:
        run.claim()
        steps_of(run, 2)
    ranked = make("rank", workspace, "finished")
    app = opened()
    assert not any(button.key == f"pick_{ranked.id}" for button in app.button)
    app.button(key=f"pick_{runs[0].id}").click().run()
    assert f"Run {runs[0].id[:8]} is chosen" in app.info[0].value
    app.button(key="runs_compare_none").click().run()
    assert not app.info
    app.button(key=f"pick_{runs[0].id}").click().run()
    app.button(key=f"pick_{runs[1].id}").click().run()
    assert not app.exception
    assert app.query_params["run"] == runs[0].id
    assert app.toggle(key=f"compare_{runs[0].id}").value is True
    assert app.multiselect(key=f"compared_{runs[0].id}").value == [runs[1].id]


def test_corrections_of_other_rows_are_not_compared(workspace):
    first = make("correct", workspace)
    first.claim()
    steps_of(first, 2)
    other = RunDirectory.create(CorrectionSpec(workspace=workspace.name, checkpoint="first", example="test-6"))
    other.claim()
    steps_of(other, 2)
    app = opened()
    app.button(key=f"pick_{first.id}").click().run()
    app.button(key=f"pick_{other.id}").click().run()
    assert "do not correct the same rows to the same labels" in app.error[0].value
    assert "run" not in app.query_params
