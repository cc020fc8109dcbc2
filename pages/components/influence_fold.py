"""What a training row does to the selected test row, folded away under it."""

import streamlit as st

from influence_core.rankings import Ranking
from influence_core.settings import METHOD_NAMES
from influence_core.workspace import Workspace
from pages.components import contents, pictures
from pages.components.text import signed


def influence_fold(workspace: Workspace, row: str, ranking: Ranking | None) -> None:
    """Show, folded away, what the row does to the selected example."""
    with st.expander("What it influences"):
        if ranking is None:
            st.caption("No ranking of a selected example is at hand.")
            return
        if contents.has_images(workspace):
            alt = f"test row {ranking.example}"
            pictures.picture(workspace, ranking.example, pictures.ROW, alt)
        for name, rows in (("proponent", ranking.proponents), ("opponent", ranking.opponents)):
            for found in rows:
                if found.id == row:
                    word = "supports" if found.score > 0 else "opposes"
                    st.text(
                        f"It {word} the label {ranking.target} for test row {ranking.example}: {name} {found.rank} of "
                        f"{ranking.rows:,} rows by {METHOD_NAMES[ranking.method]}, cosine {signed(found.cosine)}, "
                        f"score {signed(found.score)} ({found.percentile:.2f} % of the rows stand behind it)."
                    )
                    if found.stale:
                        st.caption(":material/history: Its label changed since the scores were made.")
                    return
        st.text(f"It is not among the top proponents or opponents of test row {ranking.example}.")
