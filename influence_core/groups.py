"""Groups of training rows that a table gives: slices, or the sources of a data mixture. Read, checked, kept."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import pandas as pd

from influence_core.artefacts import write_parquet
from influence_core.data.columns import first_of
from influence_core.data.dataset import places_of
from influence_core.data.readers import READERS
from influence_core.data.source import Columns, Source, not_text, printable
from influence_core.errors import UserError
from influence_core.fingerprints import key_hash
from influence_core.home import read_json
from influence_core.specs import GROUPS_KEY
from influence_core.workspace import Workspace

KIND = "groups"  # of the artefact
ID = ("id", "example")  # what the columns are usually called, in any case
GROUP = ("group", "source", "slice")
MOST = 200  # groups of one table
LONGEST = 200  # characters of a group's name, which stands in captions and reports
NAMED = 5  # ids, columns or groups that a message lists
UNNAMED = "no group given"  # the group of the rows that the table does not name


@dataclass(frozen=True)
class Given:
    """A kept table: of each training row that it names, the group."""

    key: str  # `CorrectionSetSpec.groups`
    file: str  # the name of the file that it was read from
    column: str  # of that file
    groups: Mapping[str, str] = field(repr=False)

    def of(self, row: str) -> str:
        """Return the group of a training row."""
        return self.groups.get(row, UNNAMED)

    @property
    def counts(self) -> dict[str, int]:
        """How many training rows each group has, the largest first."""
        return dict(Counter(self.groups.values()).most_common())


def group_columns(path: Path, name: str | None = None) -> tuple[list[str], str | None]:
    """Return the columns that may hold the group, and which of them has a usual name, if one has.

    ``name`` is what messages call the file. Raises `UserError` for a file that cannot be read or has no column of ids.
    """
    name = name or path.name
    return _columns(_source(path, name), name)


def keep_groups(workspace: Workspace, path: Path, column: str | None = None, name: str | None = None) -> Given:
    """Read groups from a CSV, TSV, JSONL or Parquet file, check them and keep them in the workspace.

    The file has a column ``id`` of training rows and one of their groups, by default the first of those that
    are called group, source or slice. A row without a group is as if it were not there. The same groups of a
    file of the same name have the same key. ``name`` is what messages call the file.

    Raises:
        UserError: the file cannot be read, lacks a column, has no group or too many, or names a row that is no
            training row, or one in two groups.
    """
    name = name or path.name
    source = _source(path, name)
    others, usual = _columns(source, name)
    if column is not None and column not in others:
        raise UserError(f"{name} has no column {column!r} for the group: choose one of {_listed(others)}")
    chosen = column or usual
    if chosen is None:
        raise UserError(
            f"{name} has no column that is called {', '.join(GROUP[:-1])} or {GROUP[-1]}: name the column of the "
            f"group, it has {_listed(others)}"
        )
    try:
        found = _read(source, chosen, name)
    except UserError as error:  # the readers say the path, which may be a temporary one
        raise UserError(str(error).replace(str(path), name)) from None
    groups = _in_order(workspace, found, name)
    if len(set(groups.values())) > MOST:
        raise UserError(
            f"column {chosen!r} of {name} has {len(set(groups.values())):,} groups, at most {MOST} are possible: "
            "choose a column with fewer, or put some together"
        )
    if (long := max(groups.values(), key=len)) and len(long) > LONGEST:
        raise UserError(f"a group of column {chosen!r} of {name} has {len(long):,} characters, {LONGEST} are possible")
    if UNNAMED in groups.values():
        raise UserError(f"{UNNAMED!r} is how rows without a group are called: give that group of {name} another name")
    digest = hashlib.sha256(json.dumps(groups).encode()).hexdigest()
    key = {"data": workspace.data_fingerprint, "file": printable(name), "column": chosen, "groups": digest}
    folder = workspace.artefacts.make(KIND, key)
    write_parquet(folder / "groups.parquet", pd.DataFrame({"id": list(groups), "group": list(groups.values())}))
    return Given(key_hash(key), key["file"], chosen, groups)


def kept_groups(workspace: Workspace, key: str) -> Given:
    """Return the groups that `keep_groups` kept; raises `UserError` where there are none of this key."""
    folder = workspace.artefacts.folder / KIND / key
    if not re.fullmatch(GROUPS_KEY, key) or not (folder / "key.json").is_file():
        raise UserError(f"{workspace.name} keeps no groups of the key {key[:40]!r}: give the file of the groups again")
    file = folder / "groups.parquet"
    try:
        about = read_json(folder / "key.json")
        name, column = str(about["file"]), str(about["column"])
        groups = _kept(file, file.stat().st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's errors are among them
        said = str(error).splitlines()[0]
        raise UserError(f"{file} cannot be read ({said}): give the file of the groups again") from None
    return Given(key, name, column, groups)


@lru_cache(maxsize=4)  # a page asks again at every click
def _kept(file: Path, _changed: int) -> Mapping[str, str]:
    table = pd.read_parquet(file)
    return dict(zip(table["id"], table["group"], strict=True))


def _source(path: Path, name: str) -> Source:
    ending = Path(name).suffix.lower()
    if ending not in READERS:
        raise UserError(f"{name} ends in {ending or 'nothing'!r}: give the groups as a {', '.join(READERS)} file")
    try:
        return READERS[ending](path)
    except UserError as error:
        raise UserError(str(error).replace(str(path), name)) from None


def _columns(source: Source, name: str) -> tuple[list[str], str | None]:
    if wrong := next((said for column in source.columns if (said := not_text(column))), None):
        raise UserError(f"{name} has a column whose name is not UTF-8 ({wrong}): rename it, save as UTF-8")
    own = first_of(ID, source.columns)
    if own is None:
        raise UserError(
            f"{name} has no column {ID[0]!r}, it has {_listed(source.columns)}: give a file with the ids of "
            "training rows and their groups"
        )
    others = [column for column in source.columns if column not in (own, *source.image_columns)]
    if not others:
        raise UserError(f"{name} has no column beside {own!r}: add one with the group of each row")
    return others, first_of(GROUP, others)


def _read(source: Source, column: str, name: str) -> dict[str, str]:
    """Return the group of each id of the file, empty where it has none."""
    own = first_of(ID, source.columns)
    found: dict[str, str] = {}
    places: dict[str, int | str] = {}  # of the ids' first rows
    torn: list[str] = []
    for row in source.rows(Columns(column, column, own, "text"), contents=False):
        wrong = row.broken.replace("the label", "the group") or not_text(row.label) or not_text(row.id)
        if wrong or not row.id:
            raise UserError(f"{name}, row {row.place} cannot be used ({wrong or 'its id is empty'}): correct it")
        if found.setdefault(row.id, row.label) != row.label:
            torn.append(f"{row.id!r} is in {found[row.id]!r} by row {places[row.id]}, in {row.label!r} by {row.place}")
        places.setdefault(row.id, row.place)
    if torn:
        more = f" (and {len(torn) - 1:,} more such rows)" if len(torn) > 1 else ""
        raise UserError(f"{name} gives one training row two groups: {torn[0]}{more}: leave one for each row")
    if not found:
        raise UserError(f"{name} has no rows: give one for each training row that has a group")
    return found


def _in_order(workspace: Workspace, found: dict[str, str], name: str) -> dict[str, str]:
    """Return the groups in the order of the training rows, without the rows that have none."""
    places = places_of(workspace.train["id"], list(found))
    if unknown := [row for row in found if row not in places]:
        raise UserError(
            f"{len(unknown):,} of the {len(found):,} ids in {name} are no training row of {workspace.name}: "
            f"{_listed(unknown)}; its training rows have ids as {str(workspace.train['id'].iloc[0])!r}, correct it"
        )
    groups = {row: found[row] for row in sorted(places, key=places.__getitem__) if found[row]}
    if not groups:
        raise UserError(f"{name} has ids but no group, all its cells are empty: choose another column, or fill them in")
    return groups


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(repr(printable(name)) for name in names[:NAMED]) + more
