"""A study's result with all that it takes to make it again, as ``study NAME … --out FILE.json`` writes it."""

import platform
from pathlib import Path
from typing import Any

import torch

from influence_core.specs import Spec
from influence_core.versions import versions
from influence_core.workspace import now

CPU = Path("/proc/cpuinfo")  # Linux; elsewhere the platform module knows a name


def record(command: str, spec: Spec, value: dict[str, Any]) -> dict[str, Any]:
    """Return the record: ``command`` as typed, spec, time in UTC, versions and machine, the result's value."""
    return {
        "command": command,
        "spec": spec.model_dump(mode="json"),
        "made": now(),
        "versions": circumstances(),
        "value": value,
    }


def circumstances() -> dict[str, Any]:
    """Return what numbers may depend on beside the spec: libraries, threads, device, processor."""
    return {
        **versions(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cpu": processor(),
    }


def processor() -> str:
    """Return the processor's model name, or its architecture where the system does not tell."""
    lines = CPU.read_text(errors="replace").splitlines() if CPU.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
