"""Influence functions for debugging classifiers through their training data.

Importing this package does not import torch: `Workspace` is the front door, and the heavy rooms
are loaded when a run needs them.
"""

__version__ = "0.1.0"
