"""Requests whose parts do not fit one another, refused before anything is read: what stands where, what applies."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from influence_core.checkpoints.recorded import CHECKPOINT
from influence_core.checkpoints.sources import FILE_TYPES
from influence_core.data.finding import SPLIT_FILE, SPLIT_NAMES
from influence_core.data.hub import looks_like_hub_name
from influence_core.data.hugging_face import SAVED
from influence_core.data.idx import IMAGES
from influence_core.data.image_folder import files, folders, has_image_ending
from influence_core.data.readers import READERS
from influence_core.errors import UserError
from influence_core.specs import Sources

LOOKED_AT = 20  # files of a class's folder


def refuse_misplaced(spec: Sources) -> None:
    """Refuse a request without checkpoint or data, with data for a checkpoint, or with options of the hub for paths."""
    for what, given in (("checkpoint", spec.checkpoint), ("data", spec.data)):
        if not given.strip():
            raise UserError(f"the {what} is empty: give a path, or a name on the hub")
    checkpoint, data = is_data(spec.checkpoint), is_checkpoint(spec.data)
    if checkpoint and data:
        raise UserError(
            f"the checkpoint {spec.checkpoint} holds data, the data {spec.data} a checkpoint: give them the other way "
            "round"
        )
    if checkpoint:
        raise UserError(f"the checkpoint {spec.checkpoint} holds data: give the checkpoint first, then the data")
    if data:
        raise UserError(f"the data {spec.data} are a checkpoint: give the data that it is to be looked at with")
    models = [name for name in (spec.checkpoint, *spec.also) if looks_like_hub_name(name)]
    if spec.revision is not None and not models:
        raise UserError(f"revision is {spec.revision!r}, but {spec.checkpoint} is no name on the hub: leave it out")
    if not looks_like_hub_name(spec.data):
        for what, asked in (("configuration", spec.configuration), ("data_revision", spec.data_revision)):
            if asked is not None:
                raise UserError(f"{what} is {asked!r}, but {spec.data} is no data set on the hub: leave it out")


def is_checkpoint(text: str) -> bool:
    """Whether a text is the path of a checkpoint's folder, a Trainer's output folder, or a weights file."""
    return _judged(text, _is_checkpoint)


def is_data(text: str) -> bool:
    """Whether a text is the path of data, by the names of files."""
    return _judged(text, _is_data)


def _judged(text: str, judge: Callable[[Path], bool]) -> bool:
    """Judge the path that a text names; what cannot be looked at is nothing, and whoever reads it says why."""
    try:
        path = Path(text).expanduser()
        return path.exists() and judge(path)
    except (OSError, ValueError, RuntimeError, UserError):
        return False


def _is_checkpoint(path: Path) -> bool:
    if path.is_file():
        return path.suffix in FILE_TYPES
    inside = [path, *(each for each in path.iterdir() if CHECKPOINT.fullmatch(each.name))] if path.is_dir() else []
    return any((each / "config.json").is_file() for each in inside) and not _is_data(path)


def _is_data(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() in READERS or IMAGES.fullmatch(path.name) is not None
    if not path.is_dir():
        return False
    for each in path.iterdir():
        match = SPLIT_FILE.fullmatch(each.stem)
        split = match is not None and match["split"].casefold() in SPLIT_NAMES and each.suffix.lower() in READERS
        if split or each.name in SAVED or IMAGES.fullmatch(each.name):
            return True
    if (path / "config.json").is_file():
        return False
    return any(has_image_ending(file) for name in folders(path) for file in islice(files(path / name), LOOKED_AT))
