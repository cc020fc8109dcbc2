"""Homes for tests: a folder of their own for all that is kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def living_in(home: Path) -> Iterator[Path]:
    """Point INFLUENCE_HOME at a folder while the block lasts, with the label store inside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFLUENCE_HOME", str(home))
        patch.delenv("INFLUENCE_DATABASE_URL", raising=False)
        yield home
