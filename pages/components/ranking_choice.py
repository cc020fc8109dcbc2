"""Which ranking was looked at on Influence, so that Relabel and Correct speak of the same one."""

from typing import Any

import streamlit as st

from pages.components import asking, settings_form

OPTIONS = {"method": asking.METHOD, "target": asking.TARGET, "by": asking.ORDER}


def chosen() -> dict[str, Any]:
    """Return method with settings, target and order as options of `RankSpec`; what was not chosen is left out."""
    found = {option: st.session_state.get(key) for option, key in OPTIONS.items()}
    options = {option: value for option, value in found.items() if value is not None}
    if "method" in options:
        options["settings"] = settings_form.chosen(options["method"])
    return options
