"""Suspects: the training rows most influential on themselves, a queue to relabel that needs no test row."""

import pandas as pd
import streamlit as st

from influence_core.attribution import methods as attribution
from influence_core.charts import percent
from influence_core.estimates import estimate
from influence_core.rankings import Suspects
from influence_core.runs import registry
from influence_core.settings import METHOD_NAMES, METHOD_WORDS
from influence_core.specs import SuspectsSpec
from influence_core.workspace import Workspace
from pages.components import contents, pictures, settings_form, state
from pages.components.guard import Context
from pages.components.offering import index_state, offer_index, unavailable
from pages.components.ranking_words import scope_words
from pages.components.running import follow_or_offer, selected_run
from pages.components.text import ago, plain

METHOD = "suspects_method"
METHODS = tuple(name for name, method in attribution.METHODS.items() if method.judges_itself)
COLUMNS = {
    "rank": st.column_config.NumberColumn("Rank", width=60),
    "score": st.column_config.NumberColumn("Self-influence", format="%+.3g", width=110),
    "label": st.column_config.TextColumn("Label", width=90),
    "gold": st.column_config.TextColumn("Gold", width=130),
    "text": st.column_config.TextColumn("Text", width="large"),
    "image": st.column_config.ImageColumn("Image", width=80),
    "id": st.column_config.TextColumn("Id", width=80),
    "note": st.column_config.TextColumn("Note", width=180),
}


def suspects_side(context: Context) -> None:
    """Show the suspects by the chosen method with the way on, or offer what has to run first."""
    workspace = context.workspace
    st.caption(
        "A row that lowers its own loss most when it is trained on is one the model cannot infer from the others: "
        "rare, hard, or wrongly labelled."
    )
    spec = _ask(context)
    if (why := unavailable(workspace, spec)) is not None:
        st.info(plain(why))
        return
    found = registry.suspects_ready(workspace, spec)
    if found is not None:
        if found.stale:
            _offer_refresh(context, spec, found.stale)
        _show(workspace, found)
    elif spec.method == "abif" and index_state(workspace, spec) == "none":
        offer_index(context, spec, "There is no ABIF index for this checkpoint yet. TracIn needs none.")
    else:
        st.info("The self-influence of the training rows is not computed yet.")
        words = estimate(workspace, spec).words
        follow_or_offer(spec, "Find suspects", words, f"suspects by {METHOD_NAMES[spec.method or '']}", key="suspects")


def _offer_refresh(context: Context, spec: SuspectsSpec, stale: int) -> None:
    """Say how many rows' labels changed since, and offer to project them again."""
    were = "row was" if stale == 1 else "rows were"
    st.caption(f":material/history: {stale:,} training {were} relabelled since these scores were made.")
    if spec.method == "abif" and index_state(context.workspace, spec) != "basis":
        return  # the shipped index has no eigenvectors to project on
    again = spec.model_copy(update={"refresh": True})
    words = estimate(context.workspace, again).words
    rows = f"{stale:,} changed row{'s' if stale > 1 else ''}"
    follow_or_offer(again, f"Recompute {rows}", words, f"suspects again, {rows}", key="refresh_suspects", primary=False)


def _ask(context: Context) -> SuspectsSpec:
    """Show the pickers and return their spec; a run in the URL brings its own choice."""
    workspace, run = context.workspace, selected_run("suspects")
    asked = None if run is None else run.spec()
    if run is not None and isinstance(asked, SuspectsSpec) and settings_form.adopt(run.id, asked):
        st.session_state[METHOD] = asked.method
    if st.session_state.get(METHOD) not in METHODS:
        indexed = index_state(workspace, workspace.spec(SuspectsSpec, context.spec)) != "none"
        st.session_state[METHOD] = "abif" if indexed else "tracin"
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Method",
            METHODS,
            format_func=METHOD_NAMES.__getitem__,
            key=METHOD,
            help=" ".join(f"**{METHOD_NAMES[name]}**: {plain(METHOD_WORDS[name])}" for name in METHODS),
            persist_state="session",
            width=300,
        )
        method = str(st.session_state[METHOD])
        settings_form.settings_popover(workspace, method)
    options = {**context.spec, "method": method, "settings": settings_form.chosen(method)}
    return workspace.spec(SuspectsSpec, options)


def _show(workspace: Workspace, found: Suspects) -> None:
    st.caption(
        plain(
            f"{METHOD_NAMES[found.method]} · {scope_words(found.scope)} · {found.rows:,} training rows · ordered by "
            f"score, of each row for its own label · built {ago(found.made)}"
        )
    )
    if (said := gold_words(workspace, found)) is not None:
        st.text(said)
    ids = [row.id for row in found.suspects]
    if st.button(f"Relabel these {len(ids)}", key="relabel_suspects", icon=":material/edit_note:", type="primary"):
        st.session_state[state.SUSPECTS] = ids
        state.select(row=ids[0], run=None)
        st.rerun()
    images, content = contents.has_images(workspace), workspace.dataset.modality
    rows = [
        {
            "rank": row.rank,
            "score": row.score,
            "label": row.label,
            "gold": f"⚑ gold says {row.gold}" if row.gold not in (None, row.label) else row.gold,
            content: pictures.data_url(workspace, row.id) if images else " ".join(row.text.split()),
            "id": row.id,
            "note": "label changed since" if row.stale else "",
        }
        for row in found.suspects
    ]
    shown = pd.DataFrame(rows, columns=[name for name in COLUMNS if name not in ("text", "image") or name == content])
    if not found.stale:
        shown = shown.drop(columns="note")
    if "gold" not in workspace.train:
        shown = shown.drop(columns="gold")
    st.dataframe(
        shown,
        hide_index=True,
        height=480,
        row_height=60 if images else None,
        column_config=COLUMNS,
        key="suspects_table",
        alt="Suspects, in their order",
    )


def gold_words(workspace: Workspace, found: Suspects) -> str | None:
    """Compare how many labels gold contradicts among the suspects and among all rows; None where no gold is known."""
    if "gold" not in workspace.train or not found.suspects:
        return None
    flagged = sum(row.gold != row.label for row in found.suspects)
    of_all = float((workspace.train["gold"].to_numpy() != workspace.labels().values).mean())
    count = len(found.suspects)
    return f"{flagged} of these {count} labels differ from gold ({percent(flagged / count)}); {percent(of_all)} of all."
