"""Where everything is kept: the folders under ``INFLUENCE_HOME``."""

import json
import os
import uuid
from pathlib import Path
from typing import Any

from influence_core.errors import UserError


def home() -> Path:
    """Return ``INFLUENCE_HOME`` (default ``~/.influence-debugger``), made with mode 0700."""
    path = Path(os.environ.get("INFLUENCE_HOME", "~/.influence-debugger")).expanduser().resolve()
    return _made(path)


def _made(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the folder {path} cannot be made ({error.strerror}): set INFLUENCE_HOME to a folder that you can write"
        ) from None
    return path


def folder(*parts: str) -> Path:
    """Return a folder under the home, made with mode 0700."""
    return _made(home().joinpath(*parts))


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, readable by a person."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; raises `UserError` naming one that is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: restore it, or delete {path.parent} and make it again") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): delete {path.parent} and make it again") from None
