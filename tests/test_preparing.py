"""How a checkpoint's inputs will be prepared: a look refuses what opening refuses, and says what will be used."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import save_tiny_checkpoint, write_data
from family_checkpoints import LABEL_WORDS, PREFIX, save_family, write_family_data

from influence_core.checkpoints.preparing import positions
from influence_core.data.opening import Look, look
from influence_core.errors import UserError
from influence_core.models.loading import load_folder
from influence_core.preparation import Preparation
from influence_core.specs import OpenSpec
from influence_core.survey import Survey


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("saved")
    found = {family: save_family(place / family, family) for family in ("t5", "roberta", "resnet")}
    found["bert"] = save_tiny_checkpoint(place / "bert", trained=False)
    (place / "texts").mkdir()
    found["texts"], _ = write_data(place / "texts", 12, 4)
    found["images"], _ = write_family_data(place / "images", "resnet", train_rows=12, test_rows=4)
    return found


def survey(saved, family, data="texts", **fields) -> Survey:
    spec = OpenSpec(checkpoint=str(saved[family]), data=str(saved[data]), **fields)
    return next(event for event in look(spec) if isinstance(event, Look)).survey


@pytest.mark.parametrize(
    ("family", "data", "fields", "said"),
    [
        ("bert", "texts", {"label_words": {"positive": "good"}}, "label words are given, but .* outputs of its own"),
        (
            "t5",
            "texts",
            {"label_words": {"neutral": "fine"}},
            "a label word is given for 'neutral', the classes are",
        ),
        (
            "t5",
            "texts",
            {"label_words": {"positive": "bad"}},
            "'positive' have the same label word 'bad'",
        ),
        ("t5", "texts", {"label_words": {"positive": " "}}, "the label word of 'positive' is empty"),
        ("resnet", "images", {"prefix": "see: "}, "prefix is 'see: ', but .* reads images: leave it out"),
        ("resnet", "images", {"max_length": 64}, "max_length is 64, but .* reads images: leave it out"),
    ],
)
def test_a_look_reports_what_opening_would_refuse(saved, family, data, fields, said):
    (problem,) = survey(saved, family, data, **fields).problems
    assert re.search(said, problem)


def test_a_look_tells_the_label_words_and_the_prefix_that_will_be_used(saved):
    found = survey(saved, "t5").checkpoints[0]
    assert f"Label words: negative = {LABEL_WORDS[0]}, positive = {LABEL_WORDS[1]}." in found.notes
    assert f"Before every text stands the prefix {PREFIX!r}." in found.notes
    chosen = survey(saved, "t5", label_words={"negative": "dull"}, prefix="").checkpoints[0]
    assert f"Label words: negative = dull, positive = {LABEL_WORDS[1]}." in chosen.notes
    assert not any("prefix" in note for note in chosen.notes)
    assert survey(saved, "bert").checkpoints[0].notes == ()


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_length_beyond_the_models_positions_is_said_with_the_one_that_holds(saved, family):
    names = ("negative", "positive")
    kept = load_folder(saved[family], "f", names, "text", Preparation(max_length=4096)).max_length
    (note,) = survey(saved, family, max_length=4096).checkpoints[0].notes
    assert note == f"It has {kept:,} positions: texts are cut there, not at 4,096 tokens."
    assert survey(saved, family, max_length=kept).checkpoints[0].notes == ()


def test_nothing_bounds_a_model_without_positions():
    assert positions({"model_type": "t5"}) is None


def test_an_architecture_is_refused_where_the_folder_says_its_own(saved):
    with pytest.raises(UserError, match=r"the architecture 'resnet18' is given, but .* it is a bert: leave"):
        survey(saved, "bert", architecture="resnet18")


def test_preparing_needs_no_torch():
    code = "import influence_core.checkpoints.preparing, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
