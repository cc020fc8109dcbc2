import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from workspaces import HOSTILE, TEST, add_predictions, open_app, tiny_workspace, use_home, wrong_ids

from pages.components import filters
from pages.components.filters import Filters, cell_words, clicked_cell

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
