"""How a checkpoint's inputs will be prepared: what was asked, over what it records itself. No torch.

A look asks the same as opening does, so that neither finds what the other missed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from influence_core.checkpoints.configs import label_words, read_config
from influence_core.checkpoints.recorded import recorded
from influence_core.errors import UserError
from influence_core.preparation import Preparation
from influence_core.specs import Sources
from influence_core.survey import CheckpointFound

LENGTHS = range(4, 4097)  # tokens that a text may be cut to, as `specs.Sources` has them
LISTED = 10  # label words that are named one by one


def preparation_of(found: CheckpointFound, spec: Sources, label_names: Sequence[str]) -> Preparation:
    """Return how inputs are prepared for a checkpoint that was looked at, with the classes as they will be named.

    Raises `UserError` for what does not apply to this kind of checkpoint, and for label words that do
    not say which class is meant.
    """
    _refuse_inapplicable(found, spec)
    if found.kind == "image":
        return Preparation()
    config = read_config(Path(found.path))
    own = config.get("prefix")
    prefix = spec.prefix if spec.prefix is not None else own if isinstance(own, str) else ""
    words = _words(config, spec, label_names) if found.kind == "seq2seq" else ()
    recipe = recorded(Path(found.path)).recipe
    trained = recipe.get("max_length") if isinstance(recipe, dict) else None
    length = spec.max_length or (trained if isinstance(trained, int) and trained in LENGTHS else None)
    return Preparation(max_length=length, prefix=prefix, label_words=words)


def notes_of(found: CheckpointFound, preparation: Preparation, label_names: Sequence[str]) -> tuple[str, ...]:
    """Say in one sentence each how inputs will be prepared, where that is not plain."""
    said = []
    if preparation.label_words:
        pairs = list(zip(label_names, preparation.label_words, strict=True))
        more = ", …" if len(pairs) > LISTED else ""
        said.append(f"Label words: {', '.join(f'{name} = {word}' for name, word in pairs[:LISTED])}{more}.")
    if preparation.prefix:
        said.append(f"Before every text stands the prefix {preparation.prefix!r}.")
    if found.kind != "image" and preparation.max_length is not None:
        limit = positions(read_config(Path(found.path)))
        if limit is not None and preparation.max_length > limit:
            said.append(f"It has {limit:,} positions: texts are cut there, not at {preparation.max_length:,} tokens.")
    return tuple(said)


def positions(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens of a text a model has positions for; None where nothing bounds them (T5)."""
    limit, padding = config.get("max_position_embeddings"), config.get("pad_token_id", 1)
    if not isinstance(limit, int):
        return None
    # RoBERTa counts positions from the one after its padding token's number.
    return limit - padding - 1 if config.get("model_type") == "roberta" and isinstance(padding, int) else limit


def _refuse_inapplicable(found: CheckpointFound, spec: Sources) -> None:
    if spec.label_words and found.kind != "seq2seq":
        raise UserError(
            f"label words are given, but {found.path} is a {found.family} with outputs of its own: leave them out"
        )
    if found.kind == "image":
        for what, given in (("prefix", spec.prefix), ("max_length", spec.max_length)):
            if given is not None:
                raise UserError(f"{what} is {given!r}, but {found.path} reads images: leave it out")


def _words(config: dict[str, Any], spec: Sources, label_names: Sequence[str]) -> tuple[str, ...]:
    """Return what the decoder says for each class."""
    if unknown := spec.label_words.keys() - set(label_names):
        raise UserError(
            f"a label word is given for {min(unknown)!r}, the classes are {', '.join(label_names)}: correct it"
        )
    own = {**label_words(config), **spec.label_words}
    words = tuple(own.get(name, name) for name in label_names)
    first: dict[str, str] = {}
    for name, word in zip(label_names, words, strict=True):
        if not word.strip():
            raise UserError(f"the label word of {name!r} is empty: give one")
        if (other := first.setdefault(" ".join(word.split()), name)) != name:
            raise UserError(f"{other!r} and {name!r} have the same label word {word!r}: give each one of its own")
    return words
