"""What a tokenizer's or image processor's configuration may ask for: own files, pictures of a sane size. No torch."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from influence_core.errors import UserError

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
PICTURE = 4096  # pixels of a side that a processor may resize to
CROP = 0.1  # the smallest share that it may crop to
SIDES = ("size", "height", "width", "edge", "side")  # in the name of what is a length in pixels
ALWAYS = ("configuration_files", "fast_tokenizer_files")  # replace the files that were looked at by others
# Where older versions of transformers noted the files that they wrote from; none opens them.
NOTED = ("special_tokens_map_file", "tokenizer_file")


def entries(value: Any, inside: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of all that stands in a configuration, at any depth; a list's items have its name."""
    left = [(inside, value)]
    while left:
        name, part = left.pop()
        if isinstance(part, dict):
            yield from ((str(key), each) for key, each in part.items())
            left += [(str(key), each) for key, each in part.items() if isinstance(each, (dict, list))]
        elif isinstance(part, list):
            yield from ((name, each) for each in part)
            left += [(name, each) for each in part if isinstance(each, (dict, list))]


def refuse_other_files(file: Path, settings: dict[str, Any]) -> None:
    """Raise `UserError` where a configuration names other files in place of its folder's own, or files elsewhere."""
    for name, value in entries(settings):
        if name in ALWAYS and value:
            raise UserError(
                f"{file} names other files to read in its place ({name}): remove that, and keep the files themselves"
            )
        names_file = name.endswith(("_file", "_files", "_filename")) and name not in NOTED
        if names_file and isinstance(value, str) and not PLAIN_NAME.fullmatch(value):
            raise UserError(
                f"{file} says {name} = {value[:80]!r}, which is no file of its own folder: put it there, or remove that"
            )


def refuse_large_pictures(file: Path, settings: dict[str, Any]) -> None:
    """Raise `UserError` for a length in pixels, at any depth, that is no sane one, or a crop that blows images up."""
    left = [(False, settings)]
    while left:
        inside, part = left.pop()
        for name, value in part.items():
            length = inside or any(word in str(name) for word in SIDES)
            if name == "crop_pct" and _is_number(value) and not CROP <= value <= 1:
                raise UserError(f"{file} says crop_pct = {value}: give {CROP} to 1")
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, dict):
                    left.append((length, each))
                elif length and _is_number(each) and not 1 <= each <= PICTURE:
                    raise UserError(f"{file} asks for images of {each} pixels a side: give 1 to {PICTURE}")


def refuse_odd_normalisation(file: Path, config: dict[str, Any]) -> None:
    """Raise `UserError` where a torchvision configuration's ``image_size``, ``image_mean`` or ``image_std`` is none."""
    size = config.get("image_size")
    if size is not None and not (isinstance(size, int) and _is_number(size)):
        raise UserError(f"{file} says image_size = {str(size)[:60]}: give one number of pixels")
    for name in ("image_mean", "image_std"):
        given = config.get(name)
        if given is not None and not (isinstance(given, list) and given and all(_is_number(each) for each in given)):
            raise UserError(f"{file} says {name} = {str(given)[:60]}: give a list of one number a channel")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
