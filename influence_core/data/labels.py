"""The data's labels and the checkpoint's classes: which is which."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from influence_core.errors import UserError

GENERIC = re.compile(r"LABEL_\d+")  # what a configuration says where nobody named its classes
NUMBER = re.compile(r"-?[0-9]{1,18}")
FEW = 0.05  # share of the rows whose labels match nothing that counts as rows to fix, not labels to map
SHOWN = 40  # characters of a label in a message
LISTED = 5  # labels that are named one by one

How = Literal["name", "number", "given", "none"]


@dataclass(frozen=True)
class Matching:
    """What each label means."""

    how: How
    names: tuple[str, ...]  # the classes as the workspace names them, in order of the logits
    classes: dict[str, str | None]  # label → class, by the checkpoint's own name; None where nothing matches
    index: dict[str, int]  # label → class number, of those that match
    few: frozenset[str]  # labels of so few rows that these are broken; not in ``classes``


class Named:
    """Numbers of classes by name: as written, else in any case where one class only is so named."""

    def __init__(self, names: Sequence[str]) -> None:
        self.exact = {name: number for number, name in enumerate(names)}
        folds = Counter(name.casefold() for name in self.exact)
        self.folded = {name.casefold(): n for name, n in self.exact.items() if folds[name.casefold()] == 1}

    def get(self, name: str) -> int | None:
        """Return a class's number, or None."""
        written = name.strip()
        return self.exact.get(written, self.folded.get(written.casefold()))


def match(
    counts: Mapping[str, int],
    classes: Sequence[str],
    own: Sequence[str] = (),
    numbered: bool = False,
    given: Mapping[str, str] | None = None,
) -> Matching:
    """Match labels (with their row counts) to classes.

    As ``given`` where something is; else by name (`Named`) or as numbers from 0, whichever is right
    for more rows (names, if equally many). ``own`` are class names that the data carries in order of
    their numbers; ``numbered`` says that the data's maker gave these numbers, otherwise they count
    only where the checkpoint's classes have no names. Without classes (T5) the labels are the classes.
    """
    if not classes:
        return _own_classes(counts, own, given or {})
    generic = all(GENERIC.fullmatch(name) for name in classes)
    by_name = Named(classes)
    by_number = Named([str(number) for number in range(len(classes))])
    of_own = Named(own[: len(classes)] if numbered or generic else ())
    how: How
    if given:
        wanted: dict[str, int] = {}
        for label, name in given.items():
            number = next((n for known in (by_name, by_number, of_own) if (n := known.get(name)) is not None), None)
            if number is None:
                raise UserError(
                    f"label {label!r} was given the class {name!r}, which is none of the checkpoint's "
                    f"({', '.join(classes)}, or their numbers from 0): choose one of them"
                )
            wanted[label.strip()] = number
        index = {label: wanted.get(label, by_name.get(label)) for label in counts}
        how = "given"
    else:
        named = {label: by_name.get(label) for label in counts}
        counted = {label: (of_own if of_own.exact else by_number).get(label) for label in counts}
        how = "name" if _rows(named, counts) >= _rows(counted, counts) else "number"
        index = named if how == "name" else counted
        how = how if _rows(index, counts) else "none"
    known = {label: number for label, number in index.items() if number is not None}
    few = _few(index, counts)
    return Matching(
        how,
        _names(classes, own if how == "number" and of_own.exact else (), known if generic and how == "given" else {}),
        {label: None if (n := index[label]) is None else classes[n] for label in counts if label not in few},
        known,
        few,
    )


def in_order(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the labels sorted, as numbers where all are."""
    numbers = all(NUMBER.fullmatch(label) for label in counts)
    return dict(sorted(counts.items(), key=lambda item: (int(item[0]) if numbers else 0, item[0])))


def _own_classes(counts: Mapping[str, int], own: Sequence[str], given: Mapping[str, str]) -> Matching:
    """Take the data's labels as the classes: in the order of their own numbers, else sorted."""
    numbers = all(NUMBER.fullmatch(label) for label in counts)
    labels = list(own) or list(in_order(counts))
    allowed = [label for label in labels if not (numbers and not own and int(label) < 0)]
    wanted = {label: (given.get(label) or label).strip() for label in allowed}
    names = tuple(dict.fromkeys(wanted.values()))
    index = {label: names.index(wanted[label]) if label in wanted else None for label in counts}
    few = _few(index, counts)
    known = {label: number for label, number in index.items() if number is not None}
    shown = {label: None if (n := index[label]) is None else names[n] for label in counts if label not in few}
    return Matching("given" if given else "name", names, shown, known, few)


def _names(classes: Sequence[str], own: Sequence[str], mapped: Mapping[str, int]) -> tuple[str, ...]:
    """Return the classes' names; those without a name take the data's."""
    names = list(classes)
    for number, name in enumerate(own[: len(classes)]):
        names[number] = name if GENERIC.fullmatch(names[number]) else names[number]
    for number in range(len(classes)):
        labels = [label for label, each in mapped.items() if each == number]
        names[number] = labels[0] if len(labels) == 1 else names[number]
    return tuple(names) if len(set(names)) == len(names) else tuple(classes)


def _rows(index: Mapping[str, int | None], counts: Mapping[str, int]) -> int:
    """Return how many rows have a label that matches."""
    return sum(counts[label] for label, number in index.items() if number is not None)


def _few(index: Mapping[str, int | None], counts: Mapping[str, int]) -> frozenset[str]:
    """Return the labels that match nothing, where they are few rows beside those that match.

    Negative numbers are so however many rows have them: -1 is what data says for "no label".
    """
    left = frozenset(label for label, number in index.items() if number is None)
    negative = frozenset(label for label in left if NUMBER.fullmatch(label) and label.startswith("-"))
    matched = _rows(index, counts)
    rows = matched + sum(counts[label] for label in left - negative)
    return frozenset() if not matched else left if matched > (1 - FEW) * rows else negative


def short(label: str) -> str:
    """Return a label as messages show it."""
    return label if len(label) <= SHOWN else f"{label[:SHOWN]}…"


def problems(
    matching: Matching,
    counts: Mapping[str, int],
    first: Mapping[str, str],
    classes: Sequence[str],
    given: Mapping[str, str] | None = None,
) -> list[str]:
    """Say in one line each which labels stand in the way; ``first`` is where each label stands first."""
    found = lacking(counts, given or {})
    left = [label for label, name in matching.classes.items() if name is None]
    listed = ", ".join(classes or matching.names)
    if left and len(matching.classes) > len(classes or matching.names):
        found.append(
            f"the data have {len(matching.classes)} labels ({some(matching.classes)}), the checkpoint has "
            f"{len(classes)} classes ({listed}): choose a class for each label, or another checkpoint"
        )
    for label in left[:LISTED]:
        said = f"is none of the checkpoint's classes ({listed}, or their numbers from 0)"
        if matching.how == "given":
            said = f"was given no class ({listed})"
        found.append(
            f"{first[label]}: label {short(label)!r} {said}, in {counts[label]:,} rows: choose its class, or fix the "
            "rows"
        )
    if len(left) > LISTED:
        found.append(f"{len(left) - LISTED} more labels match no class: choose a class for each")
    return found


def lacking(counts: Mapping[str, int], given: Mapping[str, str]) -> list[str]:
    """Say which labels were given a class and stand nowhere in the data."""
    return [
        f"label {short(label)!r} was given the class {name!r}, but the data have no such label (they have "
        f"{some(counts)}): leave it out, or correct it"
        for label, name in given.items()
        if label.strip() not in counts
    ]


def some(labels: Iterable[str]) -> str:
    """Write the first labels."""
    first = [short(label) for label in islice(labels, 2 * LISTED + 1)]
    return ", ".join(first if len(first) <= 2 * LISTED else [*first[:-1], "…"])
