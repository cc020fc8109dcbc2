"""Texts from data made safe and short for the screen."""

import re
from datetime import UTC, datetime

from influence_core.charts import number

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~:$&@/])")


def plain(text: str) -> str:
    """Escape a text for a place that reads Markdown, so that it shows as it is, on one line.

    Labels, help, captions, badges, alerts and the options of radios, pills and segmented controls read
    Markdown; the options of select boxes do not.
    """
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def first_words(text: str, length: int = 70) -> str:
    """Return the beginning of a text on one line, cut at a word."""
    flat = " ".join(text.split())
    if len(flat) <= length:
        return flat
    return flat[:length].rsplit(" ", 1)[0].rstrip(",;:. ") + "…"


def signed(value: float) -> str:
    """Write a number with its sign and three significant digits ("+0.61", "−0.0234")."""
    return ("+" if value > 0 else "−" if value < 0 else "±") + number(abs(value))


def duration(seconds: float) -> str:
    """Write a length of time ("41 s", "12 min", "3.2 h")."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def ago(moment: str | datetime) -> str:
    """Write how long ago a moment was ("3 days ago"); moments without a zone are UTC."""
    then = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    seconds = (datetime.now(UTC) - then).total_seconds()
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"
