"""How many of the demo checkpoint's eigenvalues we keep and captum keeps, at equal k, iterations and Hessian rows."""

from benchmarks.libraries import curvature
from benchmarks.models import demo
from benchmarks.timing import Measurement

K, ITERATIONS, HESSIAN_ROWS = 32, 64, 64


def run() -> list[Measurement]:
    """Solve once each on the shipped checkpoint's own training rows."""
    return curvature(demo(HESSIAN_ROWS), ITERATIONS, K)
