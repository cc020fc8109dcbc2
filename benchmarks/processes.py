"""Benchmarks in processes of their own: a fresh start, and what it reports."""

import json
import subprocess
import sys
from typing import Any


def in_fresh_process(function: str, *arguments: str) -> Any:
    """Call ``package.module:function`` with text arguments in a new interpreter; returns what it returns, by JSON."""
    module, _, name = function.partition(":")
    code = f"import json, sys; from {module} import {name} as f; print(json.dumps(f(*sys.argv[1:])))"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{function} failed in its process:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
