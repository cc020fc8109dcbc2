"""How fast this machine passes rows through a checkpoint: measured by runs, kept in ``rates.json`` of the home."""

import time
from collections.abc import Iterable
from functools import cache

import numpy as np

from influence_core.home import home, read_json, write_json

FEWEST = 64  # rows below which a measurement says little
FORWARD = 200.0  # rows a second, forward only: MiniLM-L6 on 2 CPU cores, about 27 tokens a row
PARAMETERS = 22.7e6  # of that model
REFERENCE = 195.0  # float32 GFLOP/s of NumPy's matrix product on those cores
SIDE, TRIES = 1024, 4  # of the products that are timed: 2.1 GFLOP each
FASTEST = 1000.0  # rows a second that are promised of a model that was never measured


def record(fingerprint: str, rows: int, seconds: float) -> None:
    """Keep a checkpoint's rate, in rows a second; fewer than 64 rows are ignored."""
    if rows < FEWEST or seconds <= 0:
        return
    write_json(home() / "rates.json", {**_rates(), fingerprint[:16]: rows / seconds})


def rate(fingerprints: Iterable[str], parameters: int) -> float:
    """Return the rate measured for the first of some checkpoints that has one, else a guess from size and machine."""
    known = _rates()
    measured = [known[each[:16]] for each in fingerprints if each[:16] in known]
    return measured[0] if measured else min(FASTEST, speed() * FORWARD * PARAMETERS / max(1, parameters))


@cache
def speed() -> float:
    """Return how fast this machine multiplies matrices, as a share of the one that the guesses were measured on.

    Takes a tenth of a second, once a process.
    """
    side = np.ones((SIDE, SIDE), dtype=np.float32)
    least = float("inf")
    for _ in range(TRIES):
        began = time.perf_counter()
        side @ side
        least = min(least, time.perf_counter() - began)
    return 2e-9 * SIDE**3 / least / REFERENCE


def _rates() -> dict[str, float]:
    file = home() / "rates.json"
    found: dict[str, float] = read_json(file) if file.exists() else {}
    return found
