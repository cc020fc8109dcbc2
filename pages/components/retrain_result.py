"""What the study of retraining found: accuracies in a sentence, a line a strategy, a line a misprediction."""

from typing import Any

import pandas as pd
import streamlit as st

from influence_core.charts import percent
from pages.components.text import plain


def retrain_summary(value: dict[str, Any]) -> None:
    """Say what accuracy is without relabels, as far as that is trained, and show a line a strategy."""
    known = value["accuracy"]
    said = f"Test accuracy: {percent(known['checkpoint'])} as opened"
    if known["control"] is not None:
        said += f", {percent(known['control'])} trained again without relabels"
    if known["seeds"]:
        said += f" ({' and '.join(percent(each['accuracy']) for each in known['seeds'])} with other seeds)"
    st.markdown(plain(f"{said}. {value['trainings']} of {value['trainings_asked']} trainings."))
    rows = [
        {
            "strategy": row["strategy"],
            "mispredictions": row["mispredictions"],
            "flipped": row["flipped"]["value"],
            "at least": row["flipped"]["low"],
            "at most": row["flipped"]["high"],
            "flipped by themselves": row["by_itself"]["value"],
            "with other seeds": row["by_seeds"]["value"],
            "change of accuracy": row["accuracy_change"]["value"],
            "retention": row["retention"]["value"],
            "retention without relabels": row["control_retention"]["value"],
        }
        for row in value["summary"]
        if row["mispredictions"]
    ]
    if rows:
        st.dataframe(pd.DataFrame(rows), hide_index=True, key="study_summary", alt="By strategy")


def retrain_rows(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a line for each misprediction and strategy."""
    return [
        {
            "misprediction": row["example"],
            "strategy": row["strategy"],
            "desired label": row["desired"],
            "rows relabelled": row["relabelled"],
            "flipped": row["flipped"],
            "flips by itself": row["by_itself"],
            "probability before": row["probability"]["before"],
            "without relabels": row["probability"]["control"],
            "after": row["probability"]["after"],
            "accuracy": row["accuracy"]["after"],
            "retention": row["retention"]["after"],
        }
        for row in value["rows"]
    ]
