"""Influence functions for debugging classifiers through their training data.

Importing this package does not import torch: `Workspace` is the front door, and the heavy rooms
are loaded when a run needs them.
"""

__version__ = "0.1.0"

__all__ = ["Workspace", "__version__"]


def __getattr__(name: str) -> object:
    """Load the front door when it is first used, so that small parts stay quick to import."""
    if name == "Workspace":
        from influence_core.workspace import Workspace

        return Workspace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
