"""Anonymous memory while a Parquet file is looked at and written as a dataset, at two sizes.

Mapped pages of the file and of the dataset, which the system takes back at will, are not counted:
what is left must be ids and hashes, no contents.
"""

import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.memory import status
from benchmarks.processes import in_fresh_process
from benchmarks.timing import Measurement, Target

SMALL, LARGE = 100_000, 1_000_000
LIMIT = 100  # bytes a row
EVERY = 0.005  # seconds between looks at the memory
PIECE = 50_000  # rows written at a time


def run(sizes: tuple[int, int] = (SMALL, LARGE)) -> list[Measurement]:
    """Open files of both sizes, each in a fresh process; the last line's figure is bytes a row between them."""
    found = []
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            file = in_fresh_process("benchmarks.opening:prepare", folder, str(rows))
            found.append(in_fresh_process("benchmarks.opening:measure", folder, file))
    a_row = (found[1]["anonymous"] - found[0]["anonymous"]) / (sizes[1] - sizes[0])
    return [
        Measurement(
            f"opening a Parquet file of {rows:,} rows",
            *[each["seconds"]] * 3,
            max(a_row, 0.0) if rows == sizes[-1] else 0.0,
            f"anonymous memory {each['before'] / 2**20:.0f} MiB before, at most {each['anonymous'] / 2**20:.1f} MiB; "
            f"{each['bytes'] / 2**20:.0f} MiB of contents"
            + ("; the figure is bytes a row beyond the smaller file" if rows == sizes[-1] else ""),
            Target(LIMIT) if rows == sizes[-1] else None,
        )
        for rows, each in zip(sizes, found, strict=True)
    ]


def prepare(folder: str, rows: str) -> str:
    """Write a file of texts of about 100 characters with labels; returns its path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(1000)])
    file = Path(folder) / "rows.parquet"
    schema = pa.schema({"text": pa.string(), "label": pa.string()})
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, int(rows), PIECE):
            count = min(PIECE, int(rows) - start)
            texts = [" ".join(each) for each in draw.choice(words, (count, 14))]
            labels = np.array(["negative", "positive"])[draw.integers(0, 2, count)]
            writer.write_table(pa.table({"text": texts, "label": labels}, schema))
    return str(file)


def measure(folder: str, file: str) -> dict[str, Any]:
    """Look, write, fingerprint, load again; memory in bytes and seconds."""
    os.environ["INFLUENCE_HOME"] = folder
    from influence_core.data.dataset import Dataset
    from influence_core.data.surveying import DataSurvey, survey_data
    from influence_core.data.writing import write
    from influence_core.specs import OpenSpec

    before = status("RssAnon")
    seen = [before]
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(EVERY):
            seen.append(status("RssAnon"))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    started = time.perf_counter()
    spec = OpenSpec(checkpoint="none", data=file)
    surveyed = next(e for e in survey_data(spec, ("negative", "positive"), "text") if isinstance(e, DataSurvey))
    place = Path(folder) / "data"
    next(each for each in write(spec, surveyed, place) if isinstance(each, Dataset)).describe(place)
    Dataset.load(place)
    seconds = time.perf_counter() - started
    stop.set()
    thread.join()
    contents = sum(each.stat().st_size for each in place.glob("*.arrow"))
    return {"before": before, "anonymous": max(seen), "seconds": seconds, "bytes": contents}
