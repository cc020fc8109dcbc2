"""A Hessian-vector product beside a forward and backward pass over the same rows and batches.

Exact floors: 2 with the gradient's graph kept from earlier products, 3 when it is built anew; less where a
frozen part is passed without a derivative.
"""

import torch

from benchmarks.models import Setup, behind_prefix, images, text
from benchmarks.projection import plain_epoch
from benchmarks.timing import Measurement, Target, in_turns, measurement
from influence_core.curvature.hvp import HessianOperator

ROWS, BATCH, REPEATS = 256, 32, 5
KEPT, FRESH = 2.2, 3.3


def run() -> list[Measurement]:
    """Time both set-ups, the encoder also from its frozen prefix's outputs on, where the floors are exact."""
    setups = (text(ROWS), behind_prefix(text(ROWS)), images(ROWS))
    return [line for setup in setups for line in compare(setup)]


def compare(setup: Setup, size: int = BATCH, repeats: int = REPEATS) -> list[Measurement]:
    """Time the pass, and a product with the graph kept and fresh."""
    classifier, scope, count = setup.classifier, setup.scope, len(setup.rows)
    batches = setup.batches(count, size)
    kept = HessianOperator(classifier, scope, batches, keep_graph=True)
    fresh = HessianOperator(classifier, scope, batches, keep_graph=False)
    v = torch.randn(kept.size, generator=torch.Generator().manual_seed(0)).to(classifier.device)
    ways = {
        "pass": lambda: plain_epoch(classifier, scope, batches),
        "kept": lambda: kept.matvec(v),
        "fresh": lambda: fresh.matvec(v),
    }
    times = in_turns(ways, repeats)
    base = times["pass"]
    return [
        measurement("forward+backward", base, base, note=setup.about(count, size)),
        measurement("Hessian-vector product, graph kept", times["kept"], base, target=Target(KEPT)),
        measurement("Hessian-vector product, graph fresh", times["fresh"], base, target=Target(FRESH)),
    ]
