"""Plotly figures from plain tables and steps, for pages, command line and docs alike."""

from influence_core.charts.confusion import confusion, confusion_counts
from influence_core.charts.correction import divergence, find_flip, loss, probability, retention
from influence_core.charts.correction_methods import correction_methods, correction_outcome
from influence_core.charts.correction_study import correction_retention, correction_steps, correction_success
from influence_core.charts.fading import contains_zero, fading, fading_distance, powerless
from influence_core.charts.fading_course import (
    VERDICT_REPEATS,
    course,
    divergence_so_far,
    noise_so_far,
    rows_so_far,
)
from influence_core.charts.forecast import forecast
from influence_core.charts.phases import phases, tracin_error
from influence_core.charts.precision import precision
from influence_core.charts.predicted import parting
from influence_core.charts.retrained import retrained
from influence_core.charts.solver import Solve, curvatures, residual_history
from influence_core.charts.spectrum import spectrum
from influence_core.charts.theme import OPPONENT, PROPONENT, alt_text, inert, number, percent, standalone
from influence_core.charts.trust import trust

__all__ = [
    "OPPONENT",
    "PROPONENT",
    "VERDICT_REPEATS",
    "Solve",
    "alt_text",
    "confusion",
    "confusion_counts",
    "contains_zero",
    "correction_methods",
    "correction_outcome",
    "correction_retention",
    "correction_steps",
    "correction_success",
    "course",
    "curvatures",
    "divergence",
    "divergence_so_far",
    "fading",
    "fading_distance",
    "find_flip",
    "forecast",
    "inert",
    "loss",
    "noise_so_far",
    "number",
    "parting",
    "percent",
    "phases",
    "powerless",
    "precision",
    "probability",
    "residual_history",
    "retention",
    "retrained",
    "rows_so_far",
    "spectrum",
    "standalone",
    "tracin_error",
    "trust",
]
