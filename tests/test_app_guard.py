"""What all pages share: ways in, selection, chrome, runs."""

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest
from workspaces import HOSTILE, ROOT, add_checkpoint, catch_runs, open_app, tiny_workspace, use_home, wrong_ids

from influence_core.errors import UserError
from influence_core.events import Progress, Result
from influence_core.runs import client
from influence_core.runs.directory import RunDirectory
from influence_core.specs import PredictSpec, RankSpec
from pages.components import text
from pages.components.cards import bar
from pages.components.navigation import PAGES


@pytest.fixture
def workspace(monkeypatch, tmp_path):
    use_home(monkeypatch, tmp_path)
    return tiny_workspace()


@pytest.mark.parametrize(("page", "title"), [(name, title) for name, title, *_ in PAGES])
def test_a_deep_link_to_a_cold_server_finds_the_page_with_all_its_neighbours(workspace, page, title):
    app = open_app(page, example="test-3")
    assert not app.exception
    assert [found.value for found in app.title] == [title]
    links = [link.value for link in app.sidebar.page_link]
    assert links == [title for _, title, *_ in PAGES]
    assert app.query_params["example"] == "test-3"


def test_widgets_of_a_cold_deep_link_keep_their_identity_so_that_the_first_click_counts(workspace):
    cold, warm = open_app("mispredictions"), open_app()  # the latter comes through app.py
    assert [button.id for button in cold.button] == [button.id for button in warm.button] != []


@pytest.mark.parametrize("page", [name for name, *_ in PAGES if name not in ("load", "runs", "results")])
def test_without_a_workspace_every_page_says_so_and_leads_to_load(monkeypatch, tmp_path, page):
    use_home(monkeypatch, tmp_path)
    app = open_app(page)
    assert not app.exception
    assert "no workspace yet" in app.info[0].value
    assert "Load" in [link.value for link in app.main.page_link]


def test_the_first_page_is_load_without_and_mispredictions_with_a_workspace(monkeypatch, tmp_path):
    use_home(monkeypatch, tmp_path)
    assert [title.value for title in open_app().title] == ["Load"]
    tiny_workspace()
    app = open_app(example="test-6")
    assert [title.value for title in app.title] == ["Mispredictions"]
    assert app.query_params["example"] == "test-6"


def test_an_unknown_example_workspace_or_run_is_named_and_dropped(workspace):
    app = open_app("influence", example="**nope**")
    assert not app.exception
    assert "there is no example" in app.error[0].value
    assert "\\*\\*nope\\*\\*" in app.error[0].value
    assert "example" not in app.query_params
    app = open_app("mispredictions", workspace="elsewhere")
    assert "there is no workspace" in app.error[0].value
    assert "8 of 24 wrong · showing 8" in [found.value for found in app.text]
    app = open_app("load", run="../../etc")
    assert "32 hexadecimal digits" in app.error[0].value
    assert "run" not in app.query_params


def test_previous_and_next_walk_through_the_mispredictions_in_their_order(workspace):
    ids = wrong_ids()
    app = open_app("influence", example=ids[1])
    app.button(key="strip_Next").click().run()
    assert app.query_params["example"] == ids[2]
    app.button(key="strip_Previous").click().run()
    app.button(key="strip_Previous").click().run()
    assert app.query_params["example"] == ids[0]
    assert app.button(key="strip_Previous").disabled
    assert not app.button(key="strip_Next").disabled


def test_the_checkpoint_picker_changes_the_address_and_forgets_the_run(workspace):
    add_checkpoint(workspace, "second", np.random.default_rng(3), parent="first")
    run = RunDirectory.create(PredictSpec(workspace="tiny", split="test"))
    app = open_app("mispredictions", example="test-3", run=run.id)
    app.selectbox(key="checkpoint_picker").set_value("second").run()
    assert app.query_params["checkpoint"] == "second"
    assert "run" not in app.query_params
    assert app.query_params["example"] == "test-3"
    app.selectbox(key="checkpoint_picker").set_value("first").run()
    assert "checkpoint" not in app.query_params


def test_another_workspace_drops_what_belonged_to_the_first(workspace):
    tiny_workspace("other")
    app = open_app("mispredictions", example="test-3")
    app.selectbox(key="workspace_picker").set_value("other").run()
    assert app.query_params.get("workspace") == "other"
    assert "example" not in app.query_params


def test_runs_going_on_are_linked_to_the_page_that_follows_them(workspace):
    spec = RankSpec(workspace="tiny", example="test-3", method="tracin")
    run = RunDirectory.create(spec, what="rank [x](y)")
    app = open_app("mispredictions")
    links = {link.value for link in app.get("page_link")}
    assert any(link.startswith("rank \\[x\\]\\(y\\)") and "waiting, place 1" in link for link in links)
    run.kill()
    app = open_app("mispredictions")
    assert not any(link.value.startswith("rank") for link in app.get("page_link"))


def follow_script(run_id):
    from influence_core.runs.directory import RunDirectory
    from pages.components import running

    found = running.follow(RunDirectory.open(run_id))
    import streamlit as st

    st.text(f"state {found.state}")


def test_a_run_is_followed_from_waiting_to_its_end(workspace):
    run = RunDirectory.create(PredictSpec(workspace="tiny"))
    app = AppTest.from_function(follow_script, args=(run.id,), default_timeout=30).run()
    assert "place 1 in the queue" in app.progress[0].text
    run.claim()
    run.append(Progress(phase="predicting", done=6, total=24))
    app.run()
    assert app.progress[0].value == 25
    assert app.progress[0].text.startswith("predicting, 6 of 24 rows")
    app.button(key=f"cancel_{run.id}").click().run()
    assert run.cancel_requested()
    assert app.button(key=f"cancel_{run.id}").disabled
    run.append(Result(value={"accuracy": 1.0}))
    run.finish()
    app.run()
    assert not app.progress
    assert "state finished" in [found.value for found in app.text]


def test_a_failed_and_a_cancelled_run_say_why_there_is_no_result(workspace):
    run = RunDirectory.create(PredictSpec(workspace="tiny"))
    run.claim()
    run.fail(f"it broke at {HOSTILE}")
    app = AppTest.from_function(follow_script, args=(run.id,), default_timeout=30).run()
    assert app.error[0].value == text.plain(f"The run failed: it broke at {HOSTILE}")
    killed = RunDirectory.create(PredictSpec(workspace="tiny"))
    killed.kill()
    app = AppTest.from_function(follow_script, args=(killed.id,), default_timeout=30).run()
    assert "cancelled" in app.info[0].value


def test_a_run_that_cannot_be_submitted_shows_the_one_line(monkeypatch, workspace):
    def refuse(*_, **__):
        raise UserError("the engine did not start: see the log")

    monkeypatch.setattr(client, "submit", refuse)
    app = open_app("mispredictions", split="train")
    app.button(key="predict").click().run()
    assert not app.exception
    assert "the engine did not start" in app.error[0].value


def test_submitting_puts_the_run_into_the_address_and_a_reload_attaches_again(monkeypatch, workspace):
    made = catch_runs(monkeypatch)
    app = open_app("mispredictions", split="train")
    app.button(key="predict").click().run()
    assert not app.exception
    assert app.query_params["run"] == made[0]
    assert RunDirectory.open(made[0]).spec().split == "train"
    again = open_app("mispredictions", split="train", run=made[0])
    assert "place 1 in the queue" in again.progress[0].text
    assert len(made) == 1
    elsewhere = open_app("mispredictions", split="train")  # another tab without ?run= does not start it twice
    assert "place 1 in the queue" in elsewhere.progress[0].text


def test_plain_leaves_nothing_for_markdown_to_read():
    escaped = text.plain(HOSTILE + "\n# head `code` :smile: ~x~ www.example.org a_b_")
    unescaped = "".join(c for at, c in enumerate(escaped) if escaped[at - 1 : at] != "\\" and c != "\\")
    assert not set(unescaped) & set("*_`[]()<>#!$:~.|{}")
    assert "\n" not in escaped
    assert escaped.replace("\\", "").startswith("<img src=x onerror=alert(1)> **bold**")


@pytest.mark.parametrize(("value", "cells"), [(1.0, 12), (-1.0, 12), (0.5, 6), (0.001, 1), (2.0, 12)])
def test_a_bar_is_as_long_as_its_share_of_the_scale(value, cells):
    assert len(bar(value, 1.0)) == cells
    assert bar(0.5, 1.0) == "█" * 6
    assert bar(0.5 + 1 / 96, 1.0) == "█" * 6 + "▏"


def test_numbers_are_written_with_sign_and_three_digits():
    assert text.signed(0.61234) == "+0.612"
    assert text.signed(-12.345) == "−12.3"
    assert text.signed(0.0) == "±0"
    assert text.duration(41.2) == "41 s"
    assert text.duration(720) == "12 min"
    assert text.duration(5_700) == "1.6 h"
    assert text.first_words("one two three four", 9) == "one two…"


def test_the_theme_has_the_pair_of_colours_of_the_charts():
    import tomllib

    from influence_core.charts import OPPONENT, PROPONENT

    theme = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())["theme"]
    for mode in ("light", "dark"):
        assert (theme[mode]["blueColor"], theme[mode]["orangeColor"]) == (PROPONENT, OPPONENT)
