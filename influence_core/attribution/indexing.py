"""Building the ABIF index: eigenpairs once, then every training row's products, shard by shard."""

import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from influence_core.artefacts import base_key
from influence_core.attribution.abif import has_basis
from influence_core.attribution.hessian import sampled_hessian
from influence_core.attribution.projection import Projection, load_basis
from influence_core.attribution.sample import decay_key, sample_size
from influence_core.attribution.tables import IndexArrays, Table
from influence_core.curvature.lanczos import Eigenpairs, lanczos
from influence_core.events import Events, Progress, Result
from influence_core.home import read_json, write_json
from influence_core.runs.locks import locked
from influence_core.specs import IndexSpec
from influence_core.workspace import Workspace, now


def index_key(workspace: Workspace, spec: IndexSpec, origin: str = "local") -> dict[str, Any]:
    """Return all that an index depends on.

    ``origin`` keeps a shipped index (without basis) and a study's apart from the local one.
    """
    return {
        **base_key(workspace, spec.checkpoint, spec.scope),
        "method": "abif",
        "k": spec.k,
        "iterations": spec.iterations,
        "hessian_rows": sample_size(workspace, spec.hessian_rows),
        "seed": spec.seed,
        "origin": origin,
        **decay_key(workspace, spec.checkpoint),
    }


def run(spec: IndexSpec, result: Path) -> Events:
    """Build, or finish, an index; its eigenvectors stay beside it as the basis for new queries."""
    yield from build(Workspace.open(spec.workspace), spec)


def build(workspace: Workspace, spec: IndexSpec, origin: str = "local") -> Events:
    """Build, or finish, an index; another process that builds the same one meanwhile waits and finds it done."""
    key = index_key(workspace, spec, origin)
    table = Table(workspace.artefacts.make("abif", key), key)
    with locked(table.lock):
        yield from _build(workspace, spec, table)


def _build(workspace: Workspace, spec: IndexSpec, table: Table) -> Events:
    started = time.monotonic()
    work = Projection(workspace, spec.checkpoint, spec.scope)
    yield from work.train()
    if spec.rebuild or not has_basis(table):
        clear(table)  # products of another basis mean nothing beside a new one
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


def clear(table: Table) -> None:
    """Remove an index with its basis and queries, what marks it as finished first."""
    for name in ("manifest.json", "basis.json", "basis.safetensors"):
        (table.folder / name).unlink(missing_ok=True)
    for name in ("index.zarr", "queries"):
        shutil.rmtree(table.folder / name, ignore_errors=True)


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
    sampled = yield from sampled_hessian(work, spec.checkpoint, spec.hessian_rows, spec.seed)
    operator = sampled.operator
    solving = lanczos(
        operator.matvec,
        operator.size,
        k=spec.k,
        iterations=spec.iterations,
        seed=spec.seed,
        dtype=operator.dtype,
        device=operator.device,
        folder=table.folder,
    )
    for event in solving:
        if isinstance(event, Eigenpairs):
            about = {
                "eigenvalues": event.values.double().tolist(),
                "residuals": event.residuals.double().tolist(),
                "orthogonality": float(event.orthogonality),
                "hessian_ids": [workspace.train["id"].iloc[int(row)] for row in sampled.numbers],
                "l2": sampled.l2,
                "cursor": sampled.cursor,
                "prefix": work.prefix,
                "graph_kept": operator.kept,
                "iterations": event.iterations,
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "seconds": time.monotonic() - started,
            }
            write_json(table.folder / "basis.json", about)
            temporary = table.folder / f".basis.{uuid.uuid4().hex}"
            save_file({"vectors": event.vectors.contiguous().cpu()}, temporary)
            temporary.replace(table.folder / "basis.safetensors")
        else:
            yield event
