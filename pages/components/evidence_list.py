"""The right side of the Influence page: ranked cards, or what has to run before there are any."""

from collections.abc import Callable, Sequence
from functools import partial

import streamlit as st

from influence_core.attribution.methods import METHODS
from influence_core.estimates import estimate
from influence_core.rankings import Ranking
from influence_core.similar import missing, similar
from influence_core.specs import PredictSpec, RankSpec
from influence_core.workspace import Workspace
from pages.components import cards, evidence, ranking_words, state
from pages.components.cards import Evidence
from pages.components.forecast import forecast
from pages.components.guard import Context
from pages.components.offering import OTHER_WAY, index_state, offer, offer_index
from pages.components.running import follow_or_offer, result_of, run_for
from pages.components.text import plain
from pages.components.trust import trust

PER_PAGE = 10
LIST_HEIGHT = 640  # pixels: the cards scroll, the test row stays in view


def show_cards(
    workspace: Workspace, found: Sequence[Evidence], key: str, below: Callable[[str], None] | None = None
) -> None:
    """Show cards, ten a page, with bars on one scale over all of them; they scroll beside the test row.

    ``below`` shows more at a card's foot, given its row's id.
    """
    scale = max((abs(item.value) for item in found), default=0.0)
    pages = -(-len(found) // PER_PAGE)
    page = st.pagination(pages, key=f"cards_{key}") if pages > 1 else 1
    with st.container(height=LIST_HEIGHT, border=False, key=f"list_{key}_{page}"):
        for item in found[(page - 1) * PER_PAGE : page * PER_PAGE]:
            cards.ranked(workspace, item, scale, _select_row, key, below)


def _select_row(row: str) -> None:
    state.select(row=row)
    st.session_state[GO] = "relabel"


GO = "influence_go"  # page to open after a callback changed the selection


def ranking_side(context: Context, spec: RankSpec, opponents: bool, predicted: str, truth: str) -> None:
    """Show one end of the ranking that a spec asks for, or offer to compute it."""
    workspace = context.workspace
    ranking = workspace.ready(spec)
    if ranking is None:
        offer(context, spec)
        return
    st.caption(plain(ranking_words.provenance(ranking, _computed_in(spec))))
    control = METHODS[ranking.method].control
    if control:
        st.caption(
            "A control: it knows nothing of the loss and predicts no training steps, so there is no trust to measure."
        )
    else:
        st.caption("Scores predict the next few training steps, not a retraining.")
        trust(context, spec)
    for said in ranking_words.caveats(ranking):
        st.warning(plain(said), icon=":material/warning:")
    stale_rows(context, spec, ranking)
    rows, word = (ranking.opponents, "opposes") if opponents else (ranking.proponents, "supports")
    found = evidence.of_ranking(ranking, rows, word, predicted, truth)
    if not found:
        st.info(f"No training row has a {'negative' if opponents else 'positive'} score for this label.")
        return
    actions(spec, ranking)
    side = "opponents" if opponents else "proponents"
    key = f"{side}_{ranking.method}_{ranking.target}_{ranking.by}_{spec.example}"
    show_cards(workspace, found, key, None if control else partial(forecast, context, spec, key=key))


def _computed_in(spec: RankSpec) -> float | None:
    """Seconds that the selected run took to make this ranking, if it made it."""
    for asked in (spec, spec.model_copy(update={"refresh": True})):
        run = run_for(asked)
        if run is not None and run.record().state == "finished":
            value = result_of(run)
            if value is not None and value.get("fresh"):
                return run.state().seconds
    return None


def actions(spec: RankSpec, ranking: Ranking) -> None:
    """Show the ways on from a ranking: relabel its proponents, or correct with them."""
    ids = [row.id for row in ranking.proponents]
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Relabel these", key="relabel_these", icon=":material/edit_note:", disabled=not ids):
            state.hand_over(spec.example, ids)
            state.go("relabel", example=spec.example, row=ids[0])
        if st.button("Correct with these", key="correct_these", icon=":material/build:", disabled=not ids):
            state.hand_over(spec.example, ids)
            state.go("correct", example=spec.example, run=None)
        st.caption(f"The top {len(ids)} proponents, in this order.")


def stale_rows(context: Context, spec: RankSpec, ranking: Ranking) -> None:
    """Say how many rows' labels changed since the scores were made, and offer to project them again."""
    if not ranking.stale:
        return
    many = ranking.stale > 1
    st.warning(
        f"{ranking.stale:,} training {'rows were' if many else 'row was'} relabelled since these scores were made; "
        f"{'their scores are' if many else 'its score is'} of the old label.",
        icon=":material/history:",
    )
    if spec.method == "abif" and index_state(context.workspace, spec) != "basis":
        why = f"Recomputing them needs the eigenvectors, which this index leaves out. {OTHER_WAY}"
        offer_index(context, spec, why)
        return
    again = spec.model_copy(update={"refresh": True})
    words = estimate(context.workspace, again).words
    label = f"Recompute {ranking.stale:,} changed row{'s' if ranking.stale > 1 else ''}"
    follow_or_offer(again, label, words, f"recompute {ranking.stale} rows", key="refresh", primary=False)


def similar_side(context: Context, example: str, predicted: str, truth: str) -> None:
    """Show the training rows nearest by the model's features, or offer to compute these."""
    workspace, checkpoint = context.workspace, context.checkpoint.name
    st.caption(
        "Control: nearest training rows by the model's own penultimate features (cosine). "
        "Similarity is not influence: a similar row may support, oppose or do nothing."
    )
    split, _ = workspace.locate(example)
    for lacking in missing(workspace, ("train", split), checkpoint):
        spec = workspace.spec(PredictSpec, {**context.spec, "split": lacking})
        st.info(f"The features of the {lacking} split are not computed yet.")
        words = estimate(workspace, spec).words
        label = f"Compute {lacking} features"
        follow_or_offer(spec, label, words, f"features of {lacking}", key=f"features_{lacking}")
    neighbours = similar(workspace, example, checkpoint=checkpoint)
    if neighbours is not None:
        found = evidence.of_neighbours(workspace, neighbours, predicted, truth)
        show_cards(workspace, found, f"similar_{example}")
