"""Room for a Krylov basis: in memory, or in a file where it would take too much of it."""

import os
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from influence_core.curvature.memory import basis_bytes
from influence_core.errors import UserError

BASIS_BYTES = 4 << 30  # of a basis in memory, unless told otherwise


def make_basis(
    rows: int,
    size: int,
    dtype: torch.dtype,
    device: torch.device,
    folder: Path | None = None,
    memory_limit: int = BASIS_BYTES,
) -> Tensor:
    """Return zeros [rows, size] on the device, or mapped from a file in ``folder`` if they exceed the limit (bytes).

    The file has no name from the start: it takes room on the disk until the tensor is gone, and
    nothing is left behind however the process ends.

    Raises:
        UserError: the folder cannot be written, or its disk has too little room.
    """
    count = basis_bytes(size, rows, dtype.itemsize)
    if folder is None or count <= memory_limit:
        return torch.zeros(rows, size, dtype=dtype, device=device)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < count:
            raise UserError(
                f"the Krylov basis needs {count / 1e9:.1f} GB in {folder}, which has {free / 1e9:.1f} GB free: "
                "make room, or take fewer iterations or a smaller scope"
            )
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".krylov-") as file:
            if hasattr(os, "posix_fallocate"):  # a full disk is an error here, not a crash at the first write
                os.posix_fallocate(file.fileno(), 0, count)
            else:
                file.truncate(count)
            flat = torch.from_file(file.name, shared=True, size=rows * size, dtype=dtype)
    except OSError as error:
        raise UserError(
            f"the Krylov basis cannot be kept in {folder} ({error.strerror}): give a folder that can be written"
        ) from None
    return flat.view(rows, size)
