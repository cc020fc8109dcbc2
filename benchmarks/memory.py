"""Peak memory of an index build at two sizes: it must not grow with the rows.

Resident memory counts the pages of mapped files (the frozen prefix's outputs), which the system
takes back at will; so with the prefix the anonymous part is what must not grow.
"""

import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import in_fresh_process
from benchmarks.timing import Measurement, Target

SMALL, LARGE, TEST = 2_000, 8_000, 50
HIDDEN, LAYERS, WORDS = 128, 3, 400
LIMIT = 1.1
EVERY = 0.02  # seconds between looks at the anonymous memory


def run(sizes: tuple[int, int] = (SMALL, LARGE)) -> list[Measurement]:
    """Build at both sizes, without the prefix and with it, each in a fresh process."""
    lines = []
    for prefix, measured in (("0", "peak"), ("2", "anonymous")):
        found = []
        for rows in sizes:
            with tempfile.TemporaryDirectory() as folder:
                workspace = in_fresh_process("benchmarks.memory:prepare", folder, str(rows))
                found.append(in_fresh_process("benchmarks.memory:build", folder, workspace, prefix))
        for rows, each in zip(sizes, found, strict=True):
            lines.append(
                Measurement(
                    f"index of {rows:,} rows, {'with' if prefix != '0' else 'without'} the frozen prefix",
                    *[each["seconds"]] * 3,
                    each[measured] / found[0][measured],
                    f"peak {each['peak'] / 2**20:.0f} MiB, anonymous {each['anonymous'] / 2**20:.0f} MiB; "
                    f"the figure is the {measured} memory's ratio to the smaller index",
                    Target(LIMIT) if rows == sizes[-1] else None,
                )
            )
    return lines


def prepare(home: str, rows: str) -> str:
    """Open a workspace of random texts with a random encoder; returns its name."""
    os.environ["INFLUENCE_HOME"] = home
    import pandas as pd
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    from influence_core.events import Result
    from influence_core.runs import registry
    from influence_core.specs import OpenSpec

    words = [f"word{number}" for number in range(WORDS)]
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=4 * HIDDEN,
        num_labels=2,
        id2label={0: "negative", 1: "positive"},
        label2id={"negative": 0, "positive": 1},
    )
    checkpoint = Path(home) / "checkpoint"
    BertForSequenceClassification(config).save_pretrained(checkpoint)
    BertTokenizerFast(vocab=vocabulary).save_pretrained(checkpoint)
    draw = np.random.default_rng(0)
    files = {}
    for split, count in (("train", int(rows)), ("test", TEST)):
        texts = [" ".join(draw.choice(words, int(length))) for length in draw.integers(10, 40, count)]
        labels = np.array(["negative", "positive"])[draw.integers(0, 2, count)]
        files[split] = Path(home) / f"{split}.csv"
        pd.DataFrame({"text": texts, "label": labels}).to_csv(files[split], index=False)
    spec = OpenSpec(checkpoint=str(checkpoint), data=str(files["train"]), test=str(files["test"]), scope="last:1")
    events = registry.start(spec, Path(home) / "open-run")
    return str(next(event.value["workspace"] for event in events if isinstance(event, Result)))


def build(home: str, workspace: str, cache_gb: str) -> dict[str, Any]:
    """Build the index; peak resident and anonymous memory in bytes."""
    os.environ |= {"INFLUENCE_HOME": home, "INFLUENCE_CACHE_GB": cache_gb}
    from influence_core.runs import registry
    from influence_core.specs import IndexSpec

    started = time.perf_counter()
    seen: list[int] = [status("RssAnon")]
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(EVERY):
            seen.append(status("RssAnon"))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    spec = IndexSpec(workspace=workspace, k=8, iterations=16, hessian_rows=128)
    for _ in registry.start(spec, Path(home) / "index-run"):
        pass
    stop.set()
    thread.join()
    # not getrusage's maximum, which a child inherits from the process that started it
    return {"peak": status("VmHWM"), "anonymous": max(seen), "seconds": time.perf_counter() - started}


def status(field: str) -> int:
    """Return one of this process's sizes in bytes (Linux): ``VmHWM`` is the peak, ``RssAnon`` without files' pages."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))
