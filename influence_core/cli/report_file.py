"""The report of a correction, written where the user says."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from influence_core.errors import UserError
from influence_core.home import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from influence_core.events import SetStep, Step
    from influence_core.workspace import Workspace


def check_report(option: str, out: Path | None) -> None:
    """Refuse a file that cannot be a report, before anything long begins."""
    if out is None:
        return
    if out.suffix.lower() != ".html" or not out.parent.is_dir():
        raise UserError(f"{option} {str(out)!r}: give a file that ends in .html, in a folder that exists")
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        why = "it is a folder" if out.is_dir() else "its folder is not yours to write to"
        raise UserError(f"{option} {str(out)!r} cannot be written ({why}): give another place")


def save_report(option: str, out: Path, text: str) -> None:
    """Write a report; raises `UserError` where that cannot be done."""
    try:
        write_text(out, text)
    except OSError as error:
        raise UserError(f"{option} {str(out)!r} cannot be written ({error.strerror}): give another place") from None


def report_here(workspace: "Workspace", result: Path, steps: "Sequence[Step] | Sequence[SetStep]") -> str:
    """Return the report of a correction that ran here, without a run's folder; ``result`` is what it left."""
    from influence_core.reports.correction import correction_page
    from influence_core.reports.facts import read

    return correction_page(read(workspace, result), steps)
