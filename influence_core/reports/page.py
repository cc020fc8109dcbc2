"""One HTML page that needs nothing but itself: styles, plotly.js and figures inside, every text escaped."""

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from influence_core.charts import OPPONENT, PROPONENT, alt_text

STYLE = f"""
:root {{ color-scheme: light dark; --ink: #1b1f24; --quiet: #5a6470; --paper: #fff; --line: #d5dae0; --box: #f4f6f8;
  --pro: {PROPONENT}; --opp: {OPPONENT}; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e8eaed; --quiet: #a4adb8; --paper: #14171b; --line: #3a424c;
  --box: #1f242a; }} }}
* {{ box-sizing: border-box; }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 704px;
  margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; }}
h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }}
h3 {{ font-size: 1rem; margin: 1.2rem 0 .4rem; }}
.quiet, caption {{ color: var(--quiet); font-size: .87rem; }}
caption {{ text-align: left; caption-side: bottom; padding-top: .3rem; }}
.box {{ background: var(--box); border: 1px solid var(--line); border-radius: 6px; padding: .7rem .9rem;
  margin: .8rem 0; }}
.warn {{ border-left: 4px solid var(--opp); }}
.data {{ white-space: pre-wrap; }}
table {{ width: 100%; border-collapse: collapse; font-size: .87rem; }}
th, td {{ text-align: left; vertical-align: top; padding: .3rem .5rem .3rem 0; border-bottom: 1px solid var(--line);
  min-width: 4.9rem; }}
th {{ color: var(--quiet); font-weight: 600; }}
.number {{ text-align: right; white-space: nowrap; min-width: 2.6rem; font-variant-numeric: tabular-nums; }}
.facts th {{ width: 11rem; }}
.bar {{ width: 4rem; }}
.bar div {{ height: .7rem; margin-top: .35rem; border-radius: 2px; min-width: 2px; print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }}
.pro {{ background: var(--pro); }}
.opp {{ background: var(--opp); }}
pre {{ white-space: pre-wrap; font: .82rem/1.45 ui-monospace, monospace; margin: .4rem 0; }}
figure {{ margin: .8rem 0; break-inside: avoid; }}
figure .svg-container text {{ fill: var(--ink) !important; }}
figure .hoverlayer text {{ fill: #fff !important; }}
img {{ max-width: 100%; image-rendering: pixelated; vertical-align: middle; }}
tr, .box {{ break-inside: avoid; }}
h2, h3 {{ break-after: avoid; }}
@media print {{ :root {{ color-scheme: light; --ink: #000; --quiet: #444; --paper: #fff; --line: #bbb;
  --box: #f4f6f8; }} body {{ margin: 0 auto; }} }}
"""
# No template: its colours are one theme's. The legend stands below the axis' title, which has no theme to make room.
LAYOUT = {"template": "none", "height": 350, "legend": {"y": -0.34}}
DRAW = """
const figures = JSON.parse(document.getElementById("figures").textContent);
for (const [id, figure] of Object.entries(figures)) {
  Plotly.newPlot(id, figure.data, figure.layout, {displayModeBar: false, responsive: true});
}
"""


@dataclass(frozen=True)
class Markup:
    """Text that is HTML already; everything else is escaped where it is put in."""

    html: str


Part = str | Markup


def inside(part: Part) -> str:
    """Return a part as HTML: a text escaped, markup as it is."""
    return part.html if isinstance(part, Markup) else html.escape(part)


def element(name: str, *parts: Part, **attributes: str) -> Markup:
    """Return an element; an attribute's trailing underscore is dropped (``class_``), its value escaped."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{given}>{''.join(inside(part) for part in parts)}</{name}>")


def image(url: str, alt: str) -> Markup:
    """Return an image that is in its address (``data:``)."""
    return Markup(f'<img src="{html.escape(url)}" alt="{html.escape(alt)}">')


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Part]], numbers: Sequence[str] = (), note: str = ""
) -> Markup:
    """Return a table; the columns in ``numbers`` are right-aligned, ``note`` is its caption."""
    classes = [{"class_": "number"} if column in numbers else {} for column in columns]
    head = element("tr", *(element("th", column, **own) for column, own in zip(columns, classes, strict=True)))
    body = (
        element("tr", *(element("td", cell, **own) for cell, own in zip(row, classes, strict=True))) for row in rows
    )
    caption = [element("caption", note)] if note else []
    return element("table", *caption, element("thead", head), element("tbody", *body))


def pairs(items: Iterable[tuple[str, str]]) -> Markup:
    """Return a table of names and values."""
    rows = (element("tr", element("th", name), element("td", value)) for name, value in items)
    return element("table", *rows, class_="facts")


def chart(name: str, figure: go.Figure) -> Markup:
    """Return the place of a figure, with what it shows in words."""
    return element("figure", element("div", id=name), role="img", aria_label=alt_text(figure))


def page(title: str, body: Iterable[Markup], figures: Mapping[str, go.Figure]) -> str:
    """Return the whole page.

    Its policy lets nothing be fetched and no other script run than plotly.js and the drawing of ``figures``
    (whose places are `chart`'s), both known by their hashes. Source: https://www.w3.org/TR/CSP3/.
    """
    plotly = get_plotlyjs()
    allowed = " ".join(_hash(script) for script in (plotly, DRAW))
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        element("title", title).html,
        f"<style>{STYLE}</style></head><body>",
        *(part.html for part in body),
        f'<script type="application/json" id="figures">{_json(figures)}</script>',
        f"<script>{plotly}</script>",
        f"<script>{DRAW}</script>",
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _json(figures: Mapping[str, go.Figure]) -> str:
    """Return the figures as JSON in which no tag can begin or end."""
    drawn = {name: go.Figure(figure).update_layout(LAYOUT) for name, figure in figures.items()}
    found = ", ".join(f'"{name}": {figure.to_json()}' for name, figure in drawn.items())
    return "{" + found.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026") + "}"


def _hash(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"
