"""A correction's charts and the rows it changed, from what was read of its events."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from influence_core import charts
from influence_core.charts.correction_set import set_figures
from influence_core.events import AnyStep, SetStep, Step
from influence_core.runs.directory import RunDirectory
from influence_core.specs import Correcting, Split
from influence_core.workspace import Workspace
from pages.components.contents import cell

MOST_ROWS, FEW_ROWS = 500, 6  # listed in one table; shown without scrolling
SPLIT: Split = "test"  # of the retention rows, and of those that are compared as a whole
PREDICTED = ("probability", "loss")  # what influence may predict
CHARTS: dict[str, Callable[..., go.Figure]] = {
    "probability": charts.probability,
    "loss": charts.loss,
    "divergence": charts.divergence,
    "retention": charts.retention,
}


def draw(revision: str, steps: Sequence[Step], desired: str) -> None:
    """Draw the four charts, always with the same keys, so that a redraw of one ``revision`` keeps zoom and legend.

    Under the first two a caption says until when what influence predicted held, where it did.
    """
    flip = charts.find_flip(steps, desired)
    for pair in (PREDICTED, ("divergence", "retention")):
        for column, name in zip(st.columns(2, gap="medium"), pair, strict=True):
            figure = CHARTS[name](steps, desired, flip, revision=revision)
            with column.container(border=True):
                st.plotly_chart(
                    figure,
                    key=f"correct_chart_{name}",
                    config={"displayModeBar": False},
                    alt=charts.alt_text(figure),
                )
        if pair == PREDICTED and (said := charts.parting(steps)):
            st.caption(said)
    if steps and (loss := steps[-1].validation_loss) is not None and (first := steps[0].validation_loss) is not None:
        at = f"{charts.number(loss)} at step {steps[-1].step}, {charts.number(first)} at step 0"
        st.caption(f"Mean loss on the validation rows: {at}.")


def draw_set(revision: str, steps: Sequence[SetStep], desired: Mapping[str, str]) -> None:
    """Draw the four charts of a correction of several rows; ``desired`` are the labels by example."""
    places = [*st.columns(2, gap="medium"), *st.columns(2, gap="medium")]
    for column, (name, figure) in zip(places, set_figures(steps, desired, revision).items(), strict=True):
        with column.container(border=True):
            st.plotly_chart(
                figure, key=f"set_chart_{name}", config={"displayModeBar": False}, alt=charts.alt_text(figure)
            )


def changed_rows(workspace: Workspace, spec: Correcting, run: RunDirectory, ids: Sequence[str]) -> pd.DataFrame:
    """Return id, text or image, label, prediction before and (once compared) after, of test rows."""
    names = workspace.label_names
    frame = workspace.dataset.splits[SPLIT]
    places, content = workspace.places(ids), workspace.dataset.modality
    before = _predictions(workspace.predictions(SPLIT, spec.checkpoint))
    file = run.result / "after.parquet"
    after = _predictions(pd.read_parquet(file) if file.exists() else None)
    rows = [
        {
            "id": example,
            content: cell(workspace, example),
            "label": names[int(frame["label"].iloc[places[example][1]])],
            "before": names[before[example]] if example in before else "–",
            "after": names[after[example]] if example in after else "–",
        }
        for example in ids
    ]
    return pd.DataFrame(rows, columns=["id", content, "label", "before", "after"])


def changed_table(
    workspace: Workspace, spec: Correcting, run: RunDirectory, ids: Sequence[str], key: str, alt: str
) -> None:
    """Show `changed_rows` as a table; of very many, the first."""
    table = changed_rows(workspace, spec, run, ids[:MOST_ROWS])
    columns = {"image": st.column_config.ImageColumn(width="small")}
    images = "image" in table
    st.dataframe(
        table,
        hide_index=True,
        height="content" if images and len(table) <= FEW_ROWS else "auto",
        row_height=60 if images else None,
        column_config=columns,
        key=key,
        alt=alt,
    )
    if len(ids) > MOST_ROWS:
        st.caption(f"The first {MOST_ROWS:,} of {len(ids):,}.")


def show_changed(workspace: Workspace, spec: Correcting, run: RunDirectory, step: AnyStep) -> None:
    """List the retention rows whose prediction differs from step 0."""
    count = len(step.changed)
    word = "row" if count == 1 else "rows"
    with st.expander(f"Retention rows that changed at step {step.step}: {count} {word}"):
        if count == 0:
            st.caption("All of the fixed set of test rows are predicted as before the first step.")
        else:
            changed_table(workspace, spec, run, step.changed, "changed", "Retention rows whose prediction changed")


def _predictions(frame: pd.DataFrame | None) -> dict[str, int]:
    if frame is None:
        return {}
    return dict(zip(frame["id"].astype(str), frame["prediction"].astype(int), strict=True))
