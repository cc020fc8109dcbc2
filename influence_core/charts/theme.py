"""The one place with colours, and what all charts share: layout, titles in words, inert texts, numbers."""

import html
import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

# Blue and orange of Okabe & Ito's palette for colour-blind readers (https://jfly.uni-koeln.de/color/).
# Both, and the grey, keep a contrast of 3 : 1 against white and against Streamlit's dark background.
PROPONENT = "#0072B2"  # blue: always with a plus sign and a word
OPPONENT = "#D55E00"  # orange: always with a minus sign and a word
NEUTRAL = "#808080"  # controls and base trajectories
PREDICTED = "#6C8EAD"  # a quiet blue: what is predicted of the blue curve
GRID = "rgba(128, 128, 128, 0.25)"
TRANSPARENT = "rgba(0, 0, 0, 0)"
# More lines than two, also of Okabe and Ito: told apart by dash as well, because some are close in grey.
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#A6761D")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
# Counts carry no sign, so neither colour of the pair; opaque, so that plotly can choose readable cell texts.
COUNTS = ((0.0, "#EEF1F3"), (1.0, "#46545F"))

MAX_POINTS = 2_000  # points drawn in one trace
_TITLE_WIDTH, _WIDE_TITLE = 52, 120  # characters a line on a page and in a file; plotly does not wrap titles


def inert(text: str) -> str:
    """Escape a text so that plotly shows it as it is: no tags, links, entities or TeX.

    Plotly reads a subset of HTML in every title, label and hover text, and TeX between dollar signs
    (https://plotly.com/chart-studio-help/adding-HTML-and-links-to-charts/).
    """
    return html.escape(text, quote=False).replace("$", "&#36;")


def label(name: str, length: int = 40) -> str:
    """Return a class name on one line and short enough for a title, not yet escaped."""
    flat = " ".join(name.split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"


def number(value: float) -> str:
    """Write a number with three significant digits ("0.0123", "1,230", "4.56e-07")."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    if not 1e-4 <= abs(rounded) < 1e7:
        return f"{rounded:.3g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(rounded))))
    written = f"{rounded:,.{decimals}f}"
    return written.rstrip("0").rstrip(".") if "." in written else written


def percent(share: float) -> str:
    """Write a share as "94 %" with three significant digits."""
    return f"{number(100 * share)} %" if math.isfinite(share) else number(share)


def intervals(shares: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return error bars from ``low`` to ``high`` around ``value``, of one or more points."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [share["high"] - share["value"] for share in shares],
        "arrayminus": [share["value"] - share["low"] for share in shares],
        "thickness": 1,
        "width": 3,
    }


def ranged(share: Mapping[str, Any]) -> str:
    """Write a share with its interval and how many it is of ("40 % (30 % to 50 %), n = 30")."""
    return f"{percent(share['value'])} ({percent(share['low'])} to {percent(share['high'])}), n = {share['n']}"


def styled(figure: go.Figure, title: str, alt: str, *, x: str, y: str, revision: str = "") -> go.Figure:
    """Apply the shared layout and return the figure.

    No text colour is set, so the page's theme applies, light or dark. ``title`` and ``alt`` are plain
    text, kept in ``layout.meta``; the title is drawn escaped and wrapped. ``revision`` (a run's id,
    say) keeps zoom and legend choices while a live chart is redrawn.
    """
    figure.update_layout(
        **_titled(title, _TITLE_WIDTH),
        meta={"title": title, "alt": alt},
        paper_bgcolor=TRANSPARENT,
        plot_bgcolor=TRANSPARENT,
        legend={"orientation": "h", "yanchor": "top", "y": -0.25, "x": 0},
        hovermode="closest",
        uirevision=revision or None,
        height=320,
    )
    figure.update_xaxes(title_text=x, automargin=True, gridcolor=GRID, zeroline=False)
    figure.update_yaxes(title_text=y, automargin=True, gridcolor=GRID, zeroline=False)
    return figure


def _titled(title: str, width: int) -> dict[str, Any]:
    lines = [inert(line) for line in textwrap.wrap(title, width)] or [""]
    return {
        "title": {"text": "<br>".join(lines), "x": 0, "xanchor": "left", "font": {"size": 15}},
        "margin": {"l": 8, "r": 8, "t": 28 + 20 * len(lines), "b": 8},
    }


def standalone(figure: go.Figure) -> go.Figure:
    """Lay a figure out for a file of its own: wide, on white, its title in long lines; returns it."""
    figure.update_layout(**_titled(figure.layout.meta["title"], _WIDE_TITLE), paper_bgcolor="white", width=1000)
    return figure


def words(title: str, revision: str = "") -> go.Figure:
    """Return a figure without data that says why in words."""
    figure = styled(go.Figure(), title, f"Empty chart: {title}.", x="", y="", revision=revision)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


def alt_text(figure: go.Figure) -> str:
    """Return the one sentence that describes a figure of this room, as plain text."""
    return str(figure.layout.meta["alt"])


def thin(length: int, keep: Collection[int] = (), limit: int = MAX_POINTS) -> list[int]:
    """Return at most ``limit`` positions out of ``length``: evenly spaced, with both ends and ``keep``."""
    if length <= limit:
        return list(range(length))
    wanted = {0, length - 1, *(position for position in keep if 0 <= position < length)}
    spaced = limit - len(wanted)
    return sorted(wanted | {round(i * (length - 1) / (spaced - 1)) for i in range(spaced)})
