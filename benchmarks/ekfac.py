"""EK-FAC through kronfluence beside ABIF: the time of both, and how far their rankings agree.

They need not: EK-FAC's curvature is positive and factored by layer, ABIF's is the Hessian on a few
eigenvectors. Negative or low correlation of the two is a finding about the model, so there is no target.
"""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.agreement import spearman
from benchmarks.libraries import eigenpairs
from benchmarks.models import Setup, behind_prefix, text
from benchmarks.timing import Measurement, seconds
from influence_core.attribution.abif import Abif
from influence_core.attribution.base import Ready
from influence_core.attribution.ekfac_library import EkfacScores, ekfac
from influence_core.curvature.flat import directions_from_flat
from influence_core.gradients.project import project
from influence_core.models.classifier import Rows

TRAIN, QUERIES, BATCH, K, ITERATIONS = 240, 16, 32, 16, 48


def run() -> list[Measurement]:
    """Score the same queries with both, from the frozen prefix's outputs on."""
    setup = behind_prefix(text(TRAIN + QUERIES, "head"))
    return compare(setup, TRAIN)


def compare(setup: Setup, count: int, k: int = K, iterations: int = ITERATIONS) -> list[Measurement]:
    """Take the first ``count`` rows as training rows and Hessian sample, the others as queries."""
    rows, classifier, scope = setup.rows, setup.classifier, setup.scope
    train = Rows(classifier, rows.items[:count], rows.labels[:count])
    queries = Rows(classifier, rows.items[count:], rows.labels[count:])
    ours: list[np.ndarray] = []
    theirs: list[EkfacScores] = []

    def abif() -> None:
        numbers = [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
        batches = [train.batch(each) for each in numbers]
        pairs = eigenpairs(setup, batches, k, iterations)
        basis = directions_from_flat(pairs.vectors, classifier.parameters(scope))
        products = project(classifier, scope, batches, basis).dots.cpu().numpy()
        table = {"products": products, "values": pairs.values.cpu().numpy(), "labels": train.labels}
        asked = project(classifier, scope, [queries.batch(range(len(queries)))], basis).dots.cpu().numpy()
        ready = [Ready(table, {"products": row}, {}, "", {}, "") for row in asked]
        ours.append(np.stack([Abif().scores(each).scores for each in ready]))

    def factored() -> None:
        with tempfile.TemporaryDirectory() as folder:
            events = ekfac(classifier, scope, train, queries, train, Path(folder), batch_size=BATCH)
            theirs.extend(event for event in events if isinstance(event, EkfacScores))

    taken = {"abif": seconds(abif), "ekfac": seconds(factored)}
    agreement = [spearman(one, two) for one, two in zip(ours[0], theirs[0].pairwise, strict=True)]
    note = (
        f"factors of {len(theirs[0].modules)} modules, {len(theirs[0].left_out)} parameters without; Spearman with "
        f"ABIF, median {np.median(agreement):.2f}, from {min(agreement):.2f} to {max(agreement):.2f} over the queries"
    )
    about = f"{setup.about(count, BATCH)}; {len(queries)} queries; {k} of {iterations} eigenpairs"
    return [
        Measurement("ABIF: basis, index and queries", *[taken["abif"]] * 3, 1.0, about),
        Measurement("EK-FAC: factors, pairwise and self", *[taken["ekfac"]] * 3, taken["ekfac"] / taken["abif"], note),
    ]
