"""Run every benchmark, or those named: ``python -m benchmarks [NAME…]``; ``--list`` names them."""

import argparse
import importlib
import json
import os
import pkgutil
import platform
import sys
from dataclasses import asdict
from pathlib import Path

import torch

import benchmarks
from benchmarks.timing import Measurement
from influence_core.runs.cluster import ENVIRONMENT

HELPERS = {"__main__", "captum_side", "fashion_data", "models", "processes", "small_t5", "timing"}
Line = tuple[str, Measurement]


def names() -> list[str]:
    """Return the benchmarks: modules here with a ``run()``."""
    return sorted(found.name for found in pkgutil.iter_modules(benchmarks.__path__) if found.name not in HELPERS)


def verdict(each: Measurement) -> str:
    """Say a line's target and whether it is met."""
    if each.target is None:
        return ""
    unit = " s" if each.target.of == "seconds" else ""
    return f"{each.target.sense} {each.target.limit:g}{unit}: {'met' if each.met else 'MISSED'}"


def table(results: list[Line]) -> str:
    """Lay out all measurements as one table."""
    head = ("benchmark", "what", "median s", "min – max s", "ratio", "target", "")
    lines = [head] + [
        (
            name,
            each.what,
            f"{each.seconds:.3g}",
            f"{each.low:.3g} – {each.high:.3g}",
            f"{each.ratio:.3g}",
            verdict(each),
            each.note,
        )
        for name, each in results
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def machine() -> dict[str, str | int]:
    """Describe what ran them."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def as_json(results: list[Line]) -> str:
    """Return the same table for a program."""
    lines = [{"benchmark": name, **asdict(each), "met": each.met} for name, each in results]
    return json.dumps({**machine(), "lines": lines}, indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Parse the arguments, run, print; returns 1 where a required target is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Times beside a baseline in the same run."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run (all of {', '.join(names())})")
    parser.add_argument("--list", action="store_true", help="name the benchmarks and stop")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there as well, as JSON")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names()):
        parser.error(f"no benchmark called {', '.join(sorted(unknown))}: choose from {', '.join(names())}")
    if arguments.list:
        print("\n".join(names()))
        return 0
    print(
        ", ".join(f"{name} {value}" for name, value in machine().items())
        + "; medians of repeats taken in turns; ratio to a benchmark's first line unless its words say otherwise"
    )
    results: list[Line] = []
    for name in arguments.names or names():
        print(f"running {name} …", file=sys.stderr)
        results += [(name, each) for each in importlib.import_module(f"benchmarks.{name}").run()]
        if arguments.json is not None:  # after each, so that a later one's failure loses nothing
            arguments.json.write_text(as_json(results), encoding="utf-8")
    print(table(results))
    return int(any(each.target is not None and each.target.required and not each.met for _, each in results))


if __name__ == "__main__":
    if not ENVIRONMENT.items() <= os.environ.items():  # both sides of each pair as in the engine's workers
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **ENVIRONMENT})
    sys.exit(main())
