"""Texts from data and people inside Markdown, so that they stay texts."""

import re
from collections.abc import Sequence


def code(text: str) -> str:
    """Return a text as a code span, on one line: nothing in it is Markdown or HTML."""
    flat = " ".join(text.split()) or " "
    ticks = "`" * (_longest(flat) + 1)
    pad = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{ticks}{pad}{flat}{pad}{ticks}"


def fenced(text: str, language: str) -> str:
    """Return a block of code that no line of the text can close."""
    fence = "`" * max(3, _longest(text) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def cell(text: str) -> str:
    """Return a code span for a cell of a table, where a bar would end the cell even in code."""
    return code(text).replace("|", "\\|")


def listed(ids: Sequence[str], most: int) -> str:
    """Return ids as code spans, the first ``most`` of them and how many more there are."""
    shown = ", ".join(code(each) for each in ids[:most])
    more = f" and {len(ids) - most:,} more" if len(ids) > most else ""
    return f"{shown}{more}" if ids else "none"


def _longest(text: str) -> int:
    """Return the length of the longest run of backticks."""
    return max((len(run) for run in re.findall("`+", text)), default=0)
