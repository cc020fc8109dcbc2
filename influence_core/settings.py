"""What each attribution method lets a user choose: one model a method, from which forms are made.

A field's ``title`` is its label on a page, its ``description`` the help text, its bounds the widget's.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Method = Literal["abif", "tracin", "tracin-multi", "tracin-adam", "hif-cr", "hif-cg", "embedding", "random", "ekfac"]

CONTROLS: tuple[Method, ...] = ("embedding", "random")  # know nothing of the loss: drawn in grey, no verdict
HESSIAN_ROWS = "training rows whose mean loss the Hessian is taken of; by default 256, or all where there are fewer"


class Settings(BaseModel):
    """Base of all settings, and those of a method that has none: frozen, no unknown fields, finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class IndexSettings(Settings):
    """Which ABIF index answers; None: what the newest finished index has, or the default of a new one."""

    k: Annotated[
        int | None, Field(title="Eigenvectors (k)", ge=1, le=512, description="kept, those of largest |λ|; 32")
    ] = None
    iterations: Annotated[
        int | None, Field(title="Iterations", ge=1, le=2048, description="Lanczos iterations, at least k; 64")
    ] = None
    hessian_rows: Annotated[int | None, Field(title="Hessian rows", ge=1, description=HESSIAN_ROWS)] = None
    seed: Annotated[
        int | None, Field(title="Seed", ge=0, description="of the Hessian rows and the start vector; 0")
    ] = None


class CheckpointsSettings(Settings):
    """Which checkpoints of one training TracIn sums over (Eq. 2)."""

    count: Annotated[
        int,
        Field(title="Checkpoints", ge=1, le=64, description="how many, those where the training loss falls most"),
    ] = 3
    names: Annotated[
        tuple[str, ...],
        Field(title="Or these", description="checkpoints by name, in place of a choice by training loss"),
    ] = ()


class AdamSettings(Settings):
    """Which Adam state gives the metric P = diag(1 / (√v̂ + ε)), and how often it is applied."""

    state: Annotated[
        Literal["checkpoint", "warm", "zeros"] | None,
        Field(
            title="Adam state",
            description="by default the checkpoint's own, else warmed over 100 batches: what one real step then does "
            "correlates 0.9999 with the scores (0.64 from zeros, 0.979 after 20 batches)",
        ),
    ] = None
    batch_size: Annotated[
        int, Field(title="Batch size", ge=1, le=4096, description="of the batches that warm the state")
    ] = 32
    seed: Annotated[int, Field(title="Seed", ge=0, description="of these batches")] = 0
    form: Annotated[
        Literal["once", "twice"],
        Field(
            title="Preconditioner",
            description="once: P between the two gradients, what a step of Adam does; twice: each gradient times P",
        ),
    ] = "once"


class SolverSettings(Settings):
    """How (H + damping · I) x = ∇l_z is solved."""

    iterations: Annotated[
        int, Field(title="Iterations", ge=1, le=1000, description="at most, one Hessian product each")
    ] = 50
    tolerance: Annotated[
        float, Field(title="Tolerance", ge=1e-5, lt=1, description="of the residual, relative to ‖∇l_z‖")
    ] = 1e-3
    damping: Annotated[
        float, Field(title="Damping", ge=0, description="added to every eigenvalue; 0 solves with H itself")
    ] = 0.0
    hessian_rows: Annotated[int | None, Field(title="Hessian rows", ge=1, description=HESSIAN_ROWS)] = None
    seed: Annotated[int, Field(title="Seed", ge=0, description="of the Hessian rows")] = 0


class RandomSettings(Settings):
    """The seed of the random scores."""

    seed: Annotated[int, Field(title="Seed", ge=0, description="another seed, another order")] = 0


class EkfacSettings(Settings):
    """How the factors of the curvature are fitted."""

    rows: Annotated[
        int, Field(title="Rows", ge=8, description="training rows that the factors are fitted on, at most")
    ] = 2000
    damping: Annotated[
        float | None,
        Field(title="Damping", gt=0, description="by default a tenth of each layer's mean eigenvalue"),
    ] = None
    seed: Annotated[int, Field(title="Seed", ge=0, description="of these rows")] = 0


SETTINGS: dict[str, type[Settings]] = {
    "abif": IndexSettings,
    "tracin": Settings,
    "tracin-multi": CheckpointsSettings,
    "tracin-adam": AdamSettings,
    "hif-cr": SolverSettings,
    "hif-cg": SolverSettings,
    "embedding": Settings,
    "random": RandomSettings,
    "ekfac": EkfacSettings,
}

METHOD_NAMES = {
    "abif": "ABIF",
    "tracin": "TracIn",
    "tracin-multi": "TracIn over checkpoints",
    "tracin-adam": "TracIn under Adam",
    "hif-cr": "Hessian-based, Conjugate Residual",
    "hif-cg": "Hessian-based, Conjugate Gradient",
    "embedding": "Embedding (control)",
    "random": "Random (control)",
    "ekfac": "EK-FAC",
}

METHOD_WORDS = {
    "abif": "Inner products on the Hessian's leading eigenvectors, from an index: any row is ranked at once.",
    "tracin": "The inner product of the two loss gradients: what one plain gradient step does.",
    "tracin-multi": "TracIn summed over several checkpoints of one training, weighted by their learning rates.",
    "tracin-adam": "TracIn under Adam's diagonal preconditioner: what one step of a warmed Adam does.",
    "hif-cr": "The inverse Hessian times the test row's gradient, by Conjugate Residual, which suits an indefinite H.",
    "hif-cg": "The same by Conjugate Gradient, which an indefinite Hessian breaks: kept to show why.",
    "embedding": "Similarity of the model's features: a control, no influence.",
    "random": "Random numbers: a control.",
    "ekfac": "Kronecker-factored curvature by the kronfluence library, an optional extra.",
}


def method_words(method: str, settings: Mapping[str, Any]) -> str:
    """Name a method, and its settings where they are not the usual ones."""
    name = METHOD_NAMES.get(method, method)
    if not settings:
        return name
    fields = SETTINGS[method].model_fields
    return f"{name} ({', '.join(f'{fields[each].title}: {value}' for each, value in settings.items())})"


def check_settings(method: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """Return a method's settings without those that are the default; `ValueError` for unknown or unfit ones."""
    if method is None:
        if given:
            raise ValueError(f"settings {', '.join(sorted(given))} belong to no method: choose a method")
        return {}
    known = SETTINGS[method].model_fields
    if unknown := sorted(given.keys() - known.keys()):
        raise ValueError(f"{method} has no setting {unknown[0]!r}: it has {', '.join(known) or 'none'}")
    return SETTINGS[method](**given).model_dump(exclude_defaults=True)
