"""Seeded random streams that leave the global ones as they were."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, *key: int | str) -> int:
    """Return the seed of the stream ``(seed, *key)``: 63 bits, the same on every machine."""
    digest = hashlib.blake2b(repr((int(seed), *key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # torch takes signed 64-bit seeds


@contextmanager
def random_stream(device: torch.device, seed: int) -> Iterator[None]:
    """Draw from a stream of its own inside; the generators' states return afterwards, errors included.

    Seeds the CPU's generator and, for a CUDA device, that device's (no other device's).
    """
    devices = []
    if device.type == "cuda":
        devices = [torch.cuda.current_device() if device.index is None else device.index]
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for index in devices:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield
