"""From the words of a request to its sources: what is data, and which of its splits is which."""

import re
from dataclasses import dataclass
from pathlib import Path

from influence_core.data import hub, idx, image_folder
from influence_core.data.dataset import SPLITS
from influence_core.data.hugging_face import SAVED, open_saved
from influence_core.data.joined import Joined
from influence_core.data.readers import READERS
from influence_core.data.source import SHOWN, Source
from influence_core.errors import UserError
from influence_core.specs import Sources, Split

USUAL: dict[Split, tuple[str, ...]] = {  # what splits are called, in any case
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "t10k"),
}
SPLIT_NAMES = frozenset(name for names in USUAL.values() for name in names)
SPLIT_FILE = re.compile(r"(?P<split>[A-Za-z]+)(-\d{5}-of-(?P<parts>\d{5}))?")  # the latter as the hub names them
Named = dict[str, Source]  # splits by their own names; a single one may have none: ""


@dataclass(frozen=True)
class Located:
    """The sources of a request."""

    name: str  # the data's, for the workspace's name
    splits: dict[Split, Source]  # train first


def locate(spec: Sources) -> Located:
    """Open the data of a request; raises `UserError` for what is missing, unknown or has no such split."""
    if hub.looks_like_hub_name(spec.data):
        named = hub.open_dataset(spec.data, spec.configuration, spec.data_revision)
        name = spec.data.replace("/", "-")
    else:
        path = resolved(spec.data)
        named, name = open_path(path), path.stem if path.is_file() else path.name
    known = ", ".join(filter(None, named))
    has = f"(it has {known})" if known else "(it has no named splits)"
    taken: dict[Split, Source] = {}
    used = {spec.train, spec.validation, spec.test}
    if spec.train is not None and spec.train not in named:
        hint = "choose one of its own" if known else "leave train out"
        raise UserError(f"{spec.data} has no split {spec.train!r} {has}: {hint}")
    train = spec.train if spec.train is not None else usual(named, "train", used)
    if train is None:
        raise UserError(f"{spec.data} has no train split {has}: name the split to train on")
    taken["train"] = named[train]
    wanted: dict[Split, str | None] = {"validation": spec.validation, "test": spec.test}
    for split, asked in wanted.items():
        if asked in named:
            taken[split] = named[asked]
        elif asked:
            taken[split] = elsewhere(asked, split, spec.data, has)
        elif (own := usual(named, split, {*used, train})) is not None:
            taken[split] = named[own]
    return Located(name, {split: taken[split] for split in SPLITS if split in taken})


def usual(named: Named, split: Split, used: set[str | None]) -> str | None:
    """Return the own name of a split by what splits are usually called, unless it is used for something else."""
    if split == "train" and len(named) == 1:
        return next(iter(named))
    by_name = {own.casefold(): own for own in named if own not in used}
    return next((by_name[name] for name in USUAL[split] if name in by_name), None)


def elsewhere(asked: str, split: Split, data: str, has: str) -> Source:
    """Open a split that lies in a place of its own."""
    path = resolved(asked)
    if not path.exists() and not path.suffix:
        raise UserError(f"{data} has no split {asked!r} {has}, and no file is called that: give one or the other")
    named = open_path(path)
    own = "" if "" in named else usual(named, split, set())
    if own is None:
        raise UserError(f"{path} has no {split} split (it has {', '.join(named)}): give a file, or a folder of one")
    return named[own]


def resolved(text: str) -> Path:
    """Return the path that a text names; raises `UserError` for a text that names none."""
    try:
        path = Path(text).expanduser().resolve()
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{text[:SHOWN]!a} is no path ({error}): give an existing file or folder") from None
    return path


def open_path(path: Path) -> Named:
    """Open a file or folder by what it is; raises `UserError` for what is none of the known kinds."""
    try:
        return _open_path(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its permissions") from None


def _open_path(path: Path) -> Named:
    endings = ", ".join(READERS)
    if path.is_dir():
        if any((path / name).is_file() for name in SAVED):
            return open_saved(path)
        found = idx.open_folder(path) or split_files(path)
        if not found and image_folder.folders(path):
            found = image_folder.open_folder(path, SPLIT_NAMES)
        if not found:
            raise UserError(
                f"{path} holds no data: give a folder that save_to_disk wrote, of IDX files, of train and test "
                f"{endings} files, or with one folder of images a class"
            )
        return found
    if not path.is_file():
        raise UserError(f"{path} is missing: give an existing {endings} file, or a folder")
    if idx.IMAGES.fullmatch(path.name):
        return {"": idx.Idx(path)}
    if path.suffix.lower() not in READERS:
        raise UserError(f"{path} ends in {path.suffix or 'nothing'!r}: give a {endings} file")
    return {"": READERS[path.suffix.lower()](path)}


def split_files(path: Path) -> Named:
    """Open the files of a folder (or of the folder ``data`` in it) that are named after splits, as on the hub."""
    found: dict[str, list[Path]] = {}
    declared: dict[str, set[str | None]] = {}  # how many parts each split's file names say that there are
    for each in [*sorted(path.glob("*")), *sorted(path.glob("data/*"))]:
        match = SPLIT_FILE.fullmatch(each.stem)
        if match and match["split"].casefold() in SPLIT_NAMES and each.suffix.lower() in READERS and each.is_file():
            found.setdefault(match["split"], []).append(each)
            declared.setdefault(match["split"], set()).add(match["parts"])
    named: Named = {}
    for split, files in found.items():
        parts = [READERS[each.suffix.lower()](each) for each in files]
        if declared[split] != {f"{len(parts):05}"} and (len(parts) > 1 or declared[split] != {None}):
            raise UserError(f"{path} has {', '.join(each.name for each in files)} for {split}: leave one, or all parts")
        named[split] = parts[0] if len(parts) == 1 else Joined(parts, split, str(files[0].parent / split))
    return named
