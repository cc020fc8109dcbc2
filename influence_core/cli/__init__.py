"""Everything the pages can do, without a browser: ``python -m influence_core COMMAND``."""

import sys

import typer
from typer.main import get_command

from influence_core.cli import (
    analysis,
    correction_studies,
    data,
    labels,
    ranking,
    records,
    running,
    studies,
    train,
    trust,
)
from influence_core.errors import RunFailedError, UserError

# typer brings its own copy of click and exports this one class of its errors; the base is the class of all
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Debug a classifier through its training data: influence, relabelling, live correction.",
)
for room in (data, train, ranking, analysis, records, trust, studies, correction_studies, labels, running):
    room.register(app)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; exit 0, 2 with a one-line message for bad input, 1 for a failed run."""
    try:
        typed = sys.argv[1:] if arguments is None else arguments
        code = get_command(app).main(args=typed, standalone_mode=False, obj=list(typed))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except UsageError as error:
        said = error.format_message() if isinstance(error, typer.BadParameter) else str(error)
        print(f"error: {said.replace('Value error, ', '')}", file=sys.stderr)
        code = 2
    except RunFailedError as error:
        print(f"failed: {error}", file=sys.stderr)
        code = 1
    except (KeyboardInterrupt, typer.Abort):
        print("stopped", file=sys.stderr)
        code = 1
    except BrokenPipeError:  # the reader of our output went away (| head)
        sys.stderr.close()
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
