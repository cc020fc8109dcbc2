"""Symbolic links in a checkpoint's folder: none may lead out of it. No torch."""

import os
from pathlib import Path

from influence_core.errors import UserError

DEPTH = 1  # a Trainer's output folder holds its checkpoints; nothing deeper is read


def refuse_links_out(folder: Path) -> None:
    """Raise `UserError` naming a link in a folder that leads out of it.

    The hub's cache is laid out as links, ``models--owner--name/snapshots/<revision>/file`` to
    ``models--owner--name/blobs/<hash>``: those are let through, to that folder only.
    """
    root = folder.resolve()
    allowed = [root]
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        allowed.append(root.parent.parent / "blobs")
    for here, folders, files in os.walk(root):
        for name in (*folders, *files):
            entry = Path(here, name)
            if entry.is_symlink():
                target = entry.resolve()
                if not any(target.is_relative_to(place) for place in allowed):
                    raise UserError(
                        f"{entry} is a link that leads out of {folder}: put the file itself there, or remove the link"
                    )
        if len(Path(here).relative_to(root).parts) >= DEPTH:
            folders.clear()
