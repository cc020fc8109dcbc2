"""What pydantic found wrong with a spec, in one line."""

import math
from typing import Any

from pydantic import ValidationError

KINDS = (
    "open",
    "check",
    "predict",
    "index",
    "rank",
    "explain",
    "suspects",
    "correct",
    "correct-set",
    "stability",
    "fading",
    "divergence",
    "tracin-error",
    "horizon",
    "forecast",
    "correction",
    "mislabelled",
    "retrain",
)
LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _whole(limit: Any) -> Any:
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit


def one_line(error: ValidationError) -> str:
    """Say the first thing that pydantic found wrong, with the value, in one line."""
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    if location and location[0] in KINDS:  # the union's tag, which no user typed
        location = location[1:]
    name = ".".join(location)
    message = first["msg"].removeprefix("Value error, ")
    given = first.get("ctx", {})
    limits = {f"give {word} {_whole(given[key])}" for key, word in LIMITS.items() if key in given}
    if limits:
        message = " and ".join(sorted(limits))
    elif first["type"] == "literal_error":
        message = f"choose one of {first['ctx']['expected']}"
    value = first.get("input")
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name} must be a finite number, got {value}: give a finite value"
    if name and not isinstance(value, dict):
        return f"{name} = {value!r}: {message}"
    return f"{name}: {message}" if name else message
