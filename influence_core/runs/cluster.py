"""The Dask cluster of an engine: one scheduler, one worker process a device, TLS, no other port."""

import importlib.metadata
import math
import os
import shutil
import subprocess
from typing import Any, cast

import dask
from distributed import Nanny, Scheduler, Security, SpecCluster, Worker

from influence_core import home

# glibc hands large blocks back to the system and takes them anew, page by page: of a projection that
# is a tenth of the time on text, a fifth on images (measured). Read by a process when it starts.
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**28)}

# OpenMP's threads wait for one another by spinning for milliseconds: on cores shared with a browser that
# holds up the very thread they wait for. Alone it makes no difference (measured).
THREADS = {"GOMP_SPINCOUNT": "3000"}
ENVIRONMENT = ALLOCATOR | THREADS

CONFIG = {
    # a killed worker's run must not start a second time in the same files
    "distributed.scheduler.allowed-failures": 0,
    # a queue split between scheduler and worker would let a patient run pass an urgent one
    "distributed.scheduler.worker-saturation": math.inf,
    # Dask's default here is one OpenMP thread a worker, and a malloc setting that slows large tensors
    "distributed.nanny.pre-spawn-environ": ENVIRONMENT,
    # Dask gives up a worker that is not back after 15 s, or is just starting when an earlier loss comes due
    "distributed.deploy.lost-worker-timeout": "1000 days",
    "distributed.worker.profile.enabled": False,
}


class QuietScheduler(Scheduler):
    """A scheduler that opens no HTTP port: Dask's dashboard has no access control."""

    def start_http_server(self, *args: Any, **kwargs: Any) -> None:
        """Open nothing."""


class QuietWorker(Worker):
    """A worker that opens no HTTP port."""

    def start_http_server(self, *args: Any, **kwargs: Any) -> None:
        """Open nothing."""


def devices() -> list[str | None]:
    """Return the CUDA devices to use, by the names that CUDA_VISIBLE_DEVICES takes; [None] means the CPU.

    Found without importing torch, which would cost the engine seconds and memory.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",") if name.strip()]
        return [None] if not names or "-1" in names else [*names]
    tool = shutil.which("nvidia-smi")
    if tool is None or importlib.metadata.version("torch").endswith("+cpu"):
        return [None]
    query = [tool, "--query-gpu=index", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    found = answer.stdout.split() if answer.returncode == 0 else []
    return [*found] if found else [None]


def worker_options(security: Security, device: str | None) -> dict[str, Any]:
    """Return the options of the `Nanny` that keeps one worker process alive for a device."""
    return {
        "nthreads": 1,
        "security": security,
        "worker_class": QuietWorker,
        "preload": ["influence_core.runs.preload"],
        "env": {} if device is None else {"CUDA_VISIBLE_DEVICES": device},
        "memory_limit": 0,  # runs return nothing, so there is nothing to spill; a limit could only kill them
        "local_directory": str(home.folder("engine", "scratch")),
    }


def start(security: Security) -> Any:
    """Start the cluster on the loopback interface; a context manager with ``scheduler_address``."""
    dask.config.set(CONFIG)
    place = {"host": "127.0.0.1", "protocol": "tls://"}
    workers = {
        number: {"cls": Nanny, "options": place | worker_options(security, device)}
        for number, device in enumerate(devices())
    }
    scheduler = {"cls": QuietScheduler, "options": place | {"port": 0, "security": security, "dashboard": False}}
    return cast(Any, SpecCluster)(scheduler=scheduler, workers=workers, security=security, name="influence")
