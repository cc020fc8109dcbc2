"""A scope opened for work behind its frozen prefix, whose outputs are computed once and kept."""

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from influence_core.artefacts import CODE_VERSION
from influence_core.errors import UserError
from influence_core.events import Progress
from influence_core.models.classifier import Classifier, Rows, Scope
from influence_core.models.items import Items
from influence_core.models.loading import load, rows_of, scope_of
from influence_core.models.stored import VALUES, Form, Store, held
from influence_core.models.suffix import BATCH, Suffix, cut
from influence_core.runs.locks import locked
from influence_core.specs import Split
from influence_core.workspace import Workspace

DEFAULT_CACHE_GB = "2"
PHASE = "computing the frozen part's outputs"

_fingerprints: WeakKeyDictionary[Classifier, dict[tuple[str, ...], str]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Opened:
    """A checkpoint's scope, ready for gradients, curvature and training steps."""

    classifier: Classifier  # what to work with: behind the frozen prefix, or the whole
    scope: Scope  # valid for both
    whole: Classifier
    reason: str | None  # why there is no prefix; None where it is used


def cache_limit() -> float:
    """Return the bytes that ``INFLUENCE_CACHE_GB`` (default 2; 0 turns the cache off) allows a workspace."""
    given = os.environ.get("INFLUENCE_CACHE_GB", DEFAULT_CACHE_GB)
    try:
        limit = float(given)
    except ValueError:
        limit = math.nan
    if not limit >= 0:
        raise UserError(f"INFLUENCE_CACHE_GB = {given!r} is not a number of gigabytes: set 0 (off) or more")
    return limit * 1e9


def open_scope(
    workspace: Workspace, checkpoint: str | None, scope_name: str | None, *, only_kept: bool = False
) -> Opened:
    """Open a checkpoint's scope (None: the workspace's), behind its frozen prefix where that can be kept.

    It can where all that precedes the scope is frozen and its outputs for every split of the
    workspace fit `cache_limit`, beside those kept for other checkpoints and scopes. With ``only_kept``
    a prefix whose outputs for the training rows are not there yet is not used: work on a few rows must
    not wait for all of them. Raises `UserError` for an unknown scope or a limit that is none.
    """
    whole = load(workspace, checkpoint)
    return behind_prefix(workspace, whole, scope_of(workspace, whole, scope_name), only_kept=only_kept)


def behind_prefix(workspace: Workspace, whole: Classifier, scope: Scope, *, only_kept: bool = False) -> Opened:
    """Open a classifier's scope as `open_scope` does; it may be one that the workspace does not hold."""
    limit = cache_limit()
    if limit == 0:
        return Opened(whole, scope, whole, "INFLUENCE_CACHE_GB = 0 turns the store of the frozen part's outputs off")
    suffix = cut(whole, scope)
    if isinstance(suffix, str):
        return Opened(whole, scope, whole, suffix)
    if (reason := _no_room(workspace, suffix, limit)) is not None:
        return Opened(whole, scope, whole, reason)
    if only_kept and _store(workspace, suffix, "train", rows_of(workspace, whole, "train")).missing():
        return Opened(whole, scope, whole, "the frozen part's outputs are not computed yet")
    return Opened(suffix, scope, whole, None)


def open_whole(workspace: Workspace, checkpoint: str | None, scope_name: str | None) -> Opened:
    """Open a scope for rows that go through the whole model anyway; nothing is encoded, hashed or run for it."""
    whole = load(workspace, checkpoint)
    return Opened(whole, scope_of(workspace, whole, scope_name), whole, "the whole model was asked for")


def _no_room(workspace: Workspace, suffix: Suffix, limit: float) -> str | None:
    """Return why the outputs for all splits do not fit the limit, in words; None where they do."""
    folder, needed = workspace.artefacts.folder / "prefix", estimate(workspace, suffix)
    if (others := held(folder)) and others + needed > limit:  # some of that may be its own
        own = (store_folder(workspace, suffix, split) / VALUES for split in workspace.dataset.splits)
        others -= sum(file.stat().st_size for file in own if file.exists())
    if others + needed <= limit:
        return None
    takes, given = f"{needed / 1e9:.2g} GB", f"INFLUENCE_CACHE_GB = {limit / 1e9:g}"
    if not others or needed > limit:
        return f"the frozen part's outputs would take {takes}, more than {given}"
    return (
        f"the frozen part's outputs would take {takes}, and with the {others / 1e9:.2g} GB kept in {folder} for other "
        f"checkpoints and scopes more than {given}: delete that folder, or raise the limit"
    )


def estimate(workspace: Workspace, suffix: Suffix) -> int:
    """Return the bytes that the frozen part's outputs take for all splits."""
    form = form_of(workspace, suffix)
    splits = [rows_of(workspace, suffix.whole, split) for split in workspace.dataset.splits]
    return form.unit_bytes * sum(int(rows.sizes.sum()) if form.ragged else len(rows) for rows in splits)


def form_of(workspace: Workspace, suffix: Suffix) -> Form:
    """Return the form of the frozen part's outputs, from one training row's."""
    output = suffix.prefix(rows_of(workspace, suffix.whole, "train").batch([0]))[0].numpy()
    return Form(output.shape[1:] if suffix.ragged else output.shape, suffix.ragged, str(output.dtype))


class Asked(Items):
    """The frozen part's outputs of the rows that are asked for: each computed when it first is, held in memory.

    One row at a time, so that no value depends on which rows are asked for together.
    """

    def __init__(self, suffix: Suffix, plain: Rows) -> None:
        self._suffix, self._plain = suffix, plain
        self._found: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._plain)

    def item(self, row: int) -> np.ndarray:
        """Return one row's output."""
        if row not in self._found:
            self._found[row] = self._suffix.prefix(self._plain.batch([row]))[0].numpy()
        return self._found[row]

    def fetch(self, rows: Sequence[int]) -> Iterator[Progress]:
        """Compute rows ahead; yields progress."""
        for done, row in enumerate(rows, 1):
            self.item(row)
            if done % BATCH == 0:
                yield Progress(phase=PHASE, done=done, total=len(rows))


def rows(
    workspace: Workspace, opened: Opened, split: Split, labels: np.ndarray | None = None, *, few: bool = False
) -> Iterator[Progress | Rows]:
    """Yield progress while outputs that are missing are computed, then the split's rows.

    Labels are the original ones unless others are given ([N]). With a prefix, items are views into
    the kept file; without, the encoded inputs. Another process that computes the same meanwhile is
    waited for. Where ``few`` rows will be asked for and some are missing, nothing is computed ahead and
    nothing kept (`Asked`). Raises `UserError` when the disk is full.
    """
    plain = rows_of(workspace, opened.whole, split, labels)
    suffix = opened.classifier
    if not isinstance(suffix, Suffix):
        yield plain
        return
    store = _store(workspace, suffix, split, plain)
    if few and store.missing():
        yield Rows(suffix, Asked(suffix, plain), plain.labels)
        return
    if store.missing():
        with store.disk():
            workspace.artefacts.make("prefix", store_key(workspace, suffix, split))
            store.lock.touch()
        with locked(store.lock):
            with locked(workspace.artefacts.folder / "prefix.lock"):  # what is found free stays so until it is taken
                _take_room(store)
            yield from _fill(store, suffix, plain)
    yield Rows(suffix, store.open(), plain.labels)


def _store(workspace: Workspace, suffix: Suffix, split: Split, plain: Rows) -> Store:
    return Store(store_folder(workspace, suffix, split), plain.sizes, form_of(workspace, suffix))


def store_folder(workspace: Workspace, suffix: Suffix, split: Split) -> Path:
    """Return the folder of one split's outputs (perhaps not made yet)."""
    return workspace.artefacts.path("prefix", store_key(workspace, suffix, split))


def store_key(workspace: Workspace, suffix: Suffix, split: Split) -> dict[str, Any]:
    """Return all that the outputs depend on: checkpoints with an equal frozen part share them."""
    return {
        "frozen": frozen_fingerprint(suffix),
        "data": workspace.data_fingerprint,
        "split": split,
        "cut": suffix.frozen[-1],
        "max_length": getattr(suffix.whole, "max_length", None),
        "prefix": getattr(suffix.whole, "prefix", ""),
        "dtype": str(suffix.whole.dtype),
        "code": CODE_VERSION,
        # the tokenizer or image processor, and what the configuration makes of equal tensors
        **({"companions": suffix.whole.companions} if suffix.whole.companions else {}),
    }


def frozen_fingerprint(suffix: Suffix) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of the frozen modules' parameters and buffers, once a classifier."""
    known = _fingerprints.setdefault(suffix.whole, {})
    if suffix.frozen not in known:
        digest = hashlib.sha256()
        for part in suffix.frozen:
            for name, value in suffix.whole.module.get_submodule(part).state_dict().items():
                digest.update(f"{part}.{name}\x1f{value.dtype}\x1f{tuple(value.shape)}\x1e".encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        known[suffix.frozen] = digest.hexdigest()
    return known[suffix.frozen]


def _take_room(store: Store) -> None:
    """Make the store's files; raises `UserError` where another run has taken the room since the scope was opened."""
    values = store.folder / VALUES
    own, limit = values.stat().st_size if values.exists() else 0, cache_limit()
    if own < store.bytes and held(store.folder.parent) - own + store.bytes > limit:
        raise UserError(
            f"another run has just filled INFLUENCE_CACHE_GB = {limit / 1e9:g} with its own frozen part's outputs: "
            f"start this one again, which then does without, or delete {store.folder.parent} first"
        )
    store.start()


def _fill(store: Store, suffix: Suffix, plain: Rows) -> Iterator[Progress]:
    """Compute the missing shards, in batches that depend on the rows alone."""
    missing = store.missing()
    done = len(plain) - sum(stop - start for _, start, stop in missing)
    for shard, start, stop in missing:
        with store.writing(shard) as stream:
            for numbers, batch in plain.buckets(start, stop, BATCH):
                for row, output in zip(numbers, suffix.prefix(batch), strict=True):
                    store.put(stream, int(row), output.numpy())
                done += len(numbers)
                yield Progress(phase=PHASE, done=done, total=len(plain))
