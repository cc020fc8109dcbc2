"""Examples from a user's own files: CSV, TSV, JSON lines, Parquet."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from influence_core.data.dataset import Dataset
from influence_core.errors import UserError
from influence_core.specs import OpenSpec, Split

READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    # as text: an id 001 stays 001, and a review that says NA is not missing
    ".csv": lambda path: pd.read_csv(path, dtype=str, keep_default_na=False),
    ".tsv": lambda path: pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False),
    ".jsonl": lambda path: pd.read_json(path, lines=True, dtype=False),
    ".parquet": pd.read_parquet,
}
TEXT_COLUMNS = ("text", "sentence", "content", "review")
LABEL_COLUMNS = ("label", "labels", "class", "target")
ID_COLUMNS = ("id", "idx", "guid")


def read_table(path: Path) -> pd.DataFrame:
    """Read one file by its ending; raises `UserError` for what is missing, unknown or broken."""
    if not path.is_file():
        raise UserError(f"{path} is missing: give an existing {', '.join(READERS)} file")
    if path.suffix not in READERS:
        raise UserError(f"{path} ends in {path.suffix or 'nothing'!r}: give a {', '.join(READERS)} file")
    try:
        table = READERS[path.suffix](path)
    except (ValueError, OSError, UnicodeDecodeError, pd.errors.ParserError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} cannot be read ({first}): check the file") from None
    if table.empty:
        raise UserError(f"{path} has no rows: give a file with rows")
    return table


def column(table: pd.DataFrame, path: Path, asked: str | None, usual: Sequence[str], what: str) -> str:
    """Return the asked column's name, or the first usual one that is there."""
    if asked is not None:
        if asked not in table:
            raise UserError(f"{path} has no column {asked!r}: its columns are {', '.join(map(str, table.columns))}")
        return asked
    for name in usual:
        if name in table:
            return name
    raise UserError(f"{path} has no {what} column among {', '.join(map(str, table.columns))}: name it")


def class_numbers(labels: pd.Series, label_names: Sequence[str], path: Path) -> list[int]:
    """Match a file's labels to class numbers: all by name (any case), else all as numbers from 0."""
    texts = [str(label).strip().removesuffix(".0") for label in labels]
    by_name = {name.casefold(): number for number, name in enumerate(label_names)}
    by_number = {str(number): number for number in range(len(label_names))}
    keys = [text.casefold() for text in texts]
    for known in (by_name, by_number):
        if all(key in known for key in keys):
            return [known[key] for key in keys]
    best = by_number if sum(key in by_number for key in keys) > sum(key in by_name for key in keys) else by_name
    row = next(row for row, key in enumerate(keys, start=1) if key not in best)
    raise UserError(
        f"{path}, row {row}: label {texts[row - 1]!r} is none of the checkpoint's classes "
        f"({', '.join(label_names)}, or their numbers from 0): fix the row or choose another checkpoint"
    )


def stable_ids(texts: Sequence[str], split: str) -> list[str]:
    """Return ids from split, content and occurrence, so that reordering rows keeps them."""
    seen: Counter[str] = Counter()
    ids = []
    for text in texts:
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        seen[digest] += 1
        ids.append(f"{split}-{digest}" + (f"-{seen[digest]}" if seen[digest] > 1 else ""))
    return ids


def frame(table: pd.DataFrame, path: Path, split: str, label_names: Sequence[str], spec: OpenSpec) -> pd.DataFrame:
    """Return a split's rows in the form of `Dataset`; ids in a column are kept as text."""
    text_column = column(table, path, spec.text_column, TEXT_COLUMNS, "text")
    label_column = column(table, path, spec.label_column, LABEL_COLUMNS, "label")
    empty = table[text_column].isna() | (table[text_column].astype(str).str.strip() == "")
    if empty.any():
        raise UserError(f"{path}, row {int(empty.to_numpy().argmax()) + 1}: the text is empty: fix or drop the row")
    texts = table[text_column].astype(str).tolist()
    id_column = spec.id_column or next((name for name in ID_COLUMNS if name in table), None)
    if id_column is not None:
        own = table[column(table, path, id_column, (), "id")]
        blank = own.isna() | (own.astype(str).str.strip() == "")
        if blank.any():
            raise UserError(f"{path}, row {int(blank.to_numpy().argmax()) + 1}: the id is empty: give every row one")
        ids = own.astype(str).tolist()
    else:
        ids = stable_ids(texts, split)
    return pd.DataFrame({"id": ids, "text": texts, "label": class_numbers(table[label_column], label_names, path)})


def load(name: str, paths: dict[Split, Path], label_names: Sequence[str], spec: OpenSpec) -> Dataset:
    """Read the given split files into a dataset; ids that splits share are told apart by the split."""
    splits: dict[Split, pd.DataFrame] = {}
    for split, path in paths.items():
        splits[split] = frame(read_table(path), path, split, label_names, spec)
    ids = pd.concat([part["id"] for part in splits.values()])
    if ids.duplicated().any() and not any(part["id"].duplicated().any() for part in splits.values()):
        splits = {split: part.assign(id=[f"{split}-{own}" for own in part["id"]]) for split, part in splits.items()}
    notes = {"source": {split: str(path) for split, path in paths.items()}}
    return Dataset(name, tuple(label_names), splits, notes)
