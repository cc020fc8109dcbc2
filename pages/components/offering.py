"""What has to run before there is a ranking: its own run, or the index first, or why it cannot be."""

import streamlit as st

from influence_core.attribution.abif import Abif, has_basis
from influence_core.attribution.methods import METHODS
from influence_core.estimates import estimate
from influence_core.settings import METHOD_NAMES
from influence_core.specs import Attributed, IndexSpec, RankSpec
from influence_core.workspace import Workspace
from pages.components.guard import Context
from pages.components.running import follow_or_offer
from pages.components.text import plain

OTHER_WAY = "TracIn needs none: choose it above, or build the basis once for all test rows."


def index_state(workspace: Workspace, spec: Attributed) -> str:
    """Return "none", "shipped" (an index without its basis) or "basis" for a spec's checkpoint and settings."""
    table = Abif().table(workspace, spec)
    return "none" if table is None else "basis" if has_basis(table) else "shipped"


def unavailable(workspace: Workspace, spec: Attributed) -> str | None:
    """Return why the spec's method cannot be used, in words; None where it can."""
    if spec.method is None or (why := METHODS[spec.method].unavailable(workspace, spec)) is None:
        return None
    return f"{METHOD_NAMES[spec.method]} cannot be used here: {why}"


def offer(context: Context, spec: RankSpec) -> None:
    """Offer the run that a ranking needs: the ranking itself, or the index first; or say why there is none."""
    workspace = context.workspace
    if (why := unavailable(workspace, spec)) is not None:
        st.info(plain(why))
        return
    if spec.method == "abif":
        kept = index_state(workspace, spec)
        if kept == "none":
            which = "with these settings " if spec.settings else ""
            offer_index(context, spec, f"There is no ABIF index {which}for this checkpoint yet. {OTHER_WAY}")
            return
        if kept == "shipped":
            why = "The index has no products for this test row and label; new ones need the eigenvectors."
            offer_index(context, spec, f"{why} {OTHER_WAY}")
            return
    st.info("These scores are not computed yet.")
    follow_or_offer(spec, "Compute", estimate(workspace, spec).words, f"rank for {spec.example}", key="rank")


def offer_index(context: Context, spec: Attributed, why: str) -> None:
    """Offer to build index and basis with the spec's settings where they are an index's."""
    st.info(why)
    settings = spec.settings if spec.method == "abif" else {}
    asked = context.workspace.spec(IndexSpec, {**context.spec, **settings})
    words = estimate(context.workspace, asked).words
    follow_or_offer(asked, "Build basis", words, "build the ABIF basis and index", key="index")
