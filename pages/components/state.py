"""What is selected, in the URL and in the session: names of all keys, reading, changing.

The URL wins; what it does not say comes from the session (a link inside the app may drop the
query), and is written back, so that every address can be shared or reloaded.
"""

import json
from collections.abc import Sequence

import streamlit as st

# names in the URL (the same name keeps the value in the session)
WORKSPACE = "workspace"
CHECKPOINT = "checkpoint"
EXAMPLE = "example"  # the selected test row
ROW = "row"  # the selected training row
RUN = "run"
WITH = "with"  # runs that the selected one is compared with: ids, comma separated; there but empty: none chosen yet
SET = "set"  # test rows that are to be corrected together: a JSON list of ids
GROUPS = "groups"  # the key of a kept table that gives the groups of the set
URL_KEYS = (WORKSPACE, CHECKPOINT, EXAMPLE, SET, GROUPS, ROW, RUN, WITH)

# names in the session only
SELECTED = "selected"  # dict of the URL's values, kept from page to page
BROWSING = "browsing"  # ids that previous and next walk through, in the order on screen
QUEUE = "queue"  # training row ids handed from a ranking to Relabel or Correct, in rank order
QUEUE_EXAMPLE = "queue_example"  # the test row that the queue's ranking explains
SUSPECTS = "suspects_queue"  # training row ids that Relabel's list of suspects was left with
ANNOTATOR = "annotator"
NAVIGATED = "navigated"  # app.py has run before the page


def selected(name: str) -> str | None:
    """Return the selected value of a URL key."""
    return _values().get(name)


def select(**values: str | None) -> None:
    """Change what is selected, in the session and the URL; None clears.

    Another workspace drops everything that belongs to the old one, one example the set of several, another run
    those that the old one was compared with.
    """
    kept = _values()
    if values.get(EXAMPLE) is not None and SET not in values:
        kept.pop(SET, None)
    if RUN in values and values[RUN] != kept.get(RUN):
        kept.pop(WITH, None)
    if WORKSPACE in values and values[WORKSPACE] != kept.get(WORKSPACE):
        kept.clear()
        for name in (BROWSING, QUEUE, QUEUE_EXAMPLE, SUSPECTS):
            st.session_state.pop(name, None)
    for name, value in values.items():
        if name not in URL_KEYS:
            raise KeyError(name)
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = value
    _write(kept)


def forget(name: str) -> None:
    """Drop a widget's value from the session and the URL, so that its default holds again."""
    st.session_state.pop(name, None)
    if name in st.query_params:
        del st.query_params[name]


def sync() -> None:
    """Make URL and session agree; each page does this first (through the guard)."""
    kept = _values()
    asked = {name: st.query_params[name] for name in URL_KEYS if name in st.query_params}
    if WORKSPACE in asked and asked[WORKSPACE] != kept.get(WORKSPACE):
        kept.clear()  # a link into another workspace says all there is
    if EXAMPLE in asked and SET not in asked:  # an address of one example; inside the app both are in it
        kept.pop(SET, None)
    if RUN in asked and asked[RUN] != kept.get(RUN):
        kept.pop(WITH, None)
    kept.update(asked)
    _write(kept)


def url(**changes: str | None) -> dict[str, str]:
    """Return the query of a link to another page with the selection, perhaps changed."""
    values: dict[str, str | None] = {**_values(), **changes}
    return {name: value for name, value in values.items() if value is not None}


def go(page: str, **changes: str | None) -> None:
    """Change what is selected and open a page ("influence"); does not return."""
    select(**changes)
    st.switch_page(f"pages/{page}.py", query_params=url())


def as_set(ids: Sequence[str]) -> str:
    """Write test rows that are to be corrected together as a URL holds them."""
    return json.dumps(list(ids))


def chosen_set() -> list[str]:
    """Return the test rows that are to be corrected together; empty if none, or if the address is garbled."""
    try:
        found = json.loads(selected(SET) or "[]")
    except (ValueError, RecursionError):
        return []
    return list(dict.fromkeys(each for each in found if isinstance(each, str))) if isinstance(found, list) else []


def as_runs(ids: Sequence[str]) -> str:
    """Write the runs that the selected one is compared with as a URL holds them."""
    return ",".join(ids)


def compared_with() -> list[str] | None:
    """Return what the address says of the runs that the selected one is compared with; None where it is alone."""
    said = selected(WITH)
    return None if said is None else list(dict.fromkeys(filter(None, said.split(","))))


def browse(ids: Sequence[str]) -> None:
    """Set the rows that previous and next walk through."""
    st.session_state[BROWSING] = list(ids)


def browsing() -> list[str]:
    """Return the rows that previous and next walk through."""
    return list(st.session_state.get(BROWSING, []))


def hand_over(example: str, rows: Sequence[str]) -> None:
    """Put a ranking's training rows into the queue of Relabel and Correct."""
    st.session_state[QUEUE] = list(rows)
    st.session_state[QUEUE_EXAMPLE] = example


def handed_over(example: str) -> list[str]:
    """Return the training rows handed over for this test row, in rank order; empty if none."""
    return list(st.session_state.get(QUEUE, [])) if st.session_state.get(QUEUE_EXAMPLE) == example else []


def annotator() -> str:
    """Return the name typed for label events and runs; empty until typed."""
    return str(st.session_state.get(ANNOTATOR, ""))


def _values() -> dict[str, str]:
    values: dict[str, str] = st.session_state.setdefault(SELECTED, {})
    return values


def _write(values: dict[str, str]) -> None:
    if SET not in values:
        values.pop(GROUPS, None)
    if RUN not in values:
        values.pop(WITH, None)
    for name in URL_KEYS:
        if name in values and st.query_params.get(name) != values[name]:
            st.query_params[name] = values[name]
        elif name not in values and name in st.query_params:
            del st.query_params[name]
