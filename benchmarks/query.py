"""The top 50 of both ends out of an uncompressed index, warm and with nothing in the page cache.

Through the code that a page runs: reading the index, combining, ordering.
"""

import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.processes import in_fresh_process
from benchmarks.timing import Measurement, Target

K, TOP, REPEATS = 32, 50, 5
WARM = {100_000: 0.05, 1_000_000: 0.3}  # rows: seconds


def run() -> list[Measurement]:
    """Time both sizes, each in a fresh process: once cold, then warm."""
    lines = []
    for rows, limit in WARM.items():
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), rows)
            cold = min(in_fresh_process("benchmarks.query:cold", folder)["total"] for _ in range(2))
            warm = in_fresh_process("benchmarks.query:warm", folder, str(REPEATS))
        totals = sorted(each["total"] for each in warm)
        median = totals[len(totals) // 2]
        parts = ", ".join(
            f"{name} {1000 * float(np.median([each[name] for each in warm])):.0f} ms"
            for name in ("read", "scores", "order")
        )
        what = f"top {TOP} of both ends, {rows:,} × {K}"
        lines.append(
            Measurement(f"{what}, warm", median, totals[0], totals[-1], 1.0, parts, Target(limit, of="seconds"))
        )
        lines.append(Measurement(f"{what}, cold", cold, cold, cold, cold / median, "nothing in the page cache"))
    return lines


def write(folder: Path, rows: int) -> None:
    """Write an index of random products and one query, as an index build does."""
    from influence_core.attribution.base import Query
    from influence_core.attribution.tables import SHARD, IndexArrays, Table

    draw = np.random.default_rng(0)
    values = np.sort(draw.exponential(10, K))[::-1] * np.where(np.arange(K) % 4 == 3, -1, 1)
    key = {"k": K, "iterations": K, "hessian_rows": 1, "seed": 0, "origin": "benchmark"}
    table = Table(folder, key)
    index = IndexArrays(folder, rows, K)
    for shard, start, stop in index.missing():
        products = draw.normal(size=(stop - start, K)).astype(np.float32)
        index.write(shard, products, np.ones(stop - start, np.float32), np.arange(start, stop) % 2)
    table.write_query(Query("query", 0), {"products": draw.normal(size=K).astype(np.float32)})
    table.finish({"made": "", "rows": rows, "eigenvalues": values.tolist(), "key": key, "shard": SHARD})


def cold(folder: str) -> dict[str, float]:
    """Drop the index from the page cache and ask once."""
    os.sync()  # dirty pages cannot be dropped
    for file in Path(folder).rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
    return ask(folder)


def warm(folder: str, repeats: str) -> list[dict[str, float]]:
    """Ask once, then measure."""
    ask(folder)
    return [ask(folder) for _ in range(int(repeats))]


def ask(folder: str) -> dict[str, float]:
    """Return the seconds of reading, combining and ordering; imports are not counted."""
    from influence_core.attribution.abif import Abif
    from influence_core.attribution.base import Query
    from influence_core.attribution.ranking import largest
    from influence_core.attribution.tables import Table

    key = json.loads((Path(folder) / "manifest.json").read_text())["key"]
    started = time.perf_counter()
    ready = Abif().read(Table(Path(folder), key), Query("query", 0))
    read = time.perf_counter()
    assert ready is not None
    scores = Abif().scores(ready)
    combined = time.perf_counter()
    ends = largest(scores.cosines, TOP), largest(-scores.cosines, TOP)
    done = time.perf_counter()
    if not scores.cosines[ends[0][-1]] > 0 > scores.cosines[ends[1][-1]]:
        raise RuntimeError("the ends are not the ends")
    return {
        "read": read - started,
        "scores": combined - read,
        "order": done - combined,
        "total": done - started,
    }
