"""Theorem 1 on a small network: follow Θ(ε) by Newton, and what Eqs. 4 and 5 say of it.

Everything here forms the dense Hessian, for networks of up to `LIMIT` parameters in float64; it shows
what the theory means, while `solving` and `lanczos` are for models of real size.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from influence_core.curvature.flat import flatten, unflatten
from influence_core.errors import UserError
from influence_core.models.classifier import Batch, Classifier, Scope
from influence_core.models.modes import in_eval

LIMIT = 4000  # parameters: a Hessian of 128 MB
ITERATIONS, HALVINGS = 200, 40
TOLERANCE = 1e-11  # of the equation's residual, against its right-hand side's size and 1
SINGULAR = 1e-9  # an eigenvalue below this share of the largest |λ| counts as 0
Loss = Callable[[Tensor], Tensor]  # of θ [P]


@dataclass(frozen=True)
class Point:
    """A solution of an equation between gradients, and the curvature of 𝓛(·, ε) there."""

    epsilon: Tensor  # [Q]
    theta: Tensor  # [P]
    residual: float  # norm of what the equation leaves
    iterations: int  # of Newton's method
    values: Tensor  # [N₁] eigenvalues of the Hessian (restricted to P₁ where one was given), rising

    @property
    def negative(self) -> int:
        """How many directions go down: 0 at a strict minimum, if the point is stationary."""
        return int((self.values < 0).sum())


class Variation:
    """𝓛(θ, ε) = L(θ) + Σ_q ε_q l_q(θ) of vectors θ [P] (paper, Sec. 2), where it is to be solved for θ.

    Raises `UserError` for more than `LIMIT` parameters, or for parameters that are not float64:
    Newton's method ends where the precision does.
    """

    def __init__(self, loss: Loss, perturbations: Sequence[Loss], theta: Tensor, basis: Tensor | None = None) -> None:
        if theta.numel() > LIMIT:
            raise UserError(f"{theta.numel()} parameters are too many for a dense Hessian: use at most {LIMIT}")
        if theta.dtype != torch.float64:
            raise UserError(f"parameters in {theta.dtype}: make the network float64 to follow Θ(ε)")
        self.loss, self.perturbations = loss, tuple(perturbations)
        self.start = theta  # θ₀
        self.basis = torch.eye(theta.numel(), dtype=theta.dtype, device=theta.device) if basis is None else basis

    @classmethod
    def of(
        cls, classifier: Classifier, scope: Scope, train: Batch, groups: Sequence[Batch], l2: float = 0.0
    ) -> "Variation":
        """Return the variation of a classifier's mean loss plus (l2/2)‖θ‖² by the mean losses of groups, in eval."""
        own = classifier.parameters(scope)

        def mean(batch: Batch, decay: float) -> Loss:
            def loss(theta: Tensor) -> Tensor:
                with in_eval(classifier.module):
                    losses = classifier.losses(batch, unflatten(theta, own))
                return losses.mean() + decay / 2 * theta.square().sum()

            return loss

        return cls(mean(train, l2), [mean(group, 0.0) for group in groups], flatten(own, scope))

    def at(self, theta: Tensor) -> "Variation":
        """Return the same variation around another θ₀, on the whole space."""
        return Variation(self.loss, self.perturbations, theta)

    def restricted(self, tolerance: float = SINGULAR) -> "Variation":
        """Return the variation on θ₀ + P₁, P₁ spanned by the eigenvectors of λ ≠ 0 at θ₀ (paper, Sec. 4.2).

        An eigenvalue counts as 0 up to ``tolerance`` times the largest |λ|.
        """
        values, vectors = torch.linalg.eigh(self.whole_hessian(self.start, self.nothing))
        kept = values.abs() > tolerance * values.abs().max()
        return Variation(self.loss, self.perturbations, self.start, vectors[:, kept])

    @property
    def nothing(self) -> Tensor:
        """ε = 0, [Q]."""
        return self.start.new_zeros(len(self.perturbations))

    def value(self, theta: Tensor, epsilon: Tensor) -> Tensor:
        """Return 𝓛(θ, ε)."""
        total = self.loss(theta)
        for weight, perturbation in zip(epsilon, self.perturbations, strict=True):
            total = total + weight * perturbation(theta)
        return total

    def gradient(self, theta: Tensor, epsilon: Tensor) -> Tensor:
        """Return ∇_θ 𝓛 along the basis, [N₁]."""
        found: Tensor = torch.func.grad(self.value)(theta, epsilon)
        return self.basis.T @ found

    def whole_hessian(self, theta: Tensor, epsilon: Tensor) -> Tensor:
        """Return ∇²_θ 𝓛, [P, P]."""
        found: Tensor = torch.func.hessian(self.value)(theta, epsilon)
        return (found + found.T) / 2

    def hessian(self, theta: Tensor, epsilon: Tensor) -> Tensor:
        """Return ∇²_θ 𝓛 along the basis, [N₁, N₁]."""
        return self.basis.T @ self.whole_hessian(theta, epsilon) @ self.basis

    def response(self) -> Tensor:
        """Return ∇_{ε|0} Θ = −H⁻¹ ∇²_{(ε,θ)} 𝓛 at θ₀, [Q, P] (paper, Eq. 4; Eq. 5 at a stationary point).

        Raises `UserError` where H is singular on the space at hand.
        """
        hessian = self.hessian(self.start, self.nothing)
        self._refuse_singular(torch.linalg.eigvalsh(hessian))
        mixed = torch.stack([self.basis.T @ torch.func.grad(loss)(self.start) for loss in self.perturbations])
        found: Tensor = -torch.linalg.solve(hessian, mixed.T).T @ self.basis.T
        return found

    def follow(self, epsilons: Tensor) -> Iterator[Point]:
        """Yield Θ(ε) for each ε of [E, Q]: the solution of ∇𝓛(Θ, ε) = ∇𝓛(θ₀, 0) that continues θ₀ (paper, Eq. 3).

        Each starts from the one before, so go outwards from 0 in steps that Newton can follow. θ₀
        need not be stationary, nor H positive. Raises `UserError` where H is singular at θ₀, or
        where Newton's method does not get there.
        """
        wanted = self.gradient(self.start, self.nothing)
        self._refuse_singular(torch.linalg.eigvalsh(self.hessian(self.start, self.nothing)))
        theta = self.start
        for epsilon in epsilons:
            point = self.solve(theta, epsilon, wanted)
            theta = point.theta
            yield point

    def stationary(self, start: Tensor | None = None) -> Point:
        """Return a stationary point of L near ``start`` (θ₀), of whatever kind: Newton seeks saddles as readily."""
        return self.solve(self.start if start is None else start, self.nothing, self.start.new_zeros(()))

    def minimum(self, start: Tensor | None = None) -> Point:
        """Return a stationary point of L at which it curves upwards in every direction, below ``start`` (θ₀).

        Steps of −|H|⁻¹∇L, halved until L falls, leave saddles behind (Dauphin et al. 2014, saddle-free
        Newton); Newton's method makes the end exact.
        """
        theta = self.start if start is None else start
        for _ in range(ITERATIONS):
            gradient = self.gradient(theta, self.nothing)
            if float(gradient.norm()) <= math.sqrt(TOLERANCE):
                break
            values, vectors = torch.linalg.eigh(self.hessian(theta, self.nothing))
            steepness = values.abs().clamp_min(SINGULAR * float(values.abs().max()))
            move = -self.basis @ (vectors @ (vectors.T @ gradient / steepness))
            theta = next(
                (
                    theta + 0.5**halving * move
                    for halving in range(HALVINGS)
                    if self.loss(theta + 0.5**halving * move) < self.loss(theta)
                ),
                theta,
            )
        return self.stationary(theta)

    def solve(self, theta: Tensor, epsilon: Tensor, wanted: Tensor) -> Point:
        """Solve ∇𝓛(θ, ε) = ``wanted`` ([N₁], or 0) for θ by Newton's method, halving steps that do not help.

        −H⁻¹F is a way down for ‖F‖² whatever the signs of H's eigenvalues. Raises `UserError` when
        `ITERATIONS` do not suffice or no step helps.
        """
        left = self.gradient(theta, epsilon) - wanted
        enough = TOLERANCE * max(1.0, float(wanted.norm()))
        for iteration in range(ITERATIONS):
            norm = float(left.norm())
            hessian = self.hessian(theta, epsilon)
            if norm <= enough:
                return Point(epsilon, theta, norm, iteration, torch.linalg.eigvalsh(hessian))
            move = self.basis @ torch.linalg.lstsq(hessian, -left[:, None]).solution[:, 0]
            for halving in range(HALVINGS):
                tried = theta + 0.5**halving * move
                remains = self.gradient(tried, epsilon) - wanted
                if float(remains.norm()) < norm:
                    break
            else:
                break
            theta, left = tried, remains
        raise UserError(
            f"Newton's method stopped {float(left.norm()):.1e} from a solution at ε = {epsilon.tolist()}: "
            "take smaller steps of ε, or another start"
        )

    def _refuse_singular(self, values: Tensor) -> None:
        if values.abs().min() <= SINGULAR * values.abs().max():
            raise UserError(
                f"the Hessian is singular: its smallest |λ| is {float(values.abs().min()):.1e}, its largest "
                f"{float(values.abs().max()):.1e}: use l2 > 0, or the restriction to θ₀ + P₁ (`restricted`)"
            )
