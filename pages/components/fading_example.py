"""A finished measurement to look at before the first own one: the studies that are shipped with the documentation."""

import json
from pathlib import Path
from typing import Any

import streamlit as st

from influence_core.charts import VERDICT_REPEATS
from pages.components.demos import WORDS
from pages.components.fading_view import draw, noise_of, outcome_table
from pages.components.fading_words import count
from pages.components.ranking_words import scope_words
from pages.components.text import plain

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "results" / "fading"
OPTIMIZERS = {"adam": "Adam", "sgd": "SGD"}
MODELS = {  # by how a record's file name begins
    "movie-reviews": "BERT",
    "resnet-early": "ResNet early in training",
    "resnet": "ResNet",
    "vit": "ViT",
    "t5": "T5",
}
_CHOICE = "fading_example"


def example() -> None:
    """Show a finished example, labelled as one; a word where there is none."""
    found, broken = examples()
    for name in broken:
        st.caption(plain(f"The example {name} cannot be read and is left out."))
    if not found:
        st.info("Nothing is measured yet: choose how much on the left and start. The curves grow here while it runs.")
        return
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.badge("Finished example", icon=":material/history:", color="gray")
        title = st.selectbox("Example", list(found), key=_CHOICE, label_visibility="collapsed", width="stretch")
    shown = found[title]
    value = shown["value"]
    st.caption(
        plain(
            f"Measured before, not now and not by you: {count(value['repeats'], 'repeat')} of {value['train_rows']} × "
            f"{value['test_rows']} rows, made on {shown['made'][:10]}. Start your own on the left."
        )
    )
    draw(
        value["methods"],
        value["divergence"],
        len(value["divergence"]),
        value["repeats"],
        f"example {title}",
        noise=noise_of(value),
        losses=value.get("noise"),
    )
    outcome_table(value["methods"], "example")
    with st.expander("How it was made"):
        st.code(shown["command"], language="bash")
        st.caption(plain(" · ".join(f"{name} {number}" for name, number in shown["versions"].items())))


def examples() -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the shipped measurements by title, and the names of files that cannot be read."""
    found: dict[str, dict[str, Any]] = {}
    broken = []
    for file in sorted(FOLDER.glob("*.json")):
        try:
            shown = json.loads(file.read_text(encoding="utf-8"))
            check(shown)
            title = _title(shown, file.stem)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            broken.append(file.name)
            continue
        found[title if title not in found else f"{title} · {file.stem}"] = shown
    return found, broken


def check(shown: dict[str, Any]) -> None:
    """Read all that is shown of a measurement; raises what reading raises where it is no finished fading study."""
    value = shown["value"]
    if shown["spec"]["kind"] != "fading" or not value["repeats"] or not value["methods"]:
        raise ValueError("no finished fading study")
    count(value["repeats"], "repeat")
    _ = (
        value["train_rows"],
        value["test_rows"],
        value["scope"],
        shown["made"][:10],
        shown["command"],
        shown["versions"].items(),
    )
    sizes = {len(value["divergence"])}
    for row in value["methods"]:
        sizes |= {len(row[name]) for name in ("steps", "r", "low", "high", "distance")}
        _ = (row["method"], row["horizon"], row["faded_at"], row["verdict"])
        if row["peak"] is not None:
            row["steps"].index(row["peak"])
    if len(sizes) != 1:
        raise ValueError("curves of different lengths")


def _title(shown: dict[str, Any], stem: str) -> str:
    """Name a measurement by model, checkpoint, what was trained, and how; by the repeats where they are few."""
    spec, value = shown["spec"], shown["value"]
    place = str(spec["workspace"])
    where = WORDS[place].title if place in WORDS else place
    checkpoint = f", {spec['checkpoint']}" if spec.get("checkpoint") else ""
    model = next((f", {name}" for start, name in MODELS.items() if stem.startswith(start)), "")
    optimizer = OPTIMIZERS.get(value["optimizer"], str(value["optimizer"]))
    few = f" · {count(value['repeats'], 'repeat')}" if value["repeats"] < VERDICT_REPEATS else ""
    trained = f"{scope_words(value['scope'])} · {optimizer} · learning rate {value['learning_rate']:g}"
    return f"{where}{model}{checkpoint} · {trained}{few}"
