"""Files that a study writes beside what it prints: its figure, and the record of its whole result."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from influence_core.cli.study_options import StudyOptions
from influence_core.errors import UserError
from influence_core.home import write_json
from influence_core.specs import Spec

if TYPE_CHECKING:
    import plotly.graph_objects as go


def check_file(option: str, path: Path | None, endings: tuple[str, ...]) -> None:
    """Refuse a file before anything long begins: another ending, no folder, or PNG without kaleido."""
    if path is None:
        return
    if path.suffix not in endings:
        raise UserError(f"{option} {path}: give a file that ends in {' or '.join(endings)}")
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {path.parent}, make it first")
    if path.suffix == ".png" and find_spec("kaleido") is None:
        raise UserError(
            f"{option} {path}: a PNG needs the kaleido library: run pip install -r requirements-figures.txt, "
            "or write .html"
        )


def save_figure(figure: "go.Figure", path: Path) -> None:
    """Write a figure; HTML ones of a folder share one plotly.min.js beside them, so that they work offline."""
    if path.suffix == ".html":
        figure.write_html(path, include_plotlyjs="directory")
    else:
        figure.write_image(path, scale=2)


def save_record(options: StudyOptions, spec: Spec, value: dict[str, Any]) -> None:
    """Write ``--out`` where it was given (`influence_core.studies.record`)."""
    if options.out is not None:
        from influence_core.studies.record import record

        write_json(options.out, record(options.command, spec, value))
