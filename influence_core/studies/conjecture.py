"""Does faster divergence of parameters go with faster fading of influence (paper, App. G.1)?"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from influence_core.errors import UserError
from influence_core.settings import CONTROLS

SAME = ("workspace", "checkpoint", "scope", "optimizer", "learning_rate", "batch_size", "seed")
TRAINED = ("dropout", "dtype")  # of the spec: what else makes the trajectories of two studies the same
FEWEST = 3  # models of a rank correlation
EPSILON = 0.1  # of the divergence that is taken, or the nearest there is
UNITS = ("step", "lr")  # steps, and Σ η


def conjecture(files: Sequence[Path]) -> dict[str, Any]:
    """Return a row for each fading study that has a divergence study of the same setting, and rank correlations.

    Takes files of ``study … --out``. Rows, one a method but for controls: ``model`` and the fields of
    `SAME`; ``slope_lr`` and ``slope_step``, of log ‖θ_ε − θ_0‖ in the second phase, per Σ η and per step,
    the median over repeats at ``epsilon``, the study's nearest to 0.1, where ``described_by`` says what fits it
    best; ``span_step`` and ``span_lr``, from the peak of R to ``faded_at``, null if
    it never faded. ``spearman`` holds per method and unit ``r`` over ``models`` (`rank_correlation`), null
    for fewer than 3; negative is what G.1 conjectures. Per Σ η the one carries 1/η and the other η, so
    models with other learning rates show it by that alone: per step is the fair comparison. ``unpaired``
    names studies without their other one, ``powerless`` methods whose band contains zero at every step.

    Raises:
        UserError: a file that is no such record, two of the same study, or no setting with both.
    """
    studies: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {"fading": {}, "divergence": {}}
    for file in files:
        kind, value = _read(file)
        key = (*(value[name] for name in SAME), *(value[name] for name in ("states", *TRAINED)))
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
    every = list(chain.from_iterable(found))
    rows = [row for row in every if not row.pop("powerless")]
    left_out = [f"{row['method']} of {row['model']}" for row in every if row not in rows]
    return {"rows": rows, "spearman": list(_correlations(rows)), "unpaired": odd, "powerless": left_out}


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
    spec, value = (record.get(name) if isinstance(record, dict) else None for name in ("spec", "value"))
    kind = spec.get("kind") if isinstance(spec, dict) else None
    if kind not in ("fading", "divergence") or not isinstance(spec, dict) or not isinstance(value, dict):
        raise UserError(f"{file} is of no fading or divergence study: give files that these wrote with --out")
    table = "methods" if kind == "fading" else "series"
    wanted = [name for name in (*SAME, table) if name not in value] + [name for name in TRAINED if name not in spec]
    if wanted:
        raise UserError(f"{file} does not say its {wanted[0]}: run its study again with --out")
    states = value.get("states") or sorted({str(row.get("state")) for row in value["series"]})
    return str(kind), {**value, **{name: spec[name] for name in TRAINED}, "states": tuple(states)}


def _rows(key: tuple[Any, ...], fading: Mapping[str, Any], divergence: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    same = dict(zip(SAME, key, strict=False))
    rate = same["learning_rate"]
    fitted = [row for row in divergence["series"] if row["fit"] is not None]
    epsilon = min((row["epsilon"] for row in fitted), key=lambda each: abs(np.log(each / EPSILON)), default=None)
    fits = [row["fit"] for row in fitted if row["epsilon"] == epsilon]
    slope = float(np.median([fit["slopes"][1] for fit in fits])) if fits else None
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
            "epsilon": epsilon,
            "described_by": fits[0]["best"] if fits else None,
            "slope_lr": slope,
            "slope_step": None if slope is None else slope * rate,
            "peak": method["peak"],
            "faded_at": method["faded_at"],
            "span_step": span,
            "span_lr": None if span is None else span * rate,
            "followed_step": followed,
            "followed_lr": followed * rate,
            "powerless": all(_contains_zero(method, place) for place in range(len(method["steps"]))),
        }


def _contains_zero(method: Mapping[str, Any], place: int) -> bool:
    """Whether a method's band contains zero at a place among its steps, or is not known there."""
    low, high = method["low"][place], method["high"][place]
    return low is None or high is None or low <= 0 <= high


def _correlations(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    def name(row: dict[str, Any]) -> str:
        return str(row["method"])

    for method, own in groupby(sorted(rows, key=name), name):
        mine = list(own)
        for unit in UNITS:
            r, models = rank_correlation(mine, unit)
            yield {"method": method, "per": "step" if unit == "step" else "Σ η", "r": r, "models": models}


def _words(key: tuple[Any, ...]) -> str:
    workspace, checkpoint, scope, optimizer, rate, batch_size, seed, states, *_ = key
    named = f"{optimizer} from {' and '.join(states)} at {rate:g}"
    return f"{workspace} {checkpoint} {scope}, {named}, batch size {batch_size}, seed {seed}"
