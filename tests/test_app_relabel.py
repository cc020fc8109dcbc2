"""The Relabel page: decisions become label events that carry ids and the label seen."""

import json
import re

import pytest
from workspaces import HOSTILE, TRAIN, add_index, catch_runs, open_app, tiny_workspace, use_home

from influence_core.attribution.tables import IndexArrays
from influence_core.labels import LabelStore
from influence_core.runs.directory import RunDirectory
from influence_core.specs import IndexSpec, SuspectsSpec
from pages.components import label_history, labelling, state, suspects_list
from pages.components.settings_form import widget_key

TOP = 20  # proponents: products are (20 − i) / 20, positive for train-0 … train-19


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    return tiny_workspace()


def events(workspace):
    return LabelStore().history(workspace.data_fingerprint)


def texts(app):
    return [element.value for element in app.text]


def button(app, prefix):
    """The one button whose key begins so."""
    (found,) = [element for element in app.button if (element.key or "").startswith(prefix)]
    return found


def opened(**query):
    app = open_app("relabel", **query)
    assert not app.exception
    return app


def named(name="Ada", **query):
    app = opened(**query)
    app.text_input(key=state.ANNOTATOR).set_value(name).run()
    assert not app.exception
    return app


def press(app, prefix):
    button(app, prefix).click().run()
    assert not app.exception
    return app


def test_without_an_example_the_page_says_where_to_find_rows(workspace):
    app = opened()
    assert "choose a misprediction" in app.info[0].value
    assert not [element for element in app.button if (element.key or "").startswith("label-")]


def test_without_a_ranking_the_page_asks_for_one(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    tiny_workspace(tracin=False)
    app = opened(example="test-3")
    assert "rank the training rows" in app.info[0].value


def test_buttons_wait_for_a_name_and_say_why(workspace):
    app = opened(row="train-1")
    found = button(app, "label-1-")
    assert found.disabled
    assert "type your name first" in found.help
    assert "not verified" in app.text_input(key=state.ANNOTATOR).help


def test_the_proponents_are_walked_in_rank_order(workspace):
    app = named(example="test-3")
    assert any(text.startswith("train-0 · label now: positive") for text in texts(app))  # gold 0, flipped: i % 5 == 0
    assert app.progress[0].text == f"0 of {TOP} reviewed"
    press(app, "label-1-")  # negative
    (event,) = events(workspace)
    assert (event.example, event.old, event.new, event.verdict, event.annotator, event.source) == (
        "train-0",
        "positive",
        "negative",
        "change",
        "Ada",
        "app",
    )
    assert any(text.startswith("train-1 · ") for text in texts(app))
    assert app.progress[0].text == f"1 of {TOP} reviewed"
    assert app.query_params["row"] == "train-1"


def test_the_current_labels_button_confirms(workspace):
    app = named(row="train-1")  # gold 1, not flipped: positive
    assert "confirm" in button(app, "label-2-").label
    press(app, "label-2-")
    (event,) = events(workspace)
    assert (event.verdict, event.old, event.new) == ("confirm", "positive", "positive")


@pytest.mark.parametrize("verdict", ["unsure", "skip"])
def test_unsure_and_skip_keep_the_label(workspace, verdict):
    press(named(row="train-1"), f"{verdict}-")
    (event,) = events(workspace)
    assert (event.verdict, event.old, event.new) == (verdict, "positive", "positive")
    assert workspace.labels().values[1] == 1


def test_every_key_is_printed_on_its_button(workspace):
    app = named(row="train-1")
    keys = {"label-1-": "1", "label-2-": "2", "unsure-": "U", "skip-": "S"}
    for prefix, key in keys.items():
        found = button(app, prefix)
        assert found.proto.shortcut.lower() == key.lower()  # which Streamlit prints on the button


def test_the_note_goes_with_the_decision_and_not_with_the_next(workspace):
    app = named(example="test-3")
    app.text_input[1].set_value("1 = sarcasm").run()
    assert events(workspace) == []  # typing in the note decides nothing
    press(app, "label-1-")
    press(app, "label-1-")
    assert [event.note for event in events(workspace)] == ["1 = sarcasm", ""]


def test_a_label_changed_elsewhere_is_a_conflict_with_both_values(workspace):
    app = named(row="train-1")
    workspace.relabel("train-1", "negative", expect="positive", annotator="Bob")
    press(app, "label-2-")  # confirms "positive", which is no longer the label
    assert len(events(workspace)) == 1  # nothing was written
    said = app.error[0].value
    assert "negative" in said
    assert "positive" in said
    assert any(text == "train-1 · label now: negative" for text in texts(app))
    press(app, "label-1-")  # a second look decides about what is on screen now
    assert [event.verdict for event in events(workspace)] == ["change", "confirm"]


def test_a_double_click_is_one_event(workspace):
    app = named(example="test-3")
    key = button(app, "label-1-").key
    press(app, "label-1-")
    # the button on screen now belongs to another row and another event, so a late click cannot reach it
    assert button(app, "label-1-").key != key
    identity = key.rsplit("-", 1)[1]
    again = workspace.relabel(
        "train-0", "negative", expect="positive", annotator="Ada", event_id=identity, source=labelling.SOURCE
    )
    assert events(workspace) == [again]


def test_undo_leaves_two_rows_and_brings_the_row_back(workspace):
    app = named(example="test-3")
    press(app, "label-1-")
    press(app, "undo-last-")
    assert [event.verdict for event in events(workspace)] == ["change", "undo"]
    assert workspace.labels().values[0] == 1
    assert any(text.startswith("train-0 · label now: positive") for text in texts(app))
    assert app.progress[0].text == f"0 of {TOP} reviewed"


def test_undo_of_a_label_that_someone_changed_since_is_refused(workspace):
    app = named(example="test-3")
    press(app, "label-1-")
    workspace.relabel("train-0", "positive", expect="negative", annotator="Bob")
    press(app, "undo-last-")
    assert len(events(workspace)) == 2
    assert "Bob" in app.error[0].value


def test_the_history_says_who_when_and_what(workspace):
    workspace.relabel("train-1", "negative", expect="positive", annotator="Bob", note="=1+1")
    app = opened(row="train-1")
    table = app.dataframe[0].value
    assert table[["who", "what", "from", "to", "note"]].to_numpy().tolist() == [
        ["Bob", "changed", "positive", "negative", "=1+1"]
    ]
    assert table["when"][0].endswith("UTC")


def test_saved_is_said_and_survives_until_the_next_decision(workspace):
    app = press(named(example="test-3"), "label-1-")
    assert "Saved" in app.toast[0].value
    assert any(text.startswith("row train-0: changed positive → negative") for text in texts(app))
    app.run()
    assert not app.toast  # once
    assert any(text.startswith("row train-0: changed") for text in texts(app))


def test_a_list_that_is_done_says_so(workspace):
    for number in range(TOP):
        name = workspace.label_names[int(workspace.train["label"][number])]
        workspace.relabel(f"train-{number}", name, expect=name, annotator="Bob")
    app = opened(example="test-3")
    assert app.progress[0].text == f"{TOP} of {TOP} reviewed"
    assert "Every row" in app.success[0].value


def test_the_list_beside_opens_the_row_that_was_chosen(workspace):
    app = named(example="test-3")
    app.radio[0].set_value("train-7").run()
    assert not app.exception
    assert any(text.startswith("train-7 · ") for text in texts(app))
    press(app, "skip-")
    assert events(workspace)[0].example == "train-7"
    assert app.query_params["row"] == "train-8"


def test_a_test_row_or_an_unknown_id_is_refused_in_words(workspace):
    assert "only training rows" in opened(row="test-3").error[0].value
    assert "no example" in opened(row="nonsense").error[0].value


def test_what_the_row_does_to_the_selected_example(workspace):
    app = opened(example="test-3", row="train-4")
    # by construction: product (20 − 4) / 20, all norms 1
    assert any("proponent 5 of 40 rows" in text and "cosine +0.8" in text for text in texts(app))
    other = opened(example="test-3", row="train-20")  # a product of 0: neither
    assert any("not among the top" in text for text in texts(other))


def test_hostile_texts_and_class_names_stay_text(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    names = ("![x](http://x)", "**bold** <b>")
    tiny_workspace(names=names)
    app = named(row="train-0", example="test-0")
    assert HOSTILE in texts(app)  # in st.text, which parses nothing
    press(app, "label-1-")
    shown = [element.label for element in app.button] + [element.value for element in app.markdown]
    shown += [element.value for element in app.caption] + [element.value for element in app.toast]
    shown += app.radio[0].options
    for text in shown:
        live = re.sub(r"\\.", "", text)  # what a backslash escapes is inert
        for part in ("![", "](", "**bold", "<b", "<img", "$x"):
            assert part not in live


def test_exports_hold_all_events_and_all_labels(workspace):
    workspace.relabel("train-1", "negative", expect="positive", annotator="Bob", note="=1+1")
    (event,) = [json.loads(line) for line in label_history.exported(workspace, "events", "jsonl").splitlines()]
    assert (event["example"], event["old"], event["new"], event["annotator"]) == (
        "train-1",
        "positive",
        "negative",
        "Bob",
    )
    assert b"'=1+1" in label_history.exported(workspace, "events", "csv")
    labels = [json.loads(line) for line in label_history.exported(workspace, "labels", "jsonl").splitlines()]
    assert len(labels) == TRAIN
    assert [row["current"] for row in labels if row["example"] == "train-1"] == ["negative"]
    app = opened(row="train-1")
    assert {element.key for element in app.get("download_button")} == {
        f"export-{what}-{format}" for what in ("events", "labels") for format in ("csv", "jsonl", "parquet")
    }


def test_the_page_points_to_the_experiment_that_writes_no_label(workspace):
    said = " ".join(element.value for element in opened(row="train-1").caption)
    assert "use Correct" in said
    assert "writes no label" in said


def suspects_by_hand(workspace):
    """Row numbers by Σ p² / λ, largest first, read from the index's own products (λ = 2 and −1)."""
    (folder,) = workspace.path.glob("artefacts/abif/*")
    products = IndexArrays.reading(folder, TRAIN).read("products").astype(float)
    scores = [a * a / 2.0 - b * b / 1.0 for a, b in products]
    order = sorted(range(TRAIN), key=lambda row: -scores[row])
    return order, scores


def test_suspects_are_listed_by_self_influence_with_gold_and_become_the_queue(workspace):
    add_index(workspace)
    order, scores = suspects_by_hand(workspace)
    app = opened(source="Suspects")
    assert app.selectbox(key=suspects_list.METHOD).value == "abif"
    table = app.dataframe[0].value
    assert list(table["id"]) == [f"train-{row}" for row in order]
    assert list(table["score"]) == pytest.approx([scores[row] for row in order])
    flagged = {shown for shown, gold in zip(table["id"], table["gold"], strict=True) if gold.startswith("⚑ gold says")}
    assert flagged == {f"train-{row}" for row in range(0, TRAIN, 5)}  # where the label is not gold
    assert "8 of these 40 labels differ from gold (20 %); 20 % of all." in texts(app)
    press(app, "relabel_suspects")
    assert app.query_params["row"] == f"train-{order[0]}"
    assert app.progress[0].text == f"0 of {TRAIN} reviewed"
    app.text_input(key=state.ANNOTATOR).set_value("Ada").run()
    press(app, "skip-")
    assert app.query_params["row"] == f"train-{order[1]}"
    press(app, "suspects_back")
    assert "row" not in app.query_params
    assert len(app.dataframe) == 1


def test_leaving_the_suspects_leads_back_to_the_rankings_queue(workspace):
    add_index(workspace)
    app = opened(example="test-0", source="Suspects")
    press(app, "relabel_suspects")
    app.segmented_control(key="source").set_value("A ranking").run()
    assert not app.exception
    assert "row" not in app.query_params
    assert app.progress[0].text.startswith("0 of ")
    assert not app.progress[0].text.startswith(f"0 of {TRAIN}")


def test_suspects_that_are_not_known_are_offered_with_their_estimate(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    tiny_workspace(tracin=False)
    made = catch_runs(monkeypatch)
    app = opened(source="Suspects")
    assert app.selectbox(key=suspects_list.METHOD).value == "tracin"
    assert "not computed yet" in app.info[0].value
    assert re.fullmatch(r"Find suspects \(about \d+ s\)", button(app, "suspects").label)
    press(app, "suspects")
    assert RunDirectory.open(made[0]).spec() == SuspectsSpec(workspace="tiny", checkpoint="first", method="tracin")
    app.selectbox(key=suspects_list.METHOD).set_value("tracin-multi").run()
    assert "two or more checkpoints" in app.info[0].value
    app.selectbox(key=suspects_list.METHOD).set_value("abif").run()
    press(app, "index")
    assert RunDirectory.open(made[1]).spec() == IndexSpec(workspace="tiny", checkpoint="first")


def test_tracins_suspects_follow_from_its_norms(workspace):
    app = opened(source="Suspects")
    assert list(app.dataframe[0].value["score"]) == [1.0] * TRAIN  # all norms are 1
    workspace.relabel("train-1", "negative", expect="positive", annotator="Bob")
    app = opened(source="Suspects")
    assert any("1 training row was relabelled" in found.value for found in app.caption)
    assert [note for note in app.dataframe[0].value["note"] if note] == ["label changed since"]


def test_a_run_in_the_address_opens_its_suspects_with_its_settings(workspace):
    spec = SuspectsSpec(workspace="tiny", checkpoint="first", method="tracin-adam", settings={"batch_size": 8})
    run = RunDirectory.create(spec)
    app = opened(run=run.id)
    assert app.segmented_control(key="source").value == "Suspects"
    assert app.selectbox(key=suspects_list.METHOD).value == "tracin-adam"
    assert app.number_input(key=widget_key("tracin-adam", "batch_size")).value == 8
    assert "place 1 in the queue" in app.main.progress[-1].text


def test_relabelled_suspects_can_be_projected_again(workspace, monkeypatch):
    made = catch_runs(monkeypatch)
    assert not [b for b in opened(source="Suspects").button if b.key == "refresh_suspects"]
    workspace.relabel("train-1", "negative", expect="positive", annotator="Bob")
    app = opened(source="Suspects")
    assert re.fullmatch(r"Recompute 1 changed row \(about \d+ s\)", button(app, "refresh_suspects").label)
    press(app, "refresh_suspects")
    expected = SuspectsSpec(workspace="tiny", checkpoint="first", method="tracin", refresh=True)
    assert RunDirectory.open(made[0]).spec() == expected
