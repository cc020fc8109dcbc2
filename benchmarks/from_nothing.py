"""On the demo, from an empty cache to the first ABIF ranking: frozen prefix, curvature, projection, one query."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.processes import in_fresh_process
from benchmarks.timing import Measurement, Target

K, ITERATIONS, HESSIAN_ROWS = 32, 64, 256
LIMIT = 12 * 60  # seconds
QUERY = "the query, and the ranking"


def run(k: int = K, iterations: int = ITERATIONS, hessian_rows: int = HESSIAN_ROWS) -> list[Measurement]:
    """Time it once, in a home of its own with the demo prepared (without torch) and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        home = str(Path(folder) / "home")
        prepare = [sys.executable, "-m", "influence_core", "demo", "prepare", "movie-reviews"]
        subprocess.run(prepare, check=True, capture_output=True, env={**os.environ, "INFLUENCE_HOME": home})
        found = in_fresh_process("benchmarks.from_nothing:build", home, str(k), str(iterations), str(hessian_rows))
    total = found["seconds"]
    about = f"{found['rows']} rows, {k} of {iterations} eigenpairs over {hessian_rows} rows, scope {found['scope']}"
    lines = [
        Measurement("from nothing to the first ranking", total, total, total, 1.0, about, Target(LIMIT, of="seconds"))
    ]
    for phase, taken in found["phases"].items():
        lines.append(Measurement(f"… {phase}", taken, taken, taken, taken / total))
    return lines


def build(home: str, k: str, iterations: str, hessian_rows: str) -> dict[str, object]:
    """Build the index and rank one misprediction that it has to project; seconds by phase, as the events name them."""
    os.environ["INFLUENCE_HOME"] = home
    started = time.perf_counter()
    from influence_core.events import Progress
    from influence_core.runs import registry
    from influence_core.specs import IndexSpec, RankSpec
    from influence_core.workspace import Workspace

    workspace = Workspace.open(Workspace.names()[0])
    phases: dict[str, float] = {}
    last = started
    spec = IndexSpec(workspace=workspace.name, k=int(k), iterations=int(iterations), hessian_rows=int(hessian_rows))
    for event in registry.start(spec, Path(home) / "index-run"):
        now = time.perf_counter()
        if isinstance(event, Progress):  # what led to an event is its phase's; the first also has the imports
            phases[event.phase] = phases.get(event.phase, 0.0) + now - last
            last = now
    asked = RankSpec(workspace=workspace.name, example=workspace.mispredictions()["id"].iloc[0], method="abif")
    for _ in registry.start(asked, Path(home) / "rank-run"):
        pass
    done = time.perf_counter()
    phases[QUERY] = done - last
    return {
        "seconds": done - started,
        "phases": phases,
        "rows": len(workspace.train),
        "scope": workspace.scope,
    }
