"""Which ranking was looked at on Influence, so that Relabel and Correct speak of the same one."""

from typing import Any

import streamlit as st

from pages.components import asking

OPTIONS = {"method": asking.METHOD, "target": asking.TARGET, "by": asking.ORDER}


def chosen() -> dict[str, Any]:
    """Return method, target and order as options of `RankSpec`; what was not chosen in this session is left out."""
    found = {option: st.session_state.get(key) for option, key in OPTIONS.items()}
    return {option: value for option, value in found.items() if value is not None}
