"""Influence: one test row, the training rows that support or oppose what the model says of it, and H's spectrum."""

import streamlit as st

from pages.components import cards, data, state
from pages.components.asking import ask
from pages.components.errors import shown_errors
from pages.components.evidence_list import GO, ranking_side, similar_side
from pages.components.guard import Context, guard
from pages.components.spectrum_view import spectrum_side

SIDE = "side"
SIDES = ("Proponents", "Opponents", "Similar", "Spectrum")


def explain(context: Context, example: str) -> None:
    """Show the test row on the left and the evidence on the right."""
    workspace = context.workspace
    if workspace.locate(example)[0] == "train":
        st.info("This is a training row: Influence explains test and validation rows. Choose one on Mispredictions.")
        return
    names = workspace.label_names
    truth = names[workspace.truth(example)]
    row = data.prediction(workspace, example, context.checkpoint.name)
    predicted = None if row is None else names[row["prediction"]]
    probabilities = [] if row is None else [(name, float(row[f"p{c}"])) for c, name in enumerate(names)]
    left, right = st.columns([1, 2], gap="medium")
    with left:
        loss = None if row is None else float(row["loss"])
        cards.pinned(workspace, example, truth, predicted, probabilities, loss)
    with right:
        side = st.segmented_control(
            "Evidence",
            SIDES,
            default=SIDES[0],
            key=SIDE,
            required=True,
            bind="query-params",
            label_visibility="collapsed",
        )
        with shown_errors():
            spec = ask(context, example, disabled=side == "Similar")
            if side == "Similar":
                similar_side(context, example, predicted or "", truth)
            elif side == "Spectrum":
                spectrum_side(context, spec)
            else:
                ranking_side(context, spec, side == "Opponents", predicted or "", truth)


context = guard("Influence")
if (page := st.session_state.pop(GO, None)) is not None:
    state.go(page)
if context.example is None:
    st.info("Choose a misprediction first: its Explain button leads back here.")
    st.page_link("pages/mispredictions.py", label="Mispredictions", icon=":material/rule:", query_params=state.url())
else:
    explain(context, context.example)
