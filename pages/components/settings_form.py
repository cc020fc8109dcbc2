"""A method's settings as widgets, made from its settings model alone: a new method's form appears by itself."""

import math
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import streamlit as st
from pydantic.fields import FieldInfo

from influence_core.settings import SETTINGS
from influence_core.specs import Attributed
from influence_core.workspace import Workspace
from pages.components.text import plain

_ADOPTED = "settings_adopted"  # ids of runs whose settings were taken over
DEFAULT = "default"  # what a field says that leaves the choice to the method


def settings_popover(workspace: Workspace, method: str) -> None:
    """Show a button that opens the method's form; nothing for a method without settings."""
    fields = SETTINGS[method].model_fields
    if not fields:
        return
    changed = len(chosen(method))
    label = f"Settings ({changed} changed)" if changed else "Settings"
    with st.popover(label, icon=":material/tune:", key=f"settings_{method}"):
        names = [entry.name for entry in workspace.checkpoints()]
        for name, field in fields.items():
            _widget(name, field, widget_key(method, name), names)
        st.button(
            "Back to the defaults",
            key=f"defaults_{method}",
            icon=":material/undo:",
            on_click=put,
            args=(method, {}),
            disabled=not changed,
        )


def chosen(method: str) -> dict[str, Any]:
    """Return the settings that this session changed from their defaults, not checked."""
    found = {}
    for name, field in SETTINGS[method].model_fields.items():
        value = st.session_state.get(widget_key(method, name), field.default)
        value = tuple(value) if isinstance(value, list) else value
        if value != field.default:
            found[name] = value
    return found


def put(method: str, settings: Mapping[str, Any]) -> None:
    """Set the form (in a callback, or before it is shown); what is not given goes back to its default."""
    for name, field in SETTINGS[method].model_fields.items():
        value = settings.get(name, field.default)
        st.session_state[widget_key(method, name)] = list(value) if isinstance(value, tuple | list) else value


def adopt(run_id: str, spec: Attributed) -> bool:
    """Take over the settings of a run that an address brought back, once a run; returns whether it was now."""
    seen: set[str] = st.session_state.setdefault(_ADOPTED, set())
    if run_id in seen or spec.method is None:
        return False
    seen.add(run_id)
    put(spec.method, spec.settings)
    return True


def widget_key(method: str, name: str) -> str:
    """Return the key of one field's value, kept for the whole session."""
    return f"setting_{method}_{name}"


def _widget(name: str, field: FieldInfo, key: str, checkpoints: Sequence[str]) -> None:
    """Show one field; bounds that leave out their end are checked with the spec. Tuples of text are checkpoints."""
    kind, optional = _kind(field)
    label, text = plain(field.title or name), plain(field.description or "")
    # written each time: a widget of another page with this key is another widget to Streamlit, and has its own value
    value = st.session_state[key] = st.session_state.get(key, field.default)
    if get_origin(kind) is tuple:
        st.session_state[key] = [one for one in value if one in checkpoints]
        st.multiselect(label, checkpoints, key=key, help=text, placeholder=DEFAULT, persist_state="session")
        return
    if get_origin(kind) is Literal:
        options = [None] * optional + list(get_args(kind))
        st.selectbox(label, options, format_func=_choice, key=key, help=text, persist_state="session")
    elif kind is bool:
        st.toggle(label, key=key, help=text, persist_state="session")
    elif kind is int or kind is float:
        whole = kind is int
        given: dict[str, Any] = {
            "min_value": _bound(field, kind, "ge", "gt"),
            "max_value": _bound(field, kind, "le", "lt"),
            "value": None if optional else "min",
            "step": 1 if whole else _step(field.default),
        }
        st.number_input(
            label,
            **given,
            format="%d" if whole else "%g",
            key=key,
            help=text,
            placeholder=DEFAULT if optional else None,
            persist_state="session",
        )
    else:
        raise TypeError(f"setting {name}: no widget for {field.annotation}")


def _kind(field: FieldInfo) -> tuple[Any, bool]:
    """Return a field's type without None, and whether None is allowed."""
    if get_origin(field.annotation) not in (Union, UnionType):
        return field.annotation, False
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    return (kinds[0] if len(kinds) == 1 else field.annotation), True


def _bound(field: FieldInfo, kind: type[int] | type[float], *names: str) -> float | None:
    """Return the first of these bounds that the field has, as a number of its kind."""
    found = [getattr(entry, name) for name in names for entry in field.metadata if hasattr(entry, name)]
    return kind(found[0]) if found else None


def _step(default: float | None) -> float:
    """Return the power of ten of a default, 0.01 where it has none."""
    return 10.0 ** math.floor(math.log10(default)) if default else 0.01


def _choice(value: str | None) -> str:
    return DEFAULT if value is None else value
