"""The projection pass beside a plain epoch over the same rows, parameters, padding and threads, in eval mode.

Each side at its best batch size, and both at equal sizes; without the frozen prefix and with it.
"""

import statistics
from collections.abc import Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models import Setup, behind_prefix, images, text
from benchmarks.timing import Measurement, Target, in_turns, measurement
from influence_core.gradients.project import project
from influence_core.models.classifier import Batch, Classifier, Scope

ROWS = 1000  # one shard of an index build, whose rows are sorted by length
SIZES, DIRECTIONS, REPEATS = (32, 64, 128), 32, 3
WITHOUT_PREFIX, WITH_PREFIX = 1.4, 1.7


def run() -> list[Measurement]:
    """Time the set-ups, then both from their frozen prefixes' outputs on."""
    setups = (text(ROWS), images(ROWS), images(ROWS, halving_stem=True))
    whole = [line for setup in setups for line in compare(setup, WITHOUT_PREFIX)]
    behind = [behind_prefix(setup) for setup in (text(ROWS), images(ROWS, "last:1"))]
    return whole + [line for setup in behind for line in compare(setup, WITH_PREFIX)]


def compare(setup: Setup, limit: float, sizes: Sequence[int] = SIZES, repeats: int = REPEATS) -> list[Measurement]:
    """Time epoch and projection at every size, then each at its best."""
    classifier, scope, count = setup.classifier, setup.scope, len(setup.rows)
    directions = {
        name: torch.randn(DIRECTIONS, *value.shape, device=value.device)
        for name, value in classifier.parameters(scope).items()
    }
    ways = {}
    for size in sizes:
        batches = setup.batches(count, size)
        ways[f"plain {size}"] = lambda batches=batches: plain_epoch(classifier, scope, batches)
        ways[f"project {size}"] = lambda batches=batches: project(classifier, scope, batches, directions)
    times = in_turns(ways, repeats)
    lines = []
    for size in sizes:
        plain, projected = times[f"plain {size}"], times[f"project {size}"]
        lines.append(measurement("plain forward+backward epoch", plain, plain, note=setup.about(count, size)))
        lines.append(measurement(f"project, {DIRECTIONS} directions and norms, same batches", projected, plain))
    best = {
        side: min(sizes, key=lambda size, side=side: statistics.median(times[f"{side} {size}"]))
        for side in ("plain", "project")
    }
    plain, projected = times[f"plain {best['plain']}"], times[f"project {best['project']}"]
    note = (
        f"{setup.name}: project in batches of {best['project']}, epoch of {best['plain']}; "
        f"arithmetic floor {floor(setup, best['plain']):.2f}; {setup.note}"
    )
    lines.append(measurement("project ÷ epoch, each at its best", projected, plain, note=note, target=Target(limit)))
    return lines


def plain_epoch(classifier: Classifier, scope: Scope, batches: Sequence[Batch]) -> None:
    """Mean loss and gradient of the scope's parameters, batch by batch."""
    for batch in batches:
        leaves = {name: value.requires_grad_() for name, value in classifier.parameters(scope).items()}
        classifier.losses(batch, leaves).mean().backward()


def floor(setup: Setup, size: int) -> float:
    """Return the ratio that multiplications alone allow: the epoch's own, and K for each row and parameter besides.

    Forming a row's gradient costs what the epoch spends on it; its product with K directions comes on top.
    """
    batches = setup.batches(len(setup.rows), size)
    with FlopCounterMode(display=False) as counter:
        plain_epoch(setup.classifier, setup.scope, batches)
    products = len(setup.rows) * DIRECTIONS * setup.parameters
    return 1 + products / (counter.get_total_flops() / 2)
