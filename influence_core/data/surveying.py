"""A look at data before anything is made of them: columns, classes, broken rows, duplicates, leaks."""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from influence_core.data.checking import Usable, checked
from influence_core.data.columns import choose
from influence_core.data.dataset import Modality
from influence_core.data.finding import Located, locate
from influence_core.data.ids import SHIFT, as_hashes, content_hash, duplicates, first_again, repeated, shared
from influence_core.data.labels import Matching, in_order, match, problems
from influence_core.data.noticing import Read, noticed
from influence_core.data.source import Columns, Source, beginning, not_text
from influence_core.errors import UserError
from influence_core.events import Progress, through
from influence_core.specs import Sources, Split
from influence_core.survey import BrokenRow, DataFound, SplitFound

EVERY, EVERY_IMAGE = 4096, 256  # rows between progress events
LISTED = 200  # broken rows that are kept
SHOWN_ROWS = 5  # rows that are shown as examples
HELD_OUT = 5  # without a test split, every fifth row is held out as one
MOST_LABELS = 10_000  # distinct ones; more means that the column holds no labels

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """How the rows are to be read, decided by a look; for `influence_core.data.writing`."""

    located: Located
    columns: dict[Split, Columns]
    matching: Matching
    prefixed: bool  # whether ids of an id column get their split's name, because splits share some
    broken: dict[Split, frozenset[int]]  # numbers from 0 of rows that cannot be used
    twice: dict[Split, np.ndarray]  # 48-bit content hashes that stand more than once, sorted


@dataclass(frozen=True)
class DataSurvey:
    """What a look found, and how the rows are then read."""

    found: DataFound
    label_names: tuple[str, ...]  # in order of the logits
    problems: tuple[str, ...]  # why the data cannot be used as they are; empty: they can
    plan: Plan


@dataclass
class Labels:
    """What the first pass collects."""

    counts: Counter[str] = field(default_factory=Counter)  # rows of each label, over all splits
    first: dict[str, str] = field(default_factory=dict)  # label → where it stands first
    rows: Counter[Split] = field(default_factory=Counter)
    ids: dict[Split, "array[int]"] = field(default_factory=dict)  # hashes of those that are not empty


@dataclass
class Look:
    """What the second pass collects."""

    hashes: dict[Split, "array[int]"] = field(default_factory=dict)  # of the usable rows' contents, in order
    numbers: dict[Split, frozenset[int]] = field(default_factory=dict)  # of rows that cannot be used, from 0
    listed: list[BrokenRow] = field(default_factory=list)  # the first of them
    sample: list[tuple[str, str]] = field(default_factory=list)


def survey_data(spec: Sources, classes: tuple[str, ...], modality: Modality) -> Iterator[Progress | DataSurvey]:
    """Look at all rows of a request's data; yields progress, then what was found.

    ``classes`` are the checkpoint's, in order of the logits (empty where it names none), ``modality``
    what it reads. Memory: 16 bytes a row, and a block of rows. Raises `UserError` where no look is
    possible: missing files, unknown kinds, no such column, images for a checkpoint that reads text.
    """
    located = locate(spec)
    chosen: dict[Split, Columns] = {}
    for split, source in located.splits.items():
        chosen[split] = choose(source, spec, modality, classes, chosen.get("train"))
    labels = yield from through(read_labels(located, chosen), Labels)
    columns = {split: with_ids(spec, labels, split, located.splits[split], each) for split, each in chosen.items()}
    prefixed = share_ids(labels, columns)
    own, numbered = own_names(located, columns)
    counts = in_order(labels.counts)
    matching = match(counts, classes, own, numbered, spec.classes)
    look = yield from through(look_at_rows(located, columns, matching), Look)
    hashes: dict[Split, np.ndarray] = {split: as_hashes(each) for split, each in look.hashes.items()}
    twice = {split: repeated(each >> np.uint64(SHIFT)) for split, each in hashes.items()}
    held_out = "test" not in located.splits
    first = columns["train"]
    found = DataFound(
        source=located.splits["train"].kind,
        modality=modality,
        columns=located.splits["train"].columns,
        input_column=first.input,
        label_column=first.label,
        id_column=first.id,
        splits=split_counts(hashes, look, held_out),
        held_out=held_out,
        labels=counts,
        matched=matching.how,
        classes=matching.classes,
        broken=tuple(look.listed),
        sample=tuple(look.sample),
        notes=tuple(noticed(Read(located, chosen, columns, counts), classes)),
    )
    stand_in_the_way = [*problems(matching, counts, labels.first, classes, spec.classes), *broken_problems(spec, found)]
    plan = Plan(located, columns, matching, prefixed, look.numbers, twice)
    yield DataSurvey(found, matching.names, tuple(stand_in_the_way), plan)


def split_counts(hashes: Mapping[Split, np.ndarray], look: Look, held_out: bool) -> dict[Split, SplitFound]:
    """Count each split's rows as they will be, from the usable rows' content hashes."""
    parts = dict(hashes)
    if held_out:
        held = np.arange(len(hashes["train"])) % HELD_OUT == HELD_OUT - 1
        parts |= {"train": hashes["train"][~held], "test": hashes["train"][held]}
    return {
        split: SplitFound(
            rows=len(each),
            broken=len(look.numbers.get(split, ())),
            duplicates=duplicates(each),
            leaks=0 if split == "train" else shared(each, parts["train"]),
        )
        for split, each in parts.items()
    }


def read_labels(located: Located, columns: Mapping[Split, Columns]) -> Iterator[Progress | Labels]:
    """Read labels and ids, no contents."""
    seen = Labels()
    for split, source in located.splits.items():
        own = seen.ids[split] = array("q")
        for row in with_progress(source.rows(columns[split], contents=False), source, f"reading the labels of {split}"):
            if isinstance(row, Progress):
                yield row
                continue
            seen.rows[split] += 1
            if row.id.strip():
                own.append(hash(row.id))  # Python's own, good for this process alone
            if row.label and not row.broken and not not_text(row.label):
                if row.label not in seen.first:
                    seen.first[row.label] = source.position(row.place)
                    if len(seen.first) > MOST_LABELS:
                        raise UserError(
                            f"the column {columns[split].label!r} of {source.origin} has more than {MOST_LABELS:,} "
                            f"different values: choose the column that holds the labels"
                        )
                seen.counts[row.label] += 1
        if not seen.rows[split]:
            raise UserError(f"{source.origin} has no rows: give data with rows")
    yield seen


def with_progress(rows: Iterator[T], source: Source, phase: str) -> Iterator[T | Progress]:
    """Pass rows on, with a `Progress` now and then."""
    size, done = source.size, 0
    every = EVERY_IMAGE if source.modality == "image" or source.image_columns else EVERY
    for done, row in enumerate(rows, start=1):
        yield row
        if done % every == 0:
            yield Progress(phase=phase, done=done, total=max(done, size))
    yield Progress(phase=phase, done=done, total=done)


def with_ids(spec: Sources, labels: Labels, split: Split, source: Source, columns: Columns) -> Columns:
    """Keep the id column if it was asked for, or names rows; rows without an id are broken then.

    Raises `UserError` for an asked column with an id that stands twice.
    """
    if columns.id is None:
        return columns
    ids = as_hashes(labels.ids[split])
    unique = duplicates(ids) == 0
    if columns.id == spec.id_column:
        if not unique:
            suspects = frozenset(repeated(ids).tolist())
            rows = source.rows(columns, contents=False)
            twice = first_again(row.id for row in rows if hash(row.id) in suspects)
            raise UserError(
                f"the id {twice!r} stands more than once in {source.origin}: make ids unique, or choose another column"
            )
        return columns
    return columns if unique and 2 * len(ids) >= labels.rows[split] else columns._replace(id=None)


def share_ids(labels: Labels, columns: Mapping[Split, Columns]) -> bool:
    """Whether an id stands in more than one split."""
    ids = [as_hashes(labels.ids[split]) for split, each in columns.items() if each.id is not None]
    return bool(ids) and duplicates(np.concatenate(ids)) > 0


def own_names(located: Located, columns: Mapping[Split, Columns]) -> tuple[tuple[str, ...], bool]:
    """Return the class names that the training split carries, and whether their numbers are the data's own."""
    source = located.splits["train"]
    return source.class_names(columns["train"].label), source.numbered


def look_at_rows(located: Located, columns: Mapping[Split, Columns], matching: Matching) -> Iterator[Progress | Look]:
    """Look at every row's content."""
    look = Look()
    for split, source in located.splits.items():
        hashes = look.hashes[split] = array("Q")
        broken: list[int] = []
        rows = checked(source, columns[split], matching.index.get, matching.few)
        for row in with_progress(rows, source, f"reading the rows of {split}"):
            if isinstance(row, Progress):
                yield row
            elif isinstance(row, Usable):
                hashes.append(content_hash(row.content))
                if split == "train" and len(look.sample) < SHOWN_ROWS:
                    shown = row.content if isinstance(row.content, str) else source.position(row.place)
                    look.sample.append((beginning(shown), beginning(row.label)))
            else:
                if len(look.listed) < LISTED:
                    position = source.position(row.place)
                    look.listed.append(BrokenRow(split=split, position=position, reason=row.broken, shown=row.shown))
                broken.append(len(hashes) + len(broken))
        look.numbers[split] = frozenset(broken)
    yield look


def broken_problems(spec: Sources, found: DataFound) -> list[str]:
    """Say in one line each what broken rows stand in the way of."""
    lines = []
    total = sum(each.broken for each in found.splits.values())
    first = {each.split: f"{each.position}: {each.reason}" for each in reversed(found.broken)}
    if total and not spec.drop_broken:
        some = f"{total:,} rows" if total > 1 else "1 row"
        where = f"{found.broken[0].position}: {found.broken[0].reason}"
        lines.append(f"{some} cannot be used (first: {where}): drop them, or fix the data")
    for split, each in found.splits.items():
        if not each.rows and split in first:
            lines.append(f"no row of {split} can be used (first: {first[split]}): choose another split or file")
    if found.held_out and found.splits["train"].rows + found.splits["test"].rows < HELD_OUT:
        rows = found.splits["train"].rows + found.splits["test"].rows
        lines.append(f"{spec.data} has {rows} rows and no test data were given: give test data")
    return lines
