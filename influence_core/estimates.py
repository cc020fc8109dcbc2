"""How long a run is going to take, from rates measured on this machine."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from influence_core.attribution.abif import Abif, has_basis
from influence_core.attribution.tables import IndexArrays, Table
from influence_core.attribution.tracin import TracIn
from influence_core.rates import rate
from influence_core.specs import (
    DEFAULT_HESSIAN_ROWS,
    RETENTION_ROWS,
    WARM_BATCHES,
    CorrectionSpec,
    IndexSpec,
    PredictSpec,
    RankSpec,
    Split,
)

if TYPE_CHECKING:
    from influence_core.workspace import Workspace

# Measured on 2 CPU cores with MiniLM-L6, last two blocks (3.7 M parameters); all scale with the
# forward rate that `rates.record` measured on the machine at hand.
FORWARD = 200.0  # rows a second, forward only
PROJECT_ONE = 70.0  # rows a second, projected on one direction
PROJECT_32 = 45.0  # rows a second, projected on 32 directions
TRAIN = 90.0  # rows a second, forward and backward
HESSIAN = 32.0  # rows a second of one Hessian-vector product (256 rows in 8 s)
START = 6.0  # seconds: torch and the checkpoint into a worker


@dataclass(frozen=True)
class Estimate:
    """A length of time, with words for a button."""

    seconds: float

    @property
    def words(self) -> str:
        """Write it rounded ("about 20 s", "about 12 min", "about 3 h")."""
        if self.seconds < 90:
            return f"about {max(5, 5 * round(self.seconds / 5))} s"
        if self.seconds < 90 * 60:
            return f"about {round(self.seconds / 60)} min"
        return f"about {round(self.seconds / 3600)} h"


def estimate(workspace: "Workspace", spec: PredictSpec | RankSpec | IndexSpec | CorrectionSpec) -> Estimate:
    """Estimate a run of this spec, counting only what is not kept yet; NumPy only."""
    speed = rate("forward", FORWARD) / FORWARD
    if isinstance(spec, PredictSpec):
        work = _predicting(workspace, spec.split)
    elif isinstance(spec, RankSpec):
        work = _ranking(workspace, spec)
    elif isinstance(spec, IndexSpec):
        work = _indexing(workspace, spec)
    else:
        work = _correcting(workspace, spec)
    return Estimate(START + work / speed)


def projecting(rows: int, directions: int) -> float:
    """Seconds to project rows on directions at the default speed: a pass, and a little for each direction."""
    each = (1 / PROJECT_32 - 1 / PROJECT_ONE) / 31
    return rows * (1 / PROJECT_ONE + each * (directions - 1))


def _predicting(workspace: "Workspace", split: Split) -> float:
    return len(workspace.dataset.splits[split]) / FORWARD


def _ranking(workspace: "Workspace", spec: RankSpec) -> float:
    split, _ = workspace.locate(spec.example)
    seconds = 0.0
    if spec.target == "predicted" and workspace.predictions(split, spec.checkpoint) is None:
        seconds += _predicting(workspace, split)
    index = Abif().table(workspace, spec)
    if spec.method == "abif" or (spec.method is None and index is not None):
        stale = 0
        if index is not None and spec.refresh:
            manifest = index.manifest
            arrays = IndexArrays(index.folder, manifest["rows"], len(manifest["eigenvalues"]))
            stale = int((arrays.read("labels") != workspace.labels().values).sum())
        return seconds + projecting(stale + 1, index.key["k"] if index is not None else 1)
    ready = workspace.ready(spec.model_copy(update={"method": "tracin", "refresh": False}))
    if ready is None:
        return seconds + projecting(len(workspace.train), 1)
    return seconds + projecting(_stale(TracIn().table(workspace, spec), workspace) if spec.refresh else 0, 1)


def _stale(table: Table, workspace: "Workspace") -> int:
    from safetensors.numpy import load_file

    made = load_file(table.folder / "train.safetensors")["labels"]
    return int(np.count_nonzero(made != workspace.labels().values))


def _indexing(workspace: "Workspace", spec: IndexSpec) -> float:
    asked = RankSpec(workspace=spec.workspace, checkpoint=spec.checkpoint, scope=spec.scope, example="")
    index = Abif().table(workspace, asked)
    solved = index is not None and has_basis(index) and index.key["k"] == spec.k and not spec.rebuild
    rows = spec.hessian_rows or min(DEFAULT_HESSIAN_ROWS, len(workspace.train))
    solving = 0.0 if solved else spec.iterations * rows / HESSIAN
    return solving + projecting(len(workspace.train), spec.k)


def _correcting(workspace: "Workspace", spec: CorrectionSpec) -> float:
    split, _ = workspace.locate(spec.example)
    recorded = workspace.checkpoint(spec.checkpoint).optimizer or {}
    source = spec.optimizer_state or ("checkpoint" if "state" in recorded else "warm")
    kind = recorded.get("kind", "adam") if spec.optimizer == "checkpoint" else spec.optimizer
    wanted = {"checkpoint": workspace.checkpoint(spec.checkpoint).fingerprint, "batch_size": spec.batch_size}
    kept = any((path / "state.safetensors").exists() for path, _ in workspace.artefacts.find("warm", **wanted))
    warming = WARM_BATCHES * spec.batch_size / TRAIN if source == "warm" and kind == "adam" and not kept else 0.0
    # both trajectories train on the batch and pass the perturbation's rows; the retention rows are read
    step = 2 * (spec.batch_size + spec.k) / TRAIN + (RETENTION_ROWS + 2) / FORWARD
    return warming + spec.steps * step + _predicting(workspace, split)
