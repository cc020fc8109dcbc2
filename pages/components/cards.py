"""One example on the screen: a short row of a list, the pinned test example, a ranked training row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import streamlit as st

from influence_core.charts import number, percent
from influence_core.workspace import Workspace
from pages.components import contents, pictures
from pages.components.text import first_words, plain, signed

ROW_LENGTH = 210  # characters of a text in a list: about three lines
_CELLS = 12  # width of a bar, in characters
_BAR_WIDTH = 140  # pixels; a little more than the characters take
_PLACE_WIDTH = 96  # pixels
_CLASSES = 5  # probabilities shown of a test example, the largest
_EIGHTHS = " ▏▎▍▌▋▊▉█"
FLAG = ":material/flag:"


@dataclass(frozen=True)
class Evidence:
    """A training row beside a test example, ready to be shown."""

    id: str
    rank: int
    value: float  # what the list is ordered by; the bar's length and sign
    word: str  # supports, opposes, similar
    label: str
    text: str
    predicted: str  # of the test example
    truth: str  # of the test example
    percentile: float | None = None
    detail: str = ""  # a second number, in words
    gold: str | None = None
    stale: bool = False
    zero_norm: bool = False


def bar(value: float, scale: float, cells: int = _CELLS) -> str:
    """Draw |value| / scale as a row of block characters, to an eighth of a cell; at least one eighth."""
    if scale <= 0:
        return _EIGHTHS[1]
    eighths = max(1, min(8 * cells, round(abs(value) / scale * 8 * cells)))
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def agreement(evidence: Evidence) -> str:
    """Say what the row's label agrees with."""
    as_predicted, as_true = evidence.label == evidence.predicted, evidence.label == evidence.truth
    if as_predicted and as_true:
        return "agrees with prediction and truth"
    if as_predicted:
        return "agrees with prediction"
    return "agrees with truth" if as_true else "agrees with neither"


def ranked(
    workspace: Workspace,
    evidence: Evidence,
    scale: float,
    on_relabel: Callable[[str], None],
    key: str,
    below: Callable[[str], None] | None = None,
) -> None:
    """Show a ranked training row with its bar on the list's shared scale and a Relabel button.

    An image stands left of the words. ``on_relabel`` is called with the row's id, as a callback:
    before the page runs again. ``below`` shows more at the card's foot, given the row's id.
    """
    with st.container(border=True, key=f"card_{key}_{evidence.rank}", gap="xsmall"):
        _card(workspace, evidence, scale, on_relabel, key)
        if below is not None:
            below(evidence.id)


def _card(workspace: Workspace, evidence: Evidence, scale: float, on_relabel: Callable[[str], None], key: str) -> None:
    if not contents.has_images(workspace):
        _place(evidence, scale, on_relabel, key)
        _labels(evidence)
        st.text(first_words(evidence.text, ROW_LENGTH))
        _notes(evidence)
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="medium", wrap=False):
        alt = f"training row {evidence.rank} of this list, labelled {evidence.label}"
        with st.container(width=pictures.ROW, gap=None):
            pictures.picture(workspace, evidence.id, pictures.ROW, alt)
        with st.container(gap="xsmall"):
            _place(evidence, scale, on_relabel, key)
            _labels(evidence)
            _notes(evidence, evidence.text)


def _place(evidence: Evidence, scale: float, on_relabel: Callable[[str], None], key: str) -> None:
    colour = {"supports": "blue", "opposes": "orange"}.get(evidence.word, "gray")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        place = f"**{evidence.rank}**"
        if evidence.percentile is not None:
            place += f" · {evidence.percentile:.2f} %"
        st.markdown(place, width=_PLACE_WIDTH)
        st.markdown(f":{colour}[{bar(evidence.value, scale)}]", width=_BAR_WIDTH)
        st.markdown(f"**{signed(evidence.value)}** {evidence.word}", width="content")
        st.space("stretch")
        st.button(
            "Relabel",
            key=f"relabel_{key}_{evidence.id}",
            icon=":material/edit:",
            on_click=on_relabel,
            args=(evidence.id,),
        )


def _labels(evidence: Evidence) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.badge(plain(evidence.label), color="gray", icon=":material/label:")
        st.markdown(agreement(evidence), width="content")
        if evidence.gold is not None and evidence.gold != evidence.label:
            st.badge(plain(f"gold says {evidence.gold}"), icon=FLAG, color="violet")


def _notes(evidence: Evidence, file: str = "") -> None:
    notes = [evidence.id, file, evidence.detail]
    if evidence.stale:
        notes.append("its label changed since these scores were made")
    if evidence.zero_norm:
        notes.append("its gradient is zero, so its cosine is set to 0")
    st.caption(plain(" · ".join(filter(None, notes))))


def pinned(
    workspace: Workspace,
    example: str,
    true: str,
    predicted: str | None,
    probabilities: Sequence[tuple[str, float]],
    loss: float | None = None,
) -> None:
    """Show the test example: its text or image, true and predicted class, a bar for each class's probability."""
    split, _ = workspace.locate(example)
    with st.container(border=True):
        st.caption(plain(f"{split.capitalize()} example {example}"))
        contents.show_content(workspace, example, alt=f"{split} example, true {true}", side=pictures.PINNED)
        st.text(f"True: {true}")
        if predicted is None:
            st.text("Not predicted yet")
            return
        st.text(f"Predicted: {predicted}" + ("" if predicted != true else " (right)"))
        for name, probability in shown_classes(probabilities, true):
            st.progress(min(1.0, max(0.0, probability)), text=plain(f"{name}: {percent(probability)}"))
        if len(probabilities) > _CLASSES:
            st.caption(f"The most probable of {len(probabilities):,} classes, and the true one.")
        if loss is not None:
            st.caption(f"Loss of the true label: {number(loss)} nats")


def shown_classes(probabilities: Sequence[tuple[str, float]], true: str) -> Sequence[tuple[str, float]]:
    """Return all classes in their order; of many, the most probable ones and the true one, largest first."""
    if len(probabilities) <= _CLASSES:
        return probabilities
    ordered = sorted(probabilities, key=lambda pair: -pair[1])
    return ordered[:_CLASSES] + [pair for pair in ordered[_CLASSES:] if pair[0] == true]
