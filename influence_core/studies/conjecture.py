"""Does faster divergence of parameters go with faster fading of influence (paper, App. G.1)?"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from influence_core.errors import UserError

SAME = ("workspace", "checkpoint", "scope", "optimizer", "learning_rate", "batch_size", "seed")
CONTROLS = ("embedding", "random")  # what they do not predict cannot fade
FEWEST = 3  # models of a rank correlation
UNITS = ("step", "lr")  # steps, and Σ η


def conjecture(files: Sequence[Path]) -> dict[str, Any]:
    """Return a row for each fading study that has a divergence study of the same setting, and rank correlations.

    Takes files of ``study … --out``. Rows, one a method but for controls: ``model`` and the fields of
    `SAME`; ``slope_lr`` and ``slope_step``, of log ‖θ_ε − θ_0‖ in the second phase, per Σ η and per step,
    the median over ε and repeats; ``span_step`` and ``span_lr``, from the peak of R to ``faded_at``, null if
    it never faded. ``spearman`` holds per method and unit ``r`` over ``models`` (`rank_correlation`), null
    for fewer than 3; negative is what G.1 conjectures. Per Σ η the one carries 1/η and the other η, so
    models with other learning rates show it by that alone: per step is the fair comparison. ``unpaired``
    names studies without their other one.

    Raises:
        UserError: a file that is no such record, two of the same study, or no setting with both.
    """
    studies: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {"fading": {}, "divergence": {}}
    for file in files:
        kind, value = _read(file)
        key = tuple(value[name] for name in SAME)
        if key in studies[kind]:
            raise UserError(f"{file}: a second {kind} study of {_words(key)}: give one of them")
        studies[kind][key] = value
    both = studies["fading"].keys() & studies["divergence"].keys()
    odd = [f"{kind} of {_words(key)}" for kind, own in studies.items() for key in own if key not in both]
    if not both:
        raise UserError(
            f"no fading study has a divergence study of the same setting (there are {', '.join(odd) or 'no files'}): "
            "run both with the same --optimizer, --learning-rate, --batch-size, --seed and --scope"
        )
    found = (_rows(key, own, studies["divergence"][key]) for key, own in studies["fading"].items() if key in both)
    rows = list(chain.from_iterable(found))
    return {"rows": rows, "spearman": list(_correlations(rows)), "unpaired": odd}


def rank_correlation(rows: Sequence[Mapping[str, Any]], unit: str) -> tuple[float | None, int]:
    """Return Spearman's r of divergence slope and fading span over rows, and how many of them it is of.

    One that never faded ranks behind all that did, if it was followed for longer than the longest of
    them; otherwise nothing is known of its place and it is left out.
    """
    known = [row for row in rows if row[f"slope_{unit}"] is not None]
    longest = max((row[f"span_{unit}"] for row in known if row[f"span_{unit}"] is not None), default=None)
    if longest is None:
        return None, 0
    used = [row for row in known if row[f"span_{unit}"] is not None or row[f"followed_{unit}"] > longest]
    spans = [np.inf if row[f"span_{unit}"] is None else row[f"span_{unit}"] for row in used]
    table = pd.DataFrame({"slope": [row[f"slope_{unit}"] for row in used], "span": spans}).rank()
    if len(used) < FEWEST or (table.nunique() == 1).any():
        return None, len(used)
    return float(table["slope"].corr(table["span"])), len(used)


def _read(file: Path) -> tuple[str, dict[str, Any]]:
    """Return a record's kind and value."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}): give files that studies wrote with --out") from None
    kind = record.get("spec", {}).get("kind") if isinstance(record, dict) else None
    if kind not in ("fading", "divergence"):
        raise UserError(f"{file} is of no fading or divergence study: give files that these wrote with --out")
    value = record["value"]
    if missing := [name for name in SAME if name not in value]:
        raise UserError(f"{file} does not say its {missing[0]}: run its study again with --out")
    return kind, dict(value)


def _rows(key: tuple[Any, ...], fading: Mapping[str, Any], divergence: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    same = dict(zip(SAME, key, strict=True))
    rate = same["learning_rate"]
    slopes = [row["fit"]["slopes"][1] for row in divergence["series"] if row["fit"] is not None]
    slope = float(np.median(slopes)) if slopes else None
    for method in fading["methods"]:
        if method["method"] in CONTROLS or method["peak"] is None:
            continue
        span = None if method["faded_at"] is None else method["faded_at"] - method["peak"]
        followed = method["steps"][-1] - method["peak"]
        yield {
            "model": f"{same['workspace']} {same['checkpoint']}",
            **same,
            "method": method["method"],
            "repeats": fading["repeats"],
            "slope_lr": slope,
            "slope_step": None if slope is None else slope * rate,
            "peak": method["peak"],
            "faded_at": method["faded_at"],
            "span_step": span,
            "span_lr": None if span is None else span * rate,
            "followed_step": followed,
            "followed_lr": followed * rate,
        }


def _correlations(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    def name(row: dict[str, Any]) -> str:
        return str(row["method"])

    for method, own in groupby(sorted(rows, key=name), name):
        mine = list(own)
        for unit in UNITS:
            r, models = rank_correlation(mine, unit)
            yield {"method": method, "per": "step" if unit == "step" else "Σ η", "r": r, "models": models}


def _words(key: tuple[Any, ...]) -> str:
    workspace, checkpoint, scope, optimizer, rate, batch_size, seed = key
    return f"{workspace} {checkpoint} {scope}, {optimizer} at {rate:g}, batch size {batch_size}, seed {seed}"
