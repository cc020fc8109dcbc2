"""Where everything is kept: the folders under ``INFLUENCE_HOME``."""

import json
import os
import uuid
from pathlib import Path
from typing import Any


def home() -> Path:
    """Return ``INFLUENCE_HOME`` (default ``~/.influence-debugger``), made with mode 0700."""
    path = Path(os.environ.get("INFLUENCE_HOME", "~/.influence-debugger")).expanduser().resolve()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def folder(*parts: str) -> Path:
    """Return a folder under the home, made with mode 0700."""
    path = home().joinpath(*parts)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, readable by a person."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
