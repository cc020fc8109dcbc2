"""Run every benchmark, or those named: ``python -m benchmarks [NAME…]``; ``--list`` names them."""

import argparse
import importlib
import pkgutil
import platform

import torch

import benchmarks
from benchmarks.timing import Measurement

HELPERS = {"__main__", "timing"}


def names() -> list[str]:
    """Return the benchmarks: modules here with a ``run()``."""
    return sorted(found.name for found in pkgutil.iter_modules(benchmarks.__path__) if found.name not in HELPERS)


def table(results: list[tuple[str, Measurement]]) -> str:
    """Lay out all measurements as one table."""
    head = ("benchmark", "what", "median s", "min – max s", "ratio", "")
    lines = [head] + [
        (name, each.what, f"{each.seconds:.2f}", f"{each.low:.2f} – {each.high:.2f}", f"{each.ratio:.2f}", each.note)
        for name, each in results
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Times beside a baseline in the same run."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run (all of {', '.join(names())})")
    parser.add_argument("--list", action="store_true", help="name the benchmarks and stop")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names()):
        parser.error(f"no benchmark called {', '.join(sorted(unknown))}: choose from {', '.join(names())}")
    if arguments.list:
        print("\n".join(names()))
        return
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, "
        f"{torch.get_num_threads()} threads; medians of repeats taken in turns; ratio to a benchmark's first line"
    )
    results = []
    for name in arguments.names or names():
        module = importlib.import_module(f"benchmarks.{name}")
        results += [(name, each) for each in module.run()]
    print(table(results))


if __name__ == "__main__":
    main()
