"""``--method`` and ``--set``: a method and its own settings from the command line."""

import json
from typing import Annotated, Any

import typer

from influence_core.errors import UserError
from influence_core.settings import METHOD_NAMES, SETTINGS

Method = Annotated[
    str | None, typer.Option(help=f"{', '.join(METHOD_NAMES)} (default: abif if an index exists, else tracin)")
]
SetOptions = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="a setting of the method, as often as needed (damping=0.1)"),
]


def settings_of(method: str | None, given: list[str] | None) -> dict[str, Any] | None:
    """Return NAME=VALUE pairs as settings, or None where none were given; numbers are read as such.

    Several values of one setting are separated by commas. Raises `UserError` for what is no pair.
    """
    if not given:
        return None
    found: dict[str, Any] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise UserError(f"--set {item!r}: write it as NAME=VALUE, as in damping=0.1")
        found[name.replace("-", "_")] = _value(method, name, value)
    return found


SetOfMethods = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="METHOD.NAME=VALUE", help="a setting of a method (tracin-adam.form=twice)"),
]


def settings_of_methods(given: list[str] | None) -> dict[str, dict[str, Any]] | None:
    """Return METHOD.NAME=VALUE pairs as settings by method, or None where none were given.

    Raises `UserError` for what is no such pair, and for a method that there is not.
    """
    found: dict[str, dict[str, Any]] = {}
    for item in given or ():
        method, dot, pair = item.partition(".")
        if not dot or "=" in method:
            raise UserError(f"--set {item!r}: write it as METHOD.NAME=VALUE, as in tracin-adam.form=twice")
        if method not in SETTINGS:
            raise UserError(f"--set {item!r}: there is no method {method!r}, choose of {', '.join(SETTINGS)}")
        found.setdefault(method, {}).update(settings_of(method, [pair]) or {})
    return found or None


def _value(method: str | None, name: str, value: str) -> Any:
    field = SETTINGS[method].model_fields.get(name) if method in SETTINGS else None
    if field is not None and isinstance(field.default, tuple):
        return value.split(",")
    try:
        return json.loads(value)
    except ValueError:
        return value
