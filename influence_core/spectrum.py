"""The kept eigenvalues of the Hessian and how far to trust them, from an ABIF index; NumPy only."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from influence_core.attribution.abif import Abif
from influence_core.specs import Attributed

if TYPE_CHECKING:
    from influence_core.workspace import Workspace


@dataclass(frozen=True)
class Spectrum:
    """Eigenpairs as Lanczos found them; ``key`` is all that they depend on."""

    values: np.ndarray  # [k] float64, signed, those of largest |λ|, largest first
    residuals: np.ndarray  # [k] float64, Ritz residuals ‖Hv − λv‖
    orthogonality: float  # spectral norm of QᵀQ − I over the whole basis
    l2: float  # added to the Hessian's diagonal
    made: str  # UTC
    key: dict[str, Any]  # k, iterations, hessian_rows, seed, scope, checkpoint, …

    @property
    def negative(self) -> int:
        """How many of the kept eigenvalues are negative."""
        return int((self.values < 0).sum())

    @property
    def smallest(self) -> float:
        """The smallest kept eigenvalue, with its sign; the Hessian's own is at most that, up to its residual."""
        return float(self.values.min())

    @property
    def hidden(self) -> int:
        """How many positive kept eigenvalues are below the damping that would make H positive."""
        return int(((self.values > 0) & (self.values < -self.smallest)).sum())


def spectrum(workspace: "Workspace", spec: Attributed) -> Spectrum | None:
    """Return the spectrum of the index that ABIF would answer this spec from, or None where there is no index."""
    table = Abif().table(workspace, spec)
    if table is None:
        return None
    manifest = table.manifest
    return Spectrum(
        values=np.array(manifest["eigenvalues"], dtype=np.float64),
        residuals=np.array(manifest["residuals"], dtype=np.float64),
        orthogonality=float(manifest["orthogonality"]),
        l2=float(manifest["l2"]),
        made=str(manifest["made"]),
        key=table.key,
    )
