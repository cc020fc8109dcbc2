"""ABIF scores beside captum's where they should agree: a convex loss, so that no kept eigenvalue is negative.

The first line's figure is the Spearman correlation over training rows, the least of all queries; required.
"""

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import captum_side
from benchmarks.libraries import eigenpairs
from benchmarks.models import SEED, Setup
from benchmarks.timing import Measurement, Target, seconds
from influence_core.attribution.abif import Abif
from influence_core.attribution.base import Ready
from influence_core.curvature.flat import directions_from_flat
from influence_core.gradients.project import project
from influence_core.models.classifier import Classifier, Rows

INPUTS, CLASSES, TRAIN, QUERIES = 24, 6, 400, 20
K, ITERATIONS, BATCH = 24, 80, 50
AGREE = 0.99


class Softmax(nn.Module):
    """Softmax regression: its loss is convex."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(INPUTS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, C]."""
        return self.linear(x)


def setup() -> Setup:
    """Return training rows, then queries, whose inputs' scales fall so that the eigenvalues are spread."""
    torch.manual_seed(SEED)
    classifier = Classifier(Softmax(), [str(label) for label in range(CLASSES)])
    draw = np.random.default_rng(SEED)
    items = (draw.normal(size=(TRAIN + QUERIES, INPUTS)) * 0.85 ** np.arange(INPUTS)).astype(np.float32)
    rows = Rows(classifier, list(items), draw.integers(0, CLASSES, TRAIN + QUERIES))
    return Setup("softmax regression", rows, classifier.scope("all"), "random inputs and labels")


def run() -> list[Measurement]:
    """Score all queries with both, and compare the orders."""
    given = setup()
    batch = given.rows.batch
    train = [batch(range(start, start + BATCH)) for start in range(0, TRAIN, BATCH)]
    queries = [batch(range(TRAIN, TRAIN + QUERIES))]
    results: dict[str, np.ndarray] = {}
    notes: dict[str, str] = {}

    def ours() -> None:
        pairs = eigenpairs(given, train, K, ITERATIONS)
        basis = directions_from_flat(pairs.vectors, given.classifier.parameters(given.scope))
        table = {
            "products": project(given.classifier, given.scope, train, basis).dots.cpu().numpy(),
            "values": pairs.values.cpu().numpy(),
            "labels": given.rows.labels[:TRAIN],
        }
        products = project(given.classifier, given.scope, queries, basis).dots.cpu().numpy()
        each = [Ready(table, {"products": row}, {}, "", {}, "") for row in products]
        results["ours"] = np.stack([Abif().scores(ready).scores for ready in each])
        notes["ours"] = f"{K} of {ITERATIONS} eigenpairs kept, {pairs.negative} negative"
        if pairs.negative:
            raise RuntimeError(f"{pairs.negative} kept eigenvalues are negative on a convex loss")

    def theirs() -> None:
        influence = captum_side.arnoldi(given.classifier, given.scope, train, train, K, ITERATIONS)
        results["captum"] = (
            captum_side.projected(influence, queries) @ captum_side.projected(influence, train).T
        ).numpy()
        notes["captum"] = f"{len(influence.R)} eigenpairs kept"

    taken = {"ours": seconds(ours), "captum": seconds(theirs)}
    least = min(spearman(one, two) for one, two in zip(results["ours"], results["captum"], strict=True))
    about = f"{given.name}: {given.parameters} parameters, {TRAIN} rows, {QUERIES} queries"
    return [
        Measurement(
            "ABIF, ours",
            *[taken["ours"]] * 3,
            least,
            f"{about}; {notes['ours']}; the figure is Spearman with captum, the least of all queries",
            Target(AGREE, "≥", required=True),
        ),
        Measurement("captum's Arnoldi", *[taken["captum"]] * 3, taken["captum"] / taken["ours"], notes["captum"]),
    ]


def spearman(one: np.ndarray, two: np.ndarray) -> float:
    """Return the rank correlation of two score vectors [N] without ties."""
    ranks = [values.argsort().argsort().astype(np.float64) for values in (one, two)]
    return float(np.corrcoef(*ranks)[0, 1])
