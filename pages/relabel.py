"""Relabel: one training row at a time, confirmed or changed, with who and when."""

import streamlit as st

from influence_core.labels import LabelStore
from influence_core.rankings import Ranking
from influence_core.specs import RankSpec
from pages.components import contents, labelling, pictures, ranking_choice, state
from pages.components.errors import show_error, shown_errors
from pages.components.guard import Context, guard
from pages.components.influence_fold import influence_fold
from pages.components.label_buttons import label_buttons, saved_strip
from pages.components.label_history import export_menu, history_table
from pages.components.relabel_list import relabel_list
from pages.components.relabel_queue import Queue
from pages.components.relabel_source import SUSPECTS, leave, pick_source
from pages.components.suspects_list import suspects_side


def find_ranking(context: Context) -> Ranking | None:
    """Return the selected example's ranking if it is at hand; never computes one."""
    if context.example is None:
        return None
    ranking: Ranking | None = None
    with shown_errors():
        options = {**context.spec, **ranking_choice.chosen(), "example": context.example}
        ranking = context.workspace.ready(context.workspace.spec(RankSpec, options))
    return ranking


def selected_row(context: Context) -> str | None:
    """Return the training row named by the URL; another id is said and dropped."""
    row = state.selected(state.ROW)
    if row is None:
        return None
    with shown_errors():
        split, _ = context.workspace.locate(row)
        if split == "train":
            return row
        show_error(f"example {row!r} is in {split}: only training rows are relabelled")
    state.select(row=None)
    return None


def nothing_to_do(context: Context) -> None:
    """Say why there is no row, and where to find one."""
    if context.example is None:
        st.info("No rows to look at yet: choose a misprediction, then open its proponents here.")
        st.page_link("pages/mispredictions.py", label="Mispredictions", query_params=state.url())
    else:
        st.info("The proponents of the selected example are not at hand: rank the training rows on Influence first.")
        st.page_link("pages/influence.py", label="Influence", query_params=state.url())


def one_row(context: Context, row: str, queue: Queue, shown: str, ranking: Ranking | None) -> None:
    """Show the row, the question, the buttons and the folds."""
    workspace = context.workspace
    example = workspace.example(row)
    with st.container(border=True, key="row_card"):
        st.caption("Training row")
        st.text(f"{row} · label now: {shown}")
        with st.container(border=True, horizontal_alignment="center" if contents.has_images(workspace) else "left"):
            contents.show_content(workspace, row, alt=f"training row, labelled {shown}", side=pictures.LARGE)
        st.subheader("Is this label correct?", anchor=False)
        label_buttons(workspace, row, shown, queue.after(row))
    influence_fold(workspace, row, ranking)
    if "gold" in example:
        with st.expander("Gold label (look at it after you decided)"):
            st.text(f"gold: {workspace.label_names[int(example['gold'])]}")
    history = LabelStore().history(workspace.data_fingerprint, row)
    with st.expander(f"History of this row ({len(history)})", expanded=bool(history)):
        history_table(history)


def main() -> None:
    """Lay out the page."""
    context = guard("Relabel")
    workspace = context.workspace
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            "Your name",
            key=state.ANNOTATOR,
            max_chars=80,
            persist_state="session",
            width=260,
            help="typed once a session; recorded with every decision as typed, not verified",
        )
        export_menu(workspace)
    if (refusal := labelling.refusal()) is not None:
        show_error(refusal)
    saved_strip()
    source = pick_source()
    row = selected_row(context)
    ranking = find_ranking(context)
    ids = state.handed_over(context.example) if context.example else []
    ids = ids or ([found.id for found in ranking.proponents] if ranking else [])
    if source == SUSPECTS:
        ids = list(st.session_state.get(state.SUSPECTS, []))
        if not ids:
            with shown_errors():
                suspects_side(context)
            return
        st.button("Back to the list of suspects", icon=":material/arrow_back:", key="suspects_back", on_click=leave)
    if row is not None and row not in ids:
        ids = [row]
    if not ids:
        nothing_to_do(context)
        return
    verdicts = LabelStore().reviewed(workspace.data_fingerprint)
    queue = Queue.of(ids, verdicts.keys())
    row = row or queue.first() or queue.ids[0]
    values = workspace.labels().values
    places = workspace.places(queue.ids)
    labels = {example: workspace.label_names[int(values[places[example][1]])] for example in queue.ids}
    left, right = st.columns([2, 1], gap="medium")
    with left:
        one_row(context, row, queue, labels[row], ranking)
    with right:
        st.progress(queue.done / len(queue.ids), text=queue.words())
        if queue.done == len(queue.ids):
            st.success("Every row of this list is reviewed.", icon=":material/task_alt:")
        with st.container(height=560, border=False):
            relabel_list(workspace, queue, row, verdicts, labels)
    st.caption(
        "Decisions go into the log of label events, never into the data. To *try out* what another label would do, "
        "use Correct: it sets rows to the desired label in its own experiment and writes no label."
    )


main()
