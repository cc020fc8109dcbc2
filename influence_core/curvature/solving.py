"""The loop that every solver of (H + δI) x = b runs in: many right-hand sides, each with its own scalars.

A method is a `Recurrence`: its state for the right-hand sides still at work. One that has converged,
or cannot go on, leaves the state, so that it stays as it is and no more products are spent on it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from typing import ClassVar

import torch
from torch import Tensor

from influence_core.curvature.solution import Solution, check_request, norms
from influence_core.events import Progress

Product = Callable[[Tensor], Tensor]  # [Q, P] to [Q, P], a symmetric matrix times each row
Aside = list[tuple[Tensor, tuple[Tensor, Tensor, Tensor]]]  # right-hand sides, their x, r and scale
STILL = 3  # steps; an indefinite matrix may need two to lower the residual
TRUE_SLACK = 2.0  # how many tolerances the true residual of what is called converged may be


class Recurrence(ABC):
    """State of one method; the first dimension of every tensor in it is the right-hand side."""

    name: ClassVar[str]
    monotone: ClassVar[bool] = True  # its residual never increases, so its last iterate is its best

    def __init__(self, x: Tensor, r: Tensor, scale: Tensor) -> None:
        self.x = x  # [a, P], the iterate; the caller's tensor, changed in place
        self.r = r  # [a, P], b − Hx, likewise
        self.scale = scale  # [a] float64, largest ‖Hv‖/‖v‖ met, which ‖H‖ is at least
        self.recent = norms(r)[:, None].repeat(1, STILL)  # [a, STILL], ‖r‖ before the last steps

    @abstractmethod
    def prepare(self, product: Product) -> tuple[Tensor, Tensor]:
        """Make the iteration's one product; return which can take the step and which broke down, each [a] bool."""

    @abstractmethod
    def step(self) -> tuple[Tensor, Tensor]:
        """Take the step; return ‖r‖ and the curvature of the direction, each [a] float64."""

    def settled(self, length: Tensor, image: Tensor) -> Tensor:
        """Say, once an iteration, which have nothing to gain from ‖r‖ and ‖Hr‖/‖r‖, each [a]; returns [a] bool.

        Where H is singular and does not reach b, r comes to lie in its null space and Hr sinks into
        rounding; steps taken then add null vectors to x without bound. So it is over when ‖Hr‖ is
        below 10 √eps ‖H‖‖r‖ (after Paige and Saunders, 1975) and ‖r‖ has stood still.
        """
        eps = torch.finfo(self.x.dtype).eps
        lost = image <= 10 * math.sqrt(eps) * self.scale
        still = length >= (1 - math.pow(eps, 2 / 3)) * self.recent[:, 0]
        self.recent = torch.cat([self.recent[:, 1:], length[:, None]], 1)
        return lost & still

    def keep(self, chosen: Tensor) -> None:
        """Drop the right-hand sides that are not chosen, [a] bool."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value[chosen])


class _Record:
    """What each right-hand side has come to, over all methods that it went through."""

    def __init__(self, x: Tensor, residuals: Tensor, iterations: int) -> None:
        count = len(x)
        self.x = x
        self.residuals = torch.full((iterations + 1, count), float("nan"), dtype=torch.float64)
        self.residuals[0] = residuals
        self.curvatures = torch.full((iterations, count), float("nan"), dtype=torch.float64)
        self.done = torch.zeros(count, dtype=torch.int64)
        self.best = torch.zeros(count, dtype=torch.int64)
        self.breakdown = torch.full((count,), -1, dtype=torch.int64)

    def add(self, columns: Tensor, residuals: Tensor, curvatures: Tensor) -> Tensor:
        """Write an iteration's figures, [a] each; return which have their smallest residual so far."""
        least = self.residuals[self.best[columns], columns]
        self.curvatures[self.done[columns], columns] = curvatures
        self.done[columns] += 1
        self.residuals[self.done[columns], columns] = residuals
        return residuals < least

    def put(self, columns: Tensor, x: Tensor) -> None:
        """Take x [a, P] as the best iterates so far."""
        self.x[columns.to(x.device)] = x
        self.best[columns] = self.done[columns]


def solve(
    kind: type[Recurrence],
    matmat: Product,
    b: Tensor,
    *,
    damping: float,
    tolerance: float,
    iterations: int,
    start: Tensor | None = None,
    fallback: type[Recurrence] | None = None,
) -> Iterator[Progress | Solution]:
    """Yield `Progress` after each iteration and the `Solution` last, from ``start`` [Q, P] or 0.

    ``b`` [Q, P] is left as it is. Right-hand sides that break down go on with ``fallback``.

    Raises:
        UserError: a request that cannot be met (`check_request`).
    """
    check_request(b, damping, tolerance, iterations)

    def product(vectors: Tensor) -> Tensor:
        h = matmat(vectors).to(vectors)
        return torch.add(h, vectors, alpha=damping) if damping else h

    sizes = norms(b)
    x = torch.zeros_like(b) if start is None else start.to(b, copy=True)
    x[sizes == 0] = 0
    r = b.clone() if start is None else b - product(x)
    unit = torch.where(sizes > 0, sizes, 1.0)  # ‖b‖, where it can be divided by
    record = _Record(x, (norms(r) / unit).cpu(), iterations)
    begun = record.residuals[0] > tolerance
    columns = begun.nonzero()[:, 0]
    chosen = columns.to(b.device)
    r = r[chosen]
    state: Recurrence = kind(x[chosen], r, torch.zeros_like(sizes[chosen]))
    del r
    aside = yield from _follow(state, columns, product, record, unit.cpu(), tolerance)
    del state
    if fallback and aside:
        columns = torch.cat([part for part, _ in aside])
        record.breakdown[columns] = record.done[columns]
        joined = [torch.cat(parts) for parts in zip(*(left for _, left in aside), strict=True)]
        del aside
        state = fallback(*joined)
        del joined
        yield from _follow(state, columns, product, record, unit.cpu(), tolerance)
        del state
    yield _solution(kind.name, product, b, unit, record, damping, tolerance)


def _follow(
    state: Recurrence, columns: Tensor, product: Product, record: _Record, unit: Tensor, tolerance: float
) -> Generator[Progress, None, Aside]:
    """Iterate until every right-hand side has ended; return those that broke down."""
    cap = len(record.curvatures)
    aside: Aside = []

    def leave(staying: Tensor) -> Tensor:
        if type(state).monotone:
            record.put(columns[~staying], state.x[~staying.to(state.x.device)])
        state.keep(staying.to(state.x.device))
        return columns[staying]

    while len(columns):
        able, broken = state.prepare(product)
        if broken.any():
            aside.append((columns[broken.cpu()], (state.x[broken], state.r[broken], state.scale[broken])))
        if not able.all():
            columns = leave(able.cpu())
            if not len(columns):
                break
        lengths, curvatures = torch.stack(state.step()).cpu()
        residuals = lengths / unit[columns]
        better = record.add(columns, residuals, curvatures)
        if not type(state).monotone and better.any():
            record.put(columns[better], state.x[better.to(state.x.device)])
        yield Progress(phase=state.name, done=int(record.done.max()), total=cap, unit="iterations")
        going = residuals.isfinite() & (residuals > tolerance) & (record.done[columns] < cap)
        if not going.all():
            columns = leave(going)
    return aside


def _solution(
    method: str, product: Product, b: Tensor, unit: Tensor, record: _Record, damping: float, tolerance: float
) -> Solution:
    iterations = int(record.done.max())
    residuals, curvatures = record.residuals[: iterations + 1], record.curvatures[:iterations]
    rows = torch.minimum(torch.arange(iterations + 1)[:, None], record.done)
    residuals = residuals.gather(0, rows)
    true = (norms(b - product(record.x)) / unit).cpu()
    below = curvatures < 0
    first = torch.where(below.any(0), below.to(torch.int8).argmax(0), -1) if iterations else record.breakdown.clone()
    reached = residuals.gather(0, record.best[None])[0] <= tolerance
    return Solution(
        x=record.x,
        residuals=residuals,
        true_residuals=true,
        converged=reached & (true <= TRUE_SLACK * tolerance),
        best=record.best,
        curvatures=curvatures,
        negative=first,
        breakdown=record.breakdown,
        damping=damping,
        iterations=iterations,
        method=method,
    )
