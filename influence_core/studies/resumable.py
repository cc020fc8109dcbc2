"""What a study keeps of each repeat, so that it goes on where it was interrupted, and how long it may take."""

import time
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file

from influence_core.attribution.base import Arrays
from influence_core.attribution.tables import write_arrays
from influence_core.home import read_json, write_json
from influence_core.workspace import Workspace

ABOUT = "about.json"


class Repeat:
    """One repeat's folder among the workspace's artefacts, named by the key of all it depends on."""

    def __init__(self, workspace: Workspace, kind: str, key: dict[str, Any]) -> None:
        self.folder: Path = workspace.artefacts.path(kind, key)
        self._make = partial(
            workspace.artefacts.make, kind, key
        )  # with the first thing kept, so that readers make none

    def read(self, name: str) -> Arrays | None:
        """Return arrays that were kept, or None; damaged ones are as if they were not there."""
        file = self.folder / f"{name}.safetensors"
        try:
            return load_file(file) if file.exists() else None
        except (SafetensorError, OSError):
            return None

    def write(self, name: str, arrays: Arrays) -> None:
        """Keep arrays, all of them or nothing."""
        self._make()
        write_arrays(self.folder / f"{name}.safetensors", arrays)

    @property
    def about(self) -> dict[str, Any]:
        """How it was made."""
        return dict(read_json(self.folder / ABOUT))

    def describe(self, about: dict[str, Any]) -> None:
        """Record how it was made; written before the arrays, whose presence says that the repeat is done."""
        self._make()
        write_json(self.folder / ABOUT, about)


class Budget:
    """Minutes that a study may take, given out repeat by repeat."""

    def __init__(self, minutes: float | None) -> None:
        self.seconds = None if minutes is None else 60 * minutes
        self.started = self.begun = time.monotonic()
        self.longest: float | None = None  # seconds of a repeat in which something was made

    def begin(self) -> bool:
        """Begin another repeat if it fits; the first that is not kept always does, so that each call gets further."""
        self.begun = time.monotonic()
        if self.seconds is None or self.longest is None:
            return True
        return self.begun - self.started + self.longest <= self.seconds

    def made(self) -> None:
        """Count what the current repeat took up to here; not called where all of it was kept."""
        self.longest = max(self.longest or 0.0, time.monotonic() - self.begun)
