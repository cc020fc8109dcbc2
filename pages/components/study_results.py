"""What a study without a page of its own found, shown where runs are opened: its figure and its table."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from influence_core import charts
from influence_core.runs.directory import RunDirectory
from pages.components import running, state
from pages.components.retrain_result import retrain_rows, retrain_summary
from pages.components.run_words import kind_word
from pages.components.text import plain

STUDIES = ("divergence", "tracin-error", "stability", "correction", "mislabelled", "retrain")
TITLES = {
    "divergence": "How far training on a perturbed loss leads away",
    "tracin-error": "How much more TracIn's Jacobian (Eq. 2) errs than the exact one (Eq. 6)",
    "stability": "How much ABIF's rankings depend on the rows of the Hessian",
    "correction": "How often corrections succeed, by strategy and share of the batch",
    "mislabelled": "Which order finds truly mislabelled training rows",
    "retrain": "What becomes of mispredictions when the model is trained again with their relabels",
}


def study_result(run: RunDirectory) -> None:
    """Show a study's run: live, with why it ended, or with what it found."""
    record = run.record()
    with st.container(border=True, key="study"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.subheader(TITLES[record.kind], anchor=False, width="stretch")
            st.button("Close", key="study_close", icon=":material/close:", on_click=_close)
        st.caption(plain(f"{kind_word(record.kind)} · {record.workspace} · {record.what}".rstrip(" ·")))
        found = running.follow(run)
        value = running.result_of(run) if found.state == "finished" else None
        if value is not None:
            _show(record.kind, value)


def _show(kind: str, value: dict[str, Any]) -> None:
    if kind == "divergence":
        _figure(charts.phases(value["series"]))
    elif kind == "tracin-error":
        _figure(charts.tracin_error(value["series"]))
    elif kind == "correction":
        makers = (charts.correction_outcome, charts.correction_retention, charts.correction_steps)
        for tab, maker in zip(st.tabs(["Corrected", "Retention", "Steps"]), makers, strict=True):
            with tab:
                _figure(maker(value["cells"]), maker.__name__)
    elif kind == "mislabelled":
        _figure(charts.precision(value["precision"]))
    elif kind == "retrain":
        _figure(charts.retrained(value["summary"]))
        retrain_summary(value)
    rows = ROWS[kind](value)
    if rows:
        st.dataframe(pd.DataFrame(rows), hide_index=True, key="study_table", alt=TITLES[kind])
    else:
        st.info("It ended before its first repeat was finished: start it again, it goes on with what is kept.")


def _figure(figure: go.Figure, name: str = "chart") -> None:
    st.plotly_chart(figure, key=f"study_{name}", config={"displayModeBar": False}, alt=charts.alt_text(figure))


def _divergence(value: dict[str, Any]) -> list[dict[str, Any]]:
    def fitted(row: dict[str, Any]) -> dict[str, Any]:
        fit = row["fit"]
        if fit is None:
            return {"best described by": "too few steps for a fit"}
        first, second = fit["slopes"]
        return {
            "slope 1": first,
            "slope 2": second,
            "R² of phase 2": fit["r2"][1],
            "bend at Σ η": fit["breakpoint"],
            "best described by": fit["best"],
        }

    def bounded(row: dict[str, Any]) -> dict[str, Any]:
        if (reason := row.get("bounds_unavailable")) is not None:
            return {"bound (8)": f"none: {reason}"}
        if not row.get("bound"):
            return {}
        return {"bound (8)": shown(row["bound"][-1]), "product form of the bound": shown(row["bound_tight"][-1])}

    def shown(number: float | None) -> str:
        return "beyond any number" if number is None else charts.number(number)

    return [
        {"repeat": row["repeat"] + 1, "ε": row["epsilon"], "last distance": row["divergence"][-1]}
        | bounded(row)
        | fitted(row)
        for row in value["series"]
    ]


def _tracin_error(value: dict[str, Any]) -> list[dict[str, Any]]:
    last = {"error_eq2": "Eq. 2 errs by", "error_eq6": "Eq. 6 errs by", "ratio": "ratio"}
    return [
        {"repeat": row["repeat"] + 1, "precision": row["dtype"], "ε": row["epsilon"]}
        | {name: row[field][-1] for field, name in last.items()}
        for row in value["series"]
    ]


def _stability(value: dict[str, Any]) -> list[dict[str, Any]]:
    def both(pair: Sequence[int]) -> str:
        return " / ".join(map(str, pair))

    return [
        {
            "Hessian rows": both(pair["rows"]),
            "seeds": both(pair["seeds"]),
            f"share of the top {value['top']} in common": pair["overlap"],
            "rank correlation (Spearman)": pair["spearman"],
        }
        for pair in value["pairs"]
    ]


def _correction(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "strategy": row["strategy"],
            "method": row["method"] or "–",
            "order": row["by"] or "–",
            "share of the batch": row["share"],
            "mispredictions": row["mispredictions"],
            "corrected": row["success"]["value"],
            "at least": row["success"]["low"],
            "at most": row["success"]["high"],
            "retention": row["retention"]["value"],
            "retention at the flip": row.get("retention_at_flip", {}).get("value"),
            "retention at the last step, without a flip": row.get("retention_at_last", {}).get("value"),
            "mean steps": row["steps"]["value"],
            "flipped by themselves": row["by_itself"]["value"],
        }
        for row in value["cells"]
        if row["mispredictions"]
    ]


def _mislabelled(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"order": " ".join(filter(None, (row["order"], row["method"])))}
        | {f"share of the first {each['k']}": each["value"] for each in row["precision"]}
        for row in value["precision"]
    ]


ROWS = {
    "divergence": _divergence,
    "tracin-error": _tracin_error,
    "stability": _stability,
    "correction": _correction,
    "mislabelled": _mislabelled,
    "retrain": retrain_rows,
}


def _close() -> None:
    state.select(run=None)
