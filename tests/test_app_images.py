"""Every page with a workspace of images in ten classes."""

import base64
import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from workspaces import (
    CLOTHES,
    TEST,
    TRAIN,
    add_features,
    catch_runs,
    open_app,
    square,
    tiny_image_workspace,
    use_home,
    wrong_ids,
)

from influence_core.attribution.tables import write_arrays
from influence_core.data import drawing
from influence_core.errors import UserError
from influence_core.labels import LabelStore
from influence_core.runs.directory import RunDirectory
from influence_core.specs import CorrectionSpec
from pages.components import cards, label_history, pictures, state
from pages.components.example_rows import PER_PAGE


@pytest.fixture
def workspace(monkeypatch, tmp_path):
    use_home(monkeypatch, tmp_path)
    return tiny_image_workspace()


def alts(app):
    """What the images on the page are said to be, in order."""
    return [image.alt for element in app.get("image") for image in element.proto.imgs]


def texts(app):
    return [found.value for found in app.text]


def captions(app):
    return [found.value for found in app.main.caption]


def keys(app, prefix):
    return [button.key.removeprefix(prefix) for button in app.button if (button.key or "").startswith(prefix)]


def test_the_mispredictions_are_cards_with_an_image_true_and_predicted_and_the_way_on(workspace):
    app = open_app("mispredictions")
    assert not app.exception
    assert keys(app, "open_") == wrong_ids()
    readable = [i for i in range(0, TEST, 3) if i != 9]
    assert alts(app) == [f"true {CLOTHES[i % 10]}, predicted {CLOTHES[(i + 1) % 10]}" for i in readable]
    assert "Trouser → Pullover" in texts(app)  # test-21
    assert f"8 of {TEST} wrong · showing 8" in texts(app)
    assert not app.text_input  # no filter by words
    app.button(key="open_test-6").click().run()
    assert [title.value for title in app.title] == ["Influence"]
    assert app.query_params["example"] == "test-6"


def test_an_image_that_cannot_be_read_is_said_in_its_place(workspace):
    (said,) = [found for found in captions(open_app("mispredictions")) if "broken_image" in found]
    assert "the image test\\-9 cannot be read" in said


def test_a_long_list_is_shown_twenty_cards_at_a_time(workspace, monkeypatch):
    monkeypatch.setitem(PER_PAGE, "image", 5)
    assert keys(open_app("mispredictions"), "open_") == wrong_ids()[:5]


def test_of_ten_classes_the_picker_names_each_error_once_most_frequent_first(workspace):
    app = open_app("mispredictions")
    options = app.selectbox(key="mispredictions_picker").options
    assert options[:3] == [
        "All wrong rows",
        "T-shirt/top taken for Trouser (1)",
        "Trouser taken for Pullover (1)",
    ]
    assert options[1:9] == [found for found in options if found.endswith("(1)") and "taken for" in found]
    app.selectbox(key="mispredictions_picker").set_value(("Shirt", "Sneaker")).run()
    assert keys(app, "open_") == ["test-6"]
    assert f"8 of {TEST} wrong · showing 1 (Shirt taken for Sneaker)" in texts(app)


def test_the_test_image_is_pinned_with_its_most_probable_classes(workspace):
    app = open_app("influence", example="test-6")
    assert not app.exception
    assert "test example, true Shirt" in alts(app)
    assert "True: Shirt" in texts(app)
    assert "Predicted: Sneaker" in texts(app)
    assert [bar.value for bar in app.main.progress][:3] == [88, 11, 0]
    assert len(app.main.progress) == 5
    assert "The most probable of 10 classes, and the true one." in captions(app)


def test_a_test_image_that_cannot_be_read_leaves_the_page_whole(workspace):
    app = open_app("influence", example="test-9")
    assert not app.exception
    assert sum("the image test\\-9 cannot be read" in found for found in captions(app)) == 2  # in the strip, pinned
    assert keys(app, "relabel_proponents_")


def test_the_true_class_is_shown_however_improbable():
    probabilities = [(name, 0.5 - 0.05 * place) for place, name in enumerate(CLOTHES)]
    shown = [name for name, _ in cards.shown_classes(probabilities, "Ankle boot")]
    assert shown == [*CLOTHES[:5], "Ankle boot"]
    assert cards.shown_classes(probabilities[:2], "Bag") == probabilities[:2]


def test_proponents_opponents_and_similar_rows_are_cards_with_images(workspace):
    add_features(workspace, "train")
    add_features(workspace, "test")
    app = open_app("influence", example="test-6")
    assert keys(app, "relabel_proponents_")[0].endswith("train-0")
    labels = [CLOTHES[(i + 1) % 10 if i % 5 == 0 else i % 10] for i in range(10)]
    said = [f"training row {i + 1} of this list, labelled {labels[i]}" for i in range(10) if i != 7]
    assert alts(app)[-9:] == said
    assert any("the image train\\-7 cannot be read" in found for found in captions(app))
    assert "agrees with neither" in [found.value for found in app.main.markdown]
    app.segmented_control(key="side").set_value("Opponents").run()
    assert alts(app)[2] == f"training row 1 of this list, labelled {CLOTHES[(TRAIN - 1) % 10]}"
    app.segmented_control(key="side").set_value("Similar").run()
    assert not app.exception
    assert any(found.startswith("training row 10 of this list") for found in alts(app))


def test_the_strip_shows_the_selected_image_and_its_outcome(workspace):
    app = open_app("runs", example="test-6")
    assert alts(app) == ["the selected example, Shirt → Sneaker"]
    assert any(found.startswith("test-6 · 3 of 8 · Shirt → Sneaker") for found in texts(app))


def test_relabelling_shows_the_image_ten_buttons_with_keys_and_a_list_of_thumbnails(workspace):
    app = open_app("relabel", example="test-6")
    app.text_input(key=state.ANNOTATOR).set_value("Ada").run()
    assert not app.exception
    buttons = [button for button in app.button if (button.key or "").startswith("label-")]
    assert [button.proto.shortcut for button in buttons] == list("1234567890")
    assert "training row, labelled Trouser" in alts(app)  # train-0, one too high
    assert keys(app, "list_") == [f"train-{i}" for i in range(20)]
    buttons[0].click().run()
    (event,) = LabelStore().history(workspace.data_fingerprint)
    assert (event.example, event.old, event.new) == ("train-0", "Trouser", "T-shirt/top")
    assert app.query_params["row"] == "train-1"
    app.button(key="list_train-3").click().run()
    assert app.query_params["row"] == "train-3"
    app.button(key="list_train-7").click().run()
    assert not app.exception
    assert any("the image train\\-7 cannot be read" in found for found in captions(app))


def test_current_labels_are_exported_without_texts(workspace):
    rows = [json.loads(line) for line in label_history.exported(workspace, "labels", "jsonl").splitlines()]
    assert len(rows) == TRAIN
    assert {row["text"] for row in rows} == {""}
    assert rows[3]["current"] == "Dress"


def test_suspects_are_listed_with_images(workspace):
    table = next(path.parent for path in workspace.artefacts.folder.rglob("train.safetensors"))
    labels = workspace.train["label"].to_numpy(dtype=np.int64)
    norms = np.arange(1, TRAIN + 1, dtype=np.float32)
    write_arrays(table / "train.safetensors", {"norms": norms, "labels": labels})
    app = open_app("relabel", source="Suspects")
    assert not app.exception
    shown = app.dataframe[0].value
    assert list(shown.columns) == ["rank", "score", "label", "gold", "image", "id"]
    assert shown["id"].iloc[0] == f"train-{TRAIN - 1}"
    head, _, data = shown["image"].iloc[0].partition(",")
    assert head == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.getpixel((0, 0)) == 5 * (TRAIN - 1) + 20
    assert pd.isna(shown.set_index("id")["image"]["train-7"])


def test_a_correction_starts_from_an_image_with_its_true_class_desired(workspace, monkeypatch):
    made = catch_runs(monkeypatch)
    app = open_app("correct", example="test-6")
    assert not app.exception
    assert "test row, true Shirt" in alts(app)
    assert app.selectbox(key="correct_desired").value == "Shirt"
    assert len(app.selectbox(key="correct_desired").options) == 9  # all but the predicted class
    app.button(key="correct_start").click().run()
    assert not app.exception
    spec = RunDirectory.open(made[0]).spec()
    assert isinstance(spec, CorrectionSpec)
    assert (spec.example, spec.desired) == ("test-6", "Shirt")


def test_the_rows_that_a_correction_fixed_and_broke_are_listed_with_images(workspace):
    spec = CorrectionSpec(workspace=workspace.name, checkpoint="first", example="test-6")
    run = RunDirectory.create(spec, what="correct test-6")
    run.claim()
    after = pd.DataFrame({"id": ["test-6", "test-9", "test-1"], "prediction": [6, 9, 2]})
    run.result.mkdir(exist_ok=True)
    after.to_parquet(run.result / "after.parquet", index=False)
    outcome = {"flipped": True, "flip_step": 3, "base_flip_step": None, "steps": 3, "retention": 1.0, "split": "test"}
    outcome |= {"before": 2 / 3, "after": 17 / 24, "fixed": ["test-6", "test-9"], "broken": ["test-1"]}
    (run.result / "result.json").write_text(json.dumps(outcome))
    run.finish()
    app = open_app("correct", run=run.id)
    assert not app.exception
    fixed, broken = (table.value for table in app.dataframe)
    assert list(fixed["id"]) == ["test-6", "test-9"]
    assert fixed["image"].iloc[0].startswith("data:image/png;base64,")
    assert pd.isna(fixed["image"].iloc[1])
    assert (broken["label"].iloc[0], broken["before"].iloc[0], broken["after"].iloc[0]) == (
        "Trouser",
        "Trouser",
        "Pullover",
    )


def test_small_images_grow_in_whole_steps_and_large_ones_shrink():
    checker = Image.fromarray((np.indices((28, 28)).sum(axis=0) % 2 * 255).astype(np.uint8))
    grown = np.asarray(drawing.drawn(checker, 140))
    assert grown.shape == (140, 140)
    assert set(np.unique(grown)) == {0, 255}  # nothing is smoothed
    assert (grown == np.kron(np.asarray(checker), np.ones((5, 5), dtype=np.uint8))).all()
    assert drawing.drawn(Image.new("RGB", (1000, 500)), 140).size == (140, 70)
    assert drawing.drawn(Image.new("L", (100, 80)), 140).size == (100, 80)


def test_every_kind_of_pixel_can_be_shown():
    deep = Image.fromarray(np.array([[0, 65535], [32768, 0]], dtype=np.uint16))
    assert np.asarray(drawing.eight_bits(deep)).tolist() == [[0, 255], [127, 0]]
    clear = Image.new("RGBA", (1, 1), (255, 0, 0, 0))
    assert drawing.eight_bits(clear).getpixel((0, 0)) == (255, 255, 255)
    for mode in ("1", "P", "LA", "CMYK", "F", "I"):
        Image.open(io.BytesIO(drawing.png(drawing.drawn(Image.new(mode, (3, 2)), 6)))).load()


def test_a_picture_is_never_more_than_what_was_asked_for(workspace):
    file = pictures.thumbnail(workspace, "train-3", pictures.ROW)
    image = Image.open(io.BytesIO(file))
    assert (image.size, image.getpixel((0, 0))) == ((84, 84), 35)
    with pytest.raises(UserError, match="train-7 cannot be read"):
        pictures.thumbnail(workspace, "train-7", pictures.ROW)
    assert square(35, png=True).startswith(b"\x89PNG")
