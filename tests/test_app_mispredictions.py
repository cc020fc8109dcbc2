import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest
from workspaces import (
    HOSTILE,
    TEST,
    add_index,
    add_predictions,
    catch_runs,
    open_app,
    tiny_workspace,
    use_home,
    wrong_ids,
)

from influence_core.attribution import ekfac
from influence_core.estimates import estimate
from influence_core.runs.directory import RunDirectory
from influence_core.settings import METHOD_NAMES
from influence_core.specs import ExplainSpec, IndexSpec
from pages.components import explain_all, filters
from pages.components.filters import Filters, cell_words, clicked_cell
from pages.components.settings_form import widget_key

NAMES = ["negative", "positive"]


@pytest.fixture
def workspace(monkeypatch, tmp_path):
    use_home(monkeypatch, tmp_path)
    return tiny_workspace()


def explained(app):
    """Ids of the rows on screen, in order."""
    return [button.key.removeprefix("open_") for button in app.button if button.key.startswith("open_")]


def texts(app):
    return [found.value for found in app.text]


def test_it_lists_the_wrong_rows_most_confident_first_and_counts_them(workspace):
    app = open_app("mispredictions")
    assert not app.exception
    assert explained(app) == wrong_ids()
    assert f"8 of {TEST} wrong · showing 8" in texts(app)
    assert "negative → positive" in texts(app)
    assert HOSTILE in texts(app)
    assert not any("onerror" in found.value for found in [*app.markdown, *app.caption])


def test_a_cell_chosen_without_a_mouse_filters_names_it_and_is_cleared(workspace):
    app = open_app("mispredictions")
    app.selectbox(key="mispredictions_picker").set_value(("positive", "negative")).run()
    assert not app.exception
    odd = [example for example in wrong_ids() if int(example.split("-")[1]) % 2 == 1]
    assert explained(app) == odd
    assert f"8 of {TEST} wrong · showing {len(odd)} (false negatives)" in texts(app)
    app.selectbox(key="mispredictions_picker").set_value(("positive", "positive")).run()
    shown = [int(example.split("-")[1]) for example in explained(app)]
    assert shown
    assert all(number % 2 == 1 and number % 3 for number in shown)
    app.button(key="clear").click().run()
    assert explained(app) == wrong_ids()


def test_filters_narrow_together_and_an_empty_list_says_how_many_there_are(workspace):
    app = open_app("mispredictions")
    app.text_input(key=filters.WORDS).set_value("GOOD review").run()
    assert explained(app) == [example for example in wrong_ids() if int(example.split("-")[1]) % 2 == 1]
    app.slider(key=filters.CONFIDENCE).set_range(0.9, 1.0).run()
    assert explained(app) == ["test-3"]
    app.slider(key=filters.MARGIN).set_range(0.99, 1.0).run()
    assert explained(app) == []
    assert "No rows match these 3 filters." in [found.value for found in app.info]
    app.button(key="clear").click().run()
    assert explained(app) == wrong_ids()


def test_other_orders(workspace):
    app = open_app("mispredictions")
    app.selectbox(key="order_by").set_value("Smallest margin first").run()
    assert explained(app) == wrong_ids()[::-1]


def test_explain_takes_the_row_to_influence(workspace):
    app = open_app("mispredictions")
    app.button(key="open_test-6").click().run()
    assert not app.exception
    assert [title.value for title in app.title] == ["Influence"]
    assert app.query_params["example"] == "test-6"


def test_next_follows_the_filtered_list(workspace):
    app = open_app("mispredictions")
    app.text_input(key=filters.WORDS).set_value("bad").run()
    app.button(key="open_test-6").click().run()
    app.button(key="strip_Next").click().run()
    assert app.query_params["example"] == "test-12"


def test_a_split_without_predictions_offers_them_with_an_estimate(workspace):
    app = open_app("mispredictions")
    assert app.segmented_control(key="split").value == "test"
    app.segmented_control(key="split").set_value("train").run()
    assert not app.exception
    assert "40 rows) is not predicted" in app.info[0].value
    assert app.button(key="predict").label == "Predict this split (about 5 s)"


def test_where_rows_carry_gold_labels_those_that_differ_can_be_listed(workspace):
    add_predictions(workspace, "train")
    app = open_app("mispredictions", split="train")
    assert not app.exception
    app.toggle(key=filters.FLAGGED).set_value(True).run()
    shown = explained(app)
    assert shown
    assert all(int(example.split("-")[1]) % 15 == 0 for example in shown)  # wrong: i % 3, differs: i % 5
    assert any("gold says" in found.value for found in app.markdown)
    app.button(key=f"open_{shown[0]}").click().run()  # influence explains no training row
    assert [title.value for title in app.title] == ["Relabel"]
    assert app.query_params["row"] == shown[0]
    assert not [toggle for toggle in open_app("mispredictions").toggle if toggle.key == filters.FLAGGED]


def test_long_lists_come_in_pages(workspace):
    add_predictions(workspace, "train")
    app = open_app("mispredictions", split="train")
    first = explained(app)
    assert len(first) == 10
    pager = app.get("pagination")[0]
    pager.set_value(2).run()
    assert len(explained(app)) == 4
    assert not set(explained(app)) & set(first)


def test_class_names_from_data_are_inert(monkeypatch, tmp_path):
    use_home(monkeypatch, tmp_path)
    tiny_workspace(names=("**a**", "![x](https://example.org/i.png)"))
    app = open_app("mispredictions")
    assert not app.exception
    assert not any("example.org" in found.value.replace("\\.", "") for found in [*app.markdown, *app.caption])
    app = open_app("influence", example="test-3")
    assert not app.exception
    for found in [*app.markdown, *app.caption]:
        assert "![x](" not in found.value
        assert "**a**" not in found.value


def test_a_click_is_read_as_names_not_positions():
    point = {"customdata": ["positive", "negative"], "point_index": 0}
    assert clicked_cell({"points": [{"x": 1}, point]}) == ("positive", "negative")
    assert clicked_cell({"points": []}) is None


def test_a_click_on_a_chart_that_was_replaced_meanwhile_changes_nothing():
    """The browser may tell of it after "Clear filters" has put another chart in its place."""

    def page():
        import streamlit as st

        from pages.components import filters, matrix

        st.session_state[filters.CELL] = ("a", "b")
        matrix._clicked("confusion_test_shipped_0")

    app = AppTest.from_function(page).run()
    assert not app.exception
    assert app.session_state[filters.CELL] == ("a", "b")


def test_cells_have_words():
    assert cell_words(("positive", "negative"), NAMES) == "false negatives"
    assert cell_words(("negative", "positive"), NAMES) == "false positives"
    assert cell_words(("positive", "positive"), NAMES) == "true positives"
    assert cell_words(("cat", "dog"), ["cat", "dog"]) == "cat taken for dog"
    assert cell_words(("cat", "cat"), ["cat", "dog"]) == "cat predicted right"


def test_filters_agree_with_a_loop():
    rng = np.random.default_rng(5)
    n = 300
    frame = pd.DataFrame(
        {
            "text": rng.choice(["a fine film", "a dull film", "Fine, but dull"], n),
            "label": rng.integers(0, 2, n),
            "gold": rng.integers(0, 2, n),
            "prediction": rng.integers(0, 2, n),
            "confidence": rng.uniform(0.5, 1, n),
            "margin": rng.uniform(0, 1, n),
            "loss": rng.exponential(1, n),
        }
    )
    chosen = Filters(("positive", "negative"), "fine DULL", (0.6, 0.95), (0.1, 0.9), (0.0, 2.0), True)
    expected = []
    for row in frame.itertuples():
        row = SimpleNamespace(**row._asdict())
        ranges = 0.6 <= row.confidence <= 0.95 and 0.1 <= row.margin <= 0.9 and 0 <= row.loss <= 2
        words = "fine" in row.text.lower() and "dull" in row.text.lower()
        if row.label == 1 and row.prediction == 0 and row.gold != row.label and ranges and words:
            expected.append(row.Index)
    assert expected
    assert list(chosen.apply(frame, NAMES).index) == expected
    assert chosen.active == 6
    assert Filters().active == 0
    assert len(Filters().apply(frame, NAMES)) == int((frame["label"] != frame["prediction"]).sum())


def test_the_loss_range_covers_the_largest_loss(workspace):
    app = open_app("mispredictions")
    largest = float(workspace.examples("test")["loss"].max())
    slider = app.slider(key=filters.LOSS)
    assert slider.max >= largest
    assert math.isclose(slider.max, largest, abs_tol=0.011)


def panel(app):
    app.button(key="explain_all").click().run()
    assert not app.exception
    return app


def has(app, key):
    return any(found.key == key for found in app.button)


def spec_of(run_id):
    return RunDirectory.open(run_id).spec()


def test_explain_all_offers_the_methods_that_lack_something_with_what_they_take(workspace, monkeypatch):
    made = catch_runs(monkeypatch)
    monkeypatch.setattr(ekfac, "find_spec", lambda name: None)
    app = open_app("mispredictions")
    assert app.button(key="explain_all").label == "Explain all 8"
    assert not has(app, "explain_all_start")
    panel(app)
    assert "All 8 are explained already: by TracIn." in texts(app)
    offered = app.selectbox(key=explain_all.METHOD)
    assert offered.options == [METHOD_NAMES[name] for name in ("abif", "tracin-adam", "hif-cr", "hif-cg")]
    offered.set_value("hif-cr").run()
    app.number_input(key=widget_key("hif-cr", "iterations")).set_value(9).run()
    spec = ExplainSpec(workspace="tiny", checkpoint="first", method="hif-cr", settings={"iterations": 9})
    assert any("8 test rows in one pass over 40 training rows" in found.value for found in app.caption)
    assert app.button(key="explain_all_start").label == f"Start ({estimate(workspace, spec).words})"
    app.button(key="explain_all_start").click().run()
    assert spec_of(made[0]) == spec
    assert "place 1 in the queue" in app.main.progress[-1].text
    panel(app)  # closed: the run goes on, the strip below leads back to it
    assert not app.main.progress
    assert "run" not in app.query_params


def test_one_methods_bad_setting_is_said_where_it_is_chosen_and_stops_no_other(workspace, monkeypatch):
    catch_runs(monkeypatch)
    app = open_app("mispredictions")
    app.session_state[widget_key("hif-cr", "hessian_rows")] = 1000  # of 40 training rows
    panel(app)
    assert not app.error
    offered = app.selectbox(key=explain_all.METHOD)
    assert {METHOD_NAMES["hif-cr"], METHOD_NAMES["hif-cg"]} <= set(offered.options)
    offered.set_value("hif-cr").run()
    (said,) = app.error
    assert "1000 but there are 40 training rows" in said.value
    assert not has(app, "explain_all_start")
    app.selectbox(key=explain_all.METHOD).set_value("hif-cg").run()
    assert not app.error
    assert has(app, "explain_all_start")
    app.selectbox(key=explain_all.METHOD).set_value("hif-cr").run()
    app.number_input(key=widget_key("hif-cr", "hessian_rows")).set_value(20).run()
    assert not app.error
    assert has(app, "explain_all_start")


def test_explain_all_says_when_the_index_answers_all(workspace):
    add_index(workspace, examples=wrong_ids())
    app = panel(open_app("mispredictions"))
    assert "All 8 are explained already: by ABIF (the index answers them), by TracIn." in texts(app)
    assert METHOD_NAMES["abif"] not in app.selectbox(key=explain_all.METHOD).options
    panel(app)
    assert not any("explained already" in found for found in texts(app))


def test_explain_all_by_abif_needs_the_basis(workspace, monkeypatch):
    made = catch_runs(monkeypatch)
    add_index(workspace)
    app = panel(open_app("mispredictions"))
    assert app.selectbox(key=explain_all.METHOD).value == "abif"
    assert "index with its eigenvectors" in app.info[0].value
    assert not has(app, "explain_all_start")
    app.button(key="index").click().run()
    assert spec_of(made[0]) == IndexSpec(workspace="tiny", checkpoint="first")


def test_explain_all_asks_for_the_label_that_influence_asks_for(workspace, monkeypatch):
    made = catch_runs(monkeypatch)
    app = open_app("influence", example="test-3")
    app.selectbox(key="target").set_value("gold").run()
    app.switch_page("pages/mispredictions.py").run()
    panel(app)
    app.selectbox(key=explain_all.METHOD).set_value("tracin-adam").run()
    app.button(key="explain_all_start").click().run()
    assert spec_of(made[0]).target == "gold"


def test_a_run_in_the_address_is_followed_without_opening_anything(workspace):
    spec = ExplainSpec(workspace="tiny", checkpoint="first", method="hif-cr", settings={"iterations": 9})
    run = RunDirectory.create(spec, what="explain all of test")
    app = open_app("mispredictions", run=run.id)
    assert not app.exception
    assert "explain all of test" in texts(app)
    assert "place 1 in the queue" in app.main.progress[-1].text
    run.claim()
    run.fail("out of memory: choose a smaller scope")
    app = open_app("mispredictions", run=run.id)
    assert any("out of memory" in found.value for found in app.error)
    assert app.selectbox(key=explain_all.METHOD).value == "hif-cr"
    assert has(app, "explain_all_start")


def test_a_finished_run_in_the_address_says_what_is_explained_now(workspace):
    run = RunDirectory.create(ExplainSpec(workspace="tiny", checkpoint="first", method="tracin"))
    run.claim()
    run.finish()
    app = open_app("mispredictions", run=run.id)
    assert not app.exception
    assert "All 8 are explained already: by TracIn." in texts(app)
    assert app.selectbox(key=explain_all.METHOD).value != "tracin"


def test_training_rows_are_not_explained(workspace):
    add_predictions(workspace, "train")
    assert not has(open_app("mispredictions", split="train"), "explain_all")
