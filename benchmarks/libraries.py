"""Projection and curvature beside captum's Arnoldi, and projection beside one forward-mode product per direction.

Ratios are theirs ÷ ours: how many times faster ours is. captum's faster way to per-row gradients
(``sample_wise_grads_per_batch``) knows no normalisation layer, so both set-ups need its default.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks import captum_side
from benchmarks.models import Setup, images, text
from benchmarks.timing import Measurement, Target, in_turns, measurement
from influence_core.curvature.hvp import HessianOperator
from influence_core.curvature.lanczos import Eigenpairs, lanczos
from influence_core.gradients.project import project
from influence_core.models.classifier import Batch, Parameters

ROWS, BATCH, PROJECTED, K, REPEATS = 64, 16, 64, 32, 3  # batches of 64 are those of an index build
HESSIAN_ROWS = 64
ITERATIONS = 16  # of which half are asked for as eigenpairs
FORWARD_MODE = 1  # directions timed in forward mode; all take the same time, so the rest is multiplied
PROJECTION, CURVATURE = 10, 3


def run() -> list[Measurement]:
    """Time both set-ups."""
    lines = [line for setup in (text(ROWS), images(ROWS)) for line in projection(setup)]
    for setup in (text(HESSIAN_ROWS), images(HESSIAN_ROWS)):
        lines += curvature(setup, ITERATIONS, ITERATIONS // 2, target=Target(CURVATURE, "≥"))
    return lines


def projection(setup: Setup, k: int = K, size: int = PROJECTED, repeats: int = REPEATS) -> list[Measurement]:
    """Time the products of every row's gradient with k directions; all three must agree."""
    classifier, scope, count = setup.classifier, setup.scope, len(setup.rows)
    batches, single = setup.batches(count, size), setup.batches(count, 1)
    own = classifier.parameters(scope)
    directions = {name: torch.randn(k, *value.shape, device=value.device) for name, value in own.items()}
    influence = captum_side.arnoldi(classifier, scope, batches[:1], batches, 1, 2)  # its own basis is not used
    captum_side.set_directions(influence, classifier, scope, directions)
    ours = project(classifier, scope, batches, directions).dots
    _agree("captum", captum_side.projected(influence, batches), ours)
    _agree("forward mode", forward_mode(setup, own, batches, directions), ours[:, :FORWARD_MODE])
    ways: dict[str, Callable[[], object]] = {
        "project": lambda: project(classifier, scope, batches, directions),
        "captum": lambda: captum_side.projected(influence, batches),
        "captum, single": lambda: captum_side.projected(influence, single),
        "forward": lambda: forward_mode(setup, own, batches, directions),
    }
    times = in_turns(ways, repeats, warm=False)  # each has run
    base, target = times["project"], Target(PROJECTION, "≥")
    factor = k / FORWARD_MODE
    extrapolated = f"{FORWARD_MODE} of {k} timed, × {factor:g}"
    return [
        measurement(f"project, {k} directions and norms", base, base, note=setup.about(count, size)),
        measurement("captum, same directions and batches", times["captum"], base, target=target),
        measurement(
            "captum, rows one by one",
            times["captum, single"],
            base,
            target=target,
            note="in larger batches its backward passes repeat the whole batch for each row",
        ),
        measurement(f"forward mode, {k} directions", times["forward"], base, factor, extrapolated, target),
    ]


def curvature(
    setup: Setup, iterations: int, k: int, size: int = BATCH, target: Target | None = None
) -> list[Measurement]:
    """Time the eigenpairs once each, at equal iterations and rows, and count what each keeps."""
    classifier, scope, count = setup.classifier, setup.scope, len(setup.rows)
    batches = setup.batches(count, size)
    found: list[Eigenpairs] = []
    theirs: list[int] = []
    ways: dict[str, Callable[[], object]] = {
        "lanczos": lambda: found.append(eigenpairs(setup, batches, k, iterations)),
        "captum": lambda: theirs.append(len(captum_side.arnoldi(classifier, scope, batches, batches, k, iterations).R)),
    }
    times = in_turns(ways, 1, warm=False)
    base = times["lanczos"]
    kept = f"keeps {len(found[0].values)} of {k} eigenpairs, {found[0].negative} of them negative"
    about = f"{setup.about(count, size)}; {iterations} iterations"
    return [
        measurement("Lanczos, as an index build", base, base, note=f"{about}; {kept}"),
        measurement(
            "captum's Arnoldi",
            times["captum"],
            base,
            note=f"keeps {theirs[0]} of {k}, none negative: it drops those",
            target=target,
        ),
    ]


def eigenpairs(setup: Setup, batches: Sequence[Batch], k: int, iterations: int, l2: float = 0.0) -> Eigenpairs:
    """Return the Hessian's eigenpairs over the batches, as an index build does."""
    operator = HessianOperator(setup.classifier, setup.scope, batches, l2=l2)
    solving = lanczos(
        operator.matvec,
        operator.size,
        k=k,
        iterations=iterations,
        seed=0,
        dtype=operator.dtype,
        device=operator.device,
    )
    return next(event for event in solving if isinstance(event, Eigenpairs))


def forward_mode(setup: Setup, own: Parameters, batches: Sequence[Batch], directions: Parameters) -> Tensor:
    """Each row's loss derivative along the first few directions, one ``jvp`` each, [N, FORWARD_MODE]."""
    columns = []
    for index in range(FORWARD_MODE):
        tangent = {name: value[index] for name, value in directions.items()}
        parts = []
        for batch in batches:

            def losses(parameters: Parameters, batch: Batch = batch) -> Tensor:
                return setup.classifier.losses(batch, parameters)

            with torch.no_grad():
                parts.append(torch.func.jvp(losses, (own,), (tangent,))[1])
        columns.append(torch.cat(parts))
    return torch.stack(columns, 1)


def _agree(who: str, found: Tensor, ours: Tensor) -> None:
    """Refuse to time different quantities."""
    off = float((found - ours).abs().max() / ours.abs().max())
    if not off < 1e-3:
        raise RuntimeError(f"{who}'s products differ from ours by {off:.2g} of the largest")
