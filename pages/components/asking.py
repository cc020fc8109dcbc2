"""What to ask of a ranking: pickers for method, target label and order, and the spec they make."""

import streamlit as st

from influence_core.attribution.abif import Abif, has_basis
from influence_core.specs import RankSpec
from influence_core.workspace import Workspace
from pages.components.evidence import METHOD_NAMES
from pages.components.guard import Context

# names in the URL as well
METHOD = "method"
TARGET = "target"
ORDER = "order"

METHOD_HELP = (
    "ABIF: inner products on the Hessian's leading eigenvectors, from an index. "
    "TracIn: the plain inner product of the two loss gradients. Positive scores are proponents in both."
)
TARGET_HELP = (
    "Whose loss the scores speak of: a proponent lowers the loss of this label. "
    "Predicted asks why the model says what it says, gold what speaks for the truth."
)
ORDER_HELP = (
    "Cosine compares directions; the plain score is led by a few rows with large gradients, whatever the question."
)


def index_state(workspace: Workspace, checkpoint: str) -> str:
    """Return "none", "shipped" (an index without its basis) or "basis" for a checkpoint."""
    table = Abif().table(workspace, RankSpec(workspace=workspace.name, checkpoint=checkpoint, example=""))
    return "none" if table is None else "basis" if has_basis(table) else "shipped"


def ask(context: Context, example: str, disabled: bool) -> RankSpec:
    """Show the pickers and return the spec; without an index the default method is TracIn.

    Where they do not matter they are shown disabled: a picker that goes away forgets its choice.
    """
    workspace = context.workspace
    default = "tracin" if index_state(workspace, context.checkpoint.name) == "none" else "abif"
    targets = ["predicted", "gold", *workspace.label_names]
    first, second, third = st.columns(3)
    method = first.selectbox(
        "Method",
        list(METHOD_NAMES),
        index=list(METHOD_NAMES).index(default),
        format_func=lambda name: METHOD_NAMES[name],
        key=METHOD,
        help=METHOD_HELP,
        disabled=disabled,
        bind="query-params",
    )
    target = second.selectbox(
        "Target label", targets, key=TARGET, help=TARGET_HELP, disabled=disabled, bind="query-params"
    )
    order = third.selectbox(
        "Order", ["cosine", "score"], key=ORDER, help=ORDER_HELP, disabled=disabled, bind="query-params"
    )
    options = {**context.spec, "example": example, "method": method, "target": target, "by": order}
    return workspace.spec(RankSpec, options)
