import pytest
from workspaces import (
    TRAIN,
    add_features,
    add_index,
    catch_runs,
    open_app,
    tiny_workspace,
    use_home,
    wrong_ids,
)

from influence_core.estimates import estimate
from influence_core.events import Result
from influence_core.runs.directory import RunDirectory
from influence_core.similar import nearest
from influence_core.specs import IndexSpec, PredictSpec, RankSpec


@pytest.fixture
def workspace(monkeypatch, tmp_path):
    use_home(monkeypatch, tmp_path)
    return tiny_workspace()


def markdown(app):
    return [found.value for found in app.main.markdown]


def cards(app):
    """Ids of the training rows on screen, in order."""
    return [
        button.key.rsplit("_", 1)[1]
        for button in app.button
        if button.key.startswith("relabel_") and button.key != "relabel_these"
    ]


def test_proponents_come_with_rank_percentile_sign_word_label_and_agreement(workspace):
    app = open_app("influence", example="test-3")
    assert not app.exception
    assert cards(app) == [f"train-{i}" for i in range(10)]
    shown = markdown(app)
    assert "**1** · 97.50 %" in shown
    assert ":blue[" + "█" * 12 + "]" in shown
    assert "**+1** supports" in shown
    assert "agrees with truth" in shown  # train-0 carries the label positive
    assert any("gold says negative" in found for found in shown)
    captions = [found.value for found in app.main.caption]
    provenance = next(found for found in captions if found.startswith("TracIn"))
    for part in ("head", "40 training rows", "“negative”", "ordered by cosine", "from the cache"):
        assert part in provenance
    assert any("next few training steps, not a retraining" in found for found in captions)
    assert any("not measured yet" in found for found in captions)


def test_the_test_row_is_pinned_with_both_classes_probabilities(workspace):
    app = open_app("influence", example="test-3")
    shown = [found.value for found in app.main.text]
    assert "True: positive" in shown
    assert "Predicted: negative" in shown
    assert [bar.value for bar in app.main.progress] == [92, 8]


def test_opponents_are_orange_negative_and_oppose(workspace):
    app = open_app("influence", example="test-3")
    app.segmented_control(key="side").set_value("Opponents").run()
    assert cards(app)[:2] == [f"train-{TRAIN - 1}", f"train-{TRAIN - 2}"]
    assert "**−0.95** opposes" in markdown(app)
    assert any(found.startswith(":orange[") for found in markdown(app))
    assert not any(found.startswith(":blue[") for found in markdown(app))


def test_the_gold_target_mirrors_the_ranking_for_two_classes(workspace):
    app = open_app("influence", example="test-3")
    app.selectbox(key="target").set_value("gold").run()
    assert not app.exception
    assert cards(app)[0] == f"train-{TRAIN - 1}"
    assert any("“positive”" in found.value for found in app.caption)
    again = open_app("influence", example="test-3", target="gold")  # as the address says after the choice
    assert cards(again) == cards(app)


def test_a_card_goes_to_relabel_with_both_ids(workspace):
    app = open_app("influence", example="test-3")
    key = next(button.key for button in app.button if button.key.endswith("_train-2"))
    app.button(key=key).click().run()
    assert not app.exception
    assert [title.value for title in app.title] == ["Relabel"]
    assert app.query_params["example"] == "test-3"
    assert app.query_params["row"] == "train-2"


@pytest.mark.parametrize(("button", "title"), [("relabel_these", "Relabel"), ("correct_these", "Correct")])
def test_the_ranking_is_handed_over_in_its_order(workspace, button, title):
    app = open_app("influence", example="test-3")
    app.button(key=button).click().run()
    assert not app.exception
    assert [found.value for found in app.title] == [title]
    assert app.session_state["queue"] == [f"train-{i}" for i in range(20)]
    assert app.session_state["queue_example"] == "test-3"
    assert app.query_params["example"] == "test-3"


def test_a_ranking_that_is_not_kept_is_computed_only_when_asked(monkeypatch, workspace):
    made = catch_runs(monkeypatch)
    app = open_app("influence", example="test-1")  # predicted right: no products are kept for it
    assert not app.exception
    assert cards(app) == []
    assert made == []
    assert app.button(key="rank").label == "Compute (about 5 s)"
    app.button(key="rank").click().run()
    assert app.query_params["run"] == made[0]
    spec = RunDirectory.open(made[0]).spec()
    assert spec == RankSpec(workspace="tiny", checkpoint="first", example="test-1", method="tracin")
    assert "place 1 in the queue" in app.main.progress[-1].text


def test_a_fresh_ranking_says_that_it_was_computed_now(workspace):
    spec = RankSpec(workspace="tiny", checkpoint="first", example="test-3", method="tracin")
    run = RunDirectory.create(spec)
    run.claim()
    run.append(Result(value={"fresh": True}))
    run.finish()
    app = open_app("influence", example="test-3", run=run.id)
    assert any("computed now in" in found.value for found in app.caption)


def test_a_failed_run_says_why_and_offers_itself_again(workspace):
    spec = RankSpec(workspace="tiny", checkpoint="first", example="test-1", method="tracin")
    run = RunDirectory.create(spec)
    run.claim()
    run.fail("out of memory: choose a smaller scope")
    app = open_app("influence", example="test-1", run=run.id)
    assert "out of memory" in app.error[0].value
    assert app.button(key="rank").label.startswith("Compute")


def test_abif_is_the_default_where_an_index_exists_and_needs_a_basis_for_new_rows(monkeypatch, workspace):
    add_index(workspace)
    app = open_app("influence", example=wrong_ids()[0])
    assert not app.exception
    assert app.selectbox(key="method").value == "abif"
    assert any(found.value.startswith("ABIF") and "1 negative" in found.value for found in app.caption)
    assert cards(app)
    made = catch_runs(monkeypatch)
    app = open_app("influence", example="test-3")
    assert "need the eigenvectors" in app.info[0].value
    words = estimate(workspace, IndexSpec(workspace="tiny", checkpoint="first")).words
    assert app.button(key="index").label == f"Build basis ({words})"
    app.button(key="index").click().run()
    assert RunDirectory.open(made[0]).spec() == IndexSpec(workspace="tiny", checkpoint="first")
    assert cards(open_app("influence", example="test-3", method="TracIn"))


def test_a_relabelled_row_is_marked_and_recomputed_on_demand(monkeypatch, workspace):
    workspace.relabel("train-1", "negative", expect="positive", annotator="me")
    made = catch_runs(monkeypatch)
    app = open_app("influence", example="test-3")
    assert "1 training row was relabelled" in app.warning[0].value
    assert any("its label changed since" in found.value for found in app.caption)
    assert app.button(key="refresh").label.startswith("Recompute 1 changed row (about")
    app.button(key="refresh").click().run()
    assert RunDirectory.open(made[0]).spec().refresh


def test_similar_offers_features_then_lists_the_nearest_rows(monkeypatch, workspace):
    made = catch_runs(monkeypatch)
    app = open_app("influence", example="test-3", side="Similar")
    assert not app.exception
    assert [button.key for button in app.button if button.key.startswith("features_")] == [
        "features_train",
        "features_test",
    ]
    app.button(key="features_train").click().run()
    assert RunDirectory.open(made[0]).spec() == PredictSpec(workspace="tiny", checkpoint="first", split="train")
    RunDirectory.open(made[0]).kill()
    train, test = add_features(workspace, "train"), add_features(workspace, "test")
    app = open_app("influence", example="test-3", side="Similar")
    expected = nearest(train, test[3], 10).rows
    assert cards(app) == [f"train-{row}" for row in expected]
    assert any("Similarity is not influence" in found.value for found in app.caption)
    assert not any("supports" in found or "opposes" in found for found in markdown(app))
    assert app.selectbox(key="method").disabled


def test_without_an_example_or_with_a_training_row_it_says_what_to_do(workspace):
    app = open_app("influence")
    assert "Choose a misprediction first" in app.info[0].value
    app = open_app("influence", example="train-3")
    assert not app.exception
    assert "This is a training row" in app.info[0].value


def test_without_predictions_the_default_target_waits_for_them(monkeypatch, tmp_path):
    use_home(monkeypatch, tmp_path)
    tiny_workspace(predicted=False, tracin=False)
    app = open_app("influence", example="test-3")
    assert not app.exception
    assert "Not predicted yet" in [found.value for found in app.text]
    assert app.button(key="rank").label.startswith("Compute")
