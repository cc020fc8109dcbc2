"""Plotly figures from plain tables and steps, for pages, command line and docs alike."""

from influence_core.charts.confusion import confusion, confusion_counts
from influence_core.charts.correction import divergence, find_flip, loss, probability, retention
from influence_core.charts.fading import fading, fading_distance
from influence_core.charts.phases import phases, tracin_error
from influence_core.charts.solver import Solve, curvatures, residual_history
from influence_core.charts.spectrum import spectrum
from influence_core.charts.theme import OPPONENT, PROPONENT, alt_text, inert, number, percent

__all__ = [
    "OPPONENT",
    "PROPONENT",
    "Solve",
    "alt_text",
    "confusion",
    "confusion_counts",
    "curvatures",
    "divergence",
    "fading",
    "fading_distance",
    "find_flip",
    "inert",
    "loss",
    "number",
    "percent",
    "phases",
    "probability",
    "residual_history",
    "retention",
    "spectrum",
    "tracin_error",
]
