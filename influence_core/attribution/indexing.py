"""Building the ABIF index: eigenpairs once, then every training row's products, shard by shard."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file

from influence_core.attribution.abif import has_basis
from influence_core.attribution.projection import Projection, load_basis
from influence_core.attribution.tables import IndexArrays, Table, base_key
from influence_core.curvature.hvp import HessianOperator
from influence_core.curvature.lanczos import Eigenpairs, lanczos
from influence_core.errors import UserError
from influence_core.events import Events, Progress, Result
from influence_core.home import read_json, write_json
from influence_core.models.classifier import Rows
from influence_core.models.loading import rows_of
from influence_core.specs import IndexSpec
from influence_core.workspace import Workspace, now

if TYPE_CHECKING:
    from influence_core.models.classifier import Batch

HESSIAN_BATCH = 32  # rows whose gradient graph is kept at a time


def index_key(workspace: Workspace, spec: IndexSpec, origin: str = "local") -> dict[str, Any]:
    """Return all that an index depends on; ``origin`` keeps a shipped index (without basis) apart."""
    return {
        **base_key(workspace, spec.checkpoint, spec.scope),
        "method": "abif",
        "k": spec.k,
        "iterations": spec.iterations,
        "hessian_rows": spec.hessian_rows,
        "seed": spec.seed,
        "origin": origin,
    }


def hessian_numbers(n: int, spec: IndexSpec) -> np.ndarray:
    """Return the fixed, ordered Hessian sample: row numbers drawn without replacement, seeded."""
    if spec.hessian_rows > n:
        raise UserError(f"hessian_rows = {spec.hessian_rows} but there are {n} training rows: give at most {n}")
    generator = torch.Generator().manual_seed(spec.seed)
    return np.sort(torch.randperm(n, generator=generator)[: spec.hessian_rows].numpy())


def run(spec: IndexSpec, result: Path) -> Events:
    """Build, or finish, an index; its eigenvectors stay beside it as the basis for new queries."""
    started = time.monotonic()
    workspace = Workspace.open(spec.workspace)
    work = Projection(workspace, spec.checkpoint, spec.scope)
    key = index_key(workspace, spec)
    table = Table(workspace.artefacts.make("abif", key), key)
    if not has_basis(table):
        yield from _basis(workspace, work, spec, table)
    about = read_json(table.folder / "basis.json")
    labels = workspace.labels(about["cursor"])
    index = IndexArrays(table.folder, len(labels.values), spec.k)
    basis = load_basis(table, work)
    missing = index.missing()
    done = len(labels.values) - sum(stop - start for _, start, stop in missing)
    for shard, start, stop in missing:
        dots = np.zeros((stop - start, spec.k), dtype=np.float32)
        sqnorms = np.zeros(stop - start, dtype=np.float32)
        for event in work.project(np.arange(start, stop), basis, labels.values, "projecting the training rows"):
            if isinstance(event, Progress):
                yield event.model_copy(update={"done": done + event.done, "total": len(labels.values)})
            else:
                dots[event.where], sqnorms[event.where] = event.dots, event.sqnorms
        index.write(shard, dots, sqnorms, labels.values[start:stop])
        done += stop - start
    seconds = about["seconds"] + time.monotonic() - started
    if not table.complete:
        table.finish({**about, "made": now(), "rows": len(labels.values), "seconds": seconds})
    yield Result(value=summary(table))


def summary(table: Table) -> dict[str, Any]:
    """Return what the command line prints of an index."""
    manifest = table.manifest
    values = manifest["eigenvalues"]
    return {
        "rows": manifest["rows"],
        "k": len(values),
        "eigenvalues": values,
        "negative": sum(value < 0 for value in values),
        "orthogonality": manifest["orthogonality"],
        "seconds": manifest["seconds"],
    }


def _basis(workspace: Workspace, work: Projection, spec: IndexSpec, table: Table) -> Events:
    """Make the eigenpairs and keep them beside the index."""
    started = time.monotonic()
    labels = workspace.labels()
    rows = rows_of(workspace, work.classifier, "train", labels.values)
    numbers = hessian_numbers(len(rows), spec)
    sample = Rows(work.classifier, [rows.items[int(row)] for row in numbers], rows.labels[numbers])
    batches: list[Batch] = [batch for _, batch in sample.buckets(0, len(sample), HESSIAN_BATCH)]
    l2 = float((workspace.checkpoint(spec.checkpoint).optimizer or {}).get("coupled_l2", 0.0))
    operator = HessianOperator(work.classifier, work.scope, batches, l2=l2)
    solving = lanczos(
        operator.matvec,
        operator.size,
        k=spec.k,
        iterations=spec.iterations,
        seed=spec.seed,
        dtype=operator.dtype,
        device=operator.device,
    )
    for event in solving:
        if isinstance(event, Eigenpairs):
            if len(event.values) < spec.k:
                raise UserError(
                    f"only {len(event.values)} eigenpairs exist here, k = {spec.k} were asked: give k at most that"
                )
            about = {
                "eigenvalues": event.values.double().tolist(),
                "residuals": event.residuals.double().tolist(),
                "orthogonality": float(event.orthogonality),
                "hessian_ids": [workspace.train["id"].iloc[int(row)] for row in numbers],
                "l2": l2,
                "cursor": labels.cursor,
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "seconds": time.monotonic() - started,
            }
            write_json(table.folder / "basis.json", about)
            temporary = table.folder / ".basis.safetensors"
            save_file({"vectors": event.vectors.contiguous().cpu()}, temporary)
            temporary.replace(table.folder / "basis.safetensors")
        else:
            yield event
