"""Which column holds the inputs, the labels, the ids: as asked, else by usual names, else by looking at values."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

from influence_core.data.dataset import Modality
from influence_core.data.source import Columns, Source, as_label, as_text, not_text
from influence_core.errors import UserError
from influence_core.specs import Sources

TEXT = ("text", "sentence", "content", "review")
IMAGE = ("image", "img", "picture")
LABEL = ("label", "labels", "class", "target", "sentiment", "category")
ID = ("id", "idx", "guid")
SHORT = 8  # characters; a column whose cells have fewer on average is not taken for text
INPUTS: dict[Modality, str] = {"text": "text", "image": "images"}


def choose(
    source: Source, spec: Sources, modality: Modality, classes: Sequence[str], like: Columns | None = None
) -> Columns:
    """Return the columns to read; ``like`` are those of the training split, for a split with the same ones.

    Raises `UserError` for an asked column that is not there, where none can be guessed, and where
    the data's inputs are not what the checkpoint reads.
    """
    asked = {"text": spec.text_column, "image": spec.image_column, "label": spec.label_column, "id": spec.id_column}
    other: Modality = "image" if modality == "text" else "text"
    if source.modality is not None:
        if source.modality == other:
            raise mismatch(source, modality)
        if (name := next((name for name, column in asked.items() if column), None)) is not None:
            raise UserError(f"{source.origin} has no columns, but {name}_column is {asked[name]!r}: leave it empty")
        return Columns(modality, "label", None, modality)
    for known in source.columns:
        if wrong := not_text(known):
            raise UserError(f"{source.origin} has a column whose name is not UTF-8 ({wrong}): rename it, save as UTF-8")
    for column in asked.values():
        if column is not None and column not in source.columns:
            raise UserError(f"{source.origin} has no column {column!r}: its columns are {', '.join(source.columns)}")
    if asked[other] and not asked[modality]:
        raise UserError(f"{other}_column is {asked[other]!r}, but the checkpoint reads {INPUTS[modality]}: clear it")
    same = {} if like is None else {"input": like.input, "label": like.label, "id": like.id}
    kept = {what: column for what, column in same.items() if column in source.columns}
    sample = source.sample()
    if asked[modality] is not None and asked[modality] == asked["label"]:
        raise UserError(f"the column {asked['label']!r} is asked for as {modality} and as label: choose two columns")
    content = asked[modality] or kept.get("input") or guess_input(source, sample, modality, set(asked.values()))
    if (modality == "image") != (content in source.image_columns) and not (modality == "text" and asked["text"]):
        raise mismatch(source, modality)
    label = asked["label"] or kept.get("label") or guess_label(source, sample, content, classes)
    own = asked["id"] or kept.get("id") or first_of(ID, source.columns)
    return Columns(content, label, own, modality)


def mismatch(source: Source, modality: Modality) -> UserError:
    """Say that the data's inputs are not the checkpoint's."""
    found = "images" if source.modality == "image" or source.image_columns else "no images"
    hint = f": its columns are {', '.join(source.columns)}" if source.columns else ""
    return UserError(
        f"{source.origin} has {found}, but the checkpoint reads {INPUTS[modality]}{hint}: give data that fit it"
    )


def first_of(usual: Sequence[str], columns: Sequence[str]) -> str | None:
    """Return the first column with a usual name, in any case."""
    by_name = {column.casefold(): column for column in reversed(columns)}
    return next((by_name[name] for name in usual if name in by_name), None)


def guess_input(source: Source, sample: Mapping[str, list[Any]], modality: Modality, taken: Set[str | None]) -> str:
    """Return the likely input column, none that is ``taken``: of texts, the one that is longest on average."""
    if modality == "image":
        if not source.image_columns:
            raise mismatch(source, modality)
        return first_of(IMAGE, source.image_columns) or source.image_columns[0]
    others = [column for column in source.columns if column not in source.image_columns]
    if (known := first_of(TEXT, others)) is not None:
        return known
    free = [column for column in others if column not in taken and column.casefold() not in (*LABEL, *ID)]
    lengths = {column: mean_length(sample.get(column, [])) for column in free}
    best = max(lengths, key=lambda column: lengths[column], default="")
    if not best or lengths[best] < SHORT:
        if source.image_columns:
            raise mismatch(source, modality)
        raise UserError(f"{source.origin} has no text column among {', '.join(source.columns)}: name it")
    return best


def mean_length(values: Sequence[Any]) -> float:
    """Return the mean length of a column's texts; 0 for a column of something else."""
    texts = [as_text(value) for value in values if value is not None]
    known = all(isinstance(value, str | bytes) for value in values if value is not None)
    return sum(map(len, texts)) / len(texts) if texts and known else 0.0


def guess_label(source: Source, sample: Mapping[str, list[Any]], content: str, classes: Sequence[str]) -> str:
    """Return the likely label column: of few distinct values, best those that are the checkpoint's classes."""
    others = [column for column in source.columns if column not in (content, *source.image_columns)]
    named = [column for column in others if source.class_names(column)]
    if (known := first_of(LABEL, others) or next(iter(named), None)) is not None:
        return known
    names = {name.casefold() for name in classes}
    ranks: dict[str, tuple[bool, bool, int]] = {}
    for column in others:
        values = [as_label(value) for value in sample.get(column, [])]
        distinct = {value.casefold() for value in values}
        if 0 < len(distinct) <= max(2, len(values) // 2):
            ranks[column] = (not distinct <= names, len(distinct) == 1, len(distinct))
    if not ranks:
        if first_of(LABEL, [content]) is not None and others:
            raise UserError(
                f"{source.origin} has no label column but {content!r}, which is read as the input: choose other columns"
            )
        raise UserError(f"{source.origin} has no label column among {', '.join(source.columns)}: name it")
    return min(ranks, key=lambda column: ranks[column])
