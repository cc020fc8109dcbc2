"""Runs in words: state and kind with an icon, length, pace."""

from influence_core.charts import number
from influence_core.runs.state import RunState
from pages.components.running import WORDS
from pages.components.text import duration

ICONS = {
    "pending": ":material/hourglass_top:",
    "running": ":material/play_circle:",
    "finished": ":material/check_circle:",
    "failed": ":material/error:",
    "killed": ":material/cancel:",
    "crashed": ":material/warning:",
}
KINDS = {"check": "Check", "open": "Open", "predict": "Predict", "index": "Index", "rank": "Rank"}
KINDS |= {"explain": "Explain all", "suspects": "Suspects", "correct": "Correct", "correct-set": "Correct together"}
KINDS |= {"fading": "Fading", "divergence": "Divergence", "tracin-error": "TracIn's error", "stability": "Stability"}
KINDS |= {"horizon": "Trust", "forecast": "Forecast"}
KINDS |= {"correction": "Correction study", "mislabelled": "Mislabelled rows", "retrain": "Retraining"}


def state_word(state: RunState) -> str:
    """Return the state in a word."""
    return "Cancelling" if state.cancelling else WORDS[state.state].capitalize()


def kind_word(kind: str) -> str:
    """Return the kind of a run in a word; a kind from outside keeps its own name."""
    return KINDS.get(kind, kind)


def elapsed(seconds: float | None) -> str:
    """Write how long a run took: "0.4 s", "12 s", "3 min 5 s", "2 h 10 min"; a dash before it started."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def left(done: int, total: int, seconds: float, since: int = 0) -> str:
    """Say the time left, from the units done since ``since`` in the last ``seconds``; empty if unknown."""
    if done <= since or seconds <= 0 or total <= done:
        return ""
    return f"about {duration((total - done) * seconds / (done - since))} left"


def rate(done: int, seconds: float, since: int = 0, unit: str = "step") -> str:
    """Say the time a unit takes, as "0.4 s a step"; empty if unknown."""
    if done <= since or seconds <= 0:
        return ""
    return f"{number(seconds / (done - since))} s a {unit}"
