"""Which rows make a group l_{B_q}, and what weight it has."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from influence_core.correction.strategies import Chosen
from influence_core.correction.together.setting import Together
from influence_core.correction.training import Group
from influence_core.errors import UserError
from influence_core.labels.store import LabelStore

NOBODY = "nobody"  # has decided on the row


@dataclass(frozen=True)
class Named:
    """A group with the name of what it is of: an example, a cell, an annotator, a slice, or all."""

    name: str
    group: Group


def grouped(together: Together, chosen: list[Chosen]) -> list[Named]:
    """Return the groups in order of their first row, with the weights that `CorrectionSetSpec` states.

    A row that two examples chose counts twice. Raises `UserError` where ``epsilons`` are not one a group.
    """
    spec = together.spec
    rows: dict[str, list[tuple[int, int]]] = {}
    names = _names(together, chosen)
    for own, of in zip(chosen, names, strict=True):
        for number, label, name in zip(own.numbers, own.labels, of, strict=True):
            rows.setdefault(name, []).append((int(number), int(label)))
    total = sum(map(len, rows.values()))
    if spec.epsilons and len(spec.epsilons) != len(rows):
        raise UserError(
            f"{len(spec.epsilons)} epsilons for {len(rows)} groups ({', '.join(list(rows)[:5])}): give one a group"
        )
    shares = (1 / len(rows) if spec.even_groups else len(of) / total for of in rows.values())
    weights = spec.epsilons or tuple(spec.weight_of(total) * share for share in shares)
    return [
        Named(name, Group(np.array([row for row, _ in of]), np.array([label for _, label in of]), epsilon))
        for (name, of), epsilon in zip(rows.items(), weights, strict=True)
    ]


def _names(together: Together, chosen: list[Chosen]) -> list[list[str]]:
    """Return the group's name of every chosen row, example by example."""
    by, labels = together.spec.group_by, together.workspace.label_names
    if by in ("annotator", "given"):  # a row is in the same group whichever example chose it
        of = _whose(together)
        ids = together.workspace.train["id"]
        return [[of(str(ids.iloc[number])) for number in own.numbers] for own in chosen]
    found = []
    for member, own in zip(together.members, chosen, strict=True):
        cell = f"{labels[member.predicted]} → {labels[member.desired]}"
        name = {"example": member.spec.example, "all": "all", "cell": cell}[by]
        found.append([name] * len(own.numbers))
    return found


def _whose(together: Together) -> Callable[[str], str]:
    """Return what gives a training row's group by the row's id."""
    if together.given is not None:
        return together.given.of
    deciders = _deciders(together)
    return lambda row: deciders.get(row, NOBODY)


def _deciders(together: Together) -> dict[str, str]:
    """Return by training row who gave it the label that stands at the cursor, by a change or by confirming it."""
    given: dict[str, dict[str, str]] = {}  # of each row: who gave which label last
    standing: dict[str, str] = {}
    for event in LabelStore().history(together.workspace.data_fingerprint):
        if (event.seq or 0) <= together.labels.cursor:
            standing[event.example] = event.new
            if event.verdict in ("change", "confirm"):
                given.setdefault(event.example, {})[event.new] = event.annotator
    return {row: by[standing[row]] for row, by in given.items() if standing[row] in by}
