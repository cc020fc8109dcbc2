"""What a Hessian is taken of: how many rows, and the l2 that belongs to the loss; no torch, since keys ask it too."""

from typing import TYPE_CHECKING, Any

from influence_core.errors import UserError
from influence_core.specs import DEFAULT_HESSIAN_ROWS

if TYPE_CHECKING:
    from influence_core.workspace import Workspace


def sample_size(workspace: "Workspace", hessian_rows: int | None) -> int:
    """Return the number of Hessian rows: as asked, by default 256 or all rows where there are fewer.

    Raises `UserError` for more rows than there are.
    """
    n = len(workspace.train)
    if hessian_rows is None:
        return min(DEFAULT_HESSIAN_ROWS, n)
    if hessian_rows > n:
        raise UserError(f"hessian_rows = {hessian_rows} but there are {n} training rows: give at most {n}")
    return hessian_rows


def coupled_l2(workspace: "Workspace", checkpoint: str | None) -> float:
    """Return the l2 that belongs to L: the checkpoint's weight decay where it is coupled (DEFINITIONS, Loss)."""
    optimizer = workspace.checkpoint(checkpoint).optimizer or {}
    return 0.0 if optimizer.get("decoupled", False) else float(optimizer.get("weight_decay", 0.0))


def undecayed(workspace: "Workspace", checkpoint: str | None) -> list[str]:
    """Return the parameters, by name and in order, that a coupled l2 leaves alone; empty without one."""
    optimizer = workspace.checkpoint(checkpoint).optimizer or {}
    return sorted(optimizer.get("undecayed", ())) if coupled_l2(workspace, checkpoint) else []


def decay_key(workspace: "Workspace", checkpoint: str | None) -> dict[str, Any]:
    """Return what a key says of the l2 in the loss: nothing where there is none, nor of parameters without it."""
    found = {"l2": coupled_l2(workspace, checkpoint), "undecayed": undecayed(workspace, checkpoint)}
    return {name: value for name, value in found.items() if value}
