"""Steps of trajectories beside plain training: lockstep, tangents, and many at once by vmap beside one by one."""

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.models import Setup, behind_prefix, images, text
from benchmarks.timing import Measurement, Target, in_turns, measurement
from influence_core.models.classifier import Batch
from influence_core.trajectory.lockstep import lockstep
from influence_core.trajectory.modes import modes
from influence_core.trajectory.optimizers import OptimizerSpec
from influence_core.trajectory.perturbation import Perturbation
from influence_core.trajectory.step import TrainingStep
from influence_core.trajectory.tangent import tangent
from influence_core.trajectory.trajectories import alike, rollout

BATCH, K, RETAINED, REPEATS = 32, 12, 50, 7  # k/b as in the paper (DEFINITIONS)
COUNTS, FEWER = (8, 33), 3
LOCKSTEP, TANGENT = 1.15, 4.0
RATE = 1e-5


class Case:
    """A set-up with its training step under Adam, and a plain PyTorch loop over the same batches."""

    def __init__(self, setup: Setup, batch: int = BATCH, k: int = K, retained: int = RETAINED) -> None:
        self.setup, self.classifier = setup, setup.classifier
        self.step = TrainingStep(
            self.classifier, setup.scope, OptimizerSpec("adam", RATE), setup.rows, batch, 0, batchnorm_train=False
        )
        self.parameters = self.classifier.parameters(setup.scope)
        self.state = self.step.initial_state(self.parameters)
        self.b = setup.rows.batch(np.arange(k))
        self.retained = setup.rows.batch(np.arange(len(setup.rows) - retained, len(setup.rows)))
        self.target = setup.rows.batch([k])
        self.perturbation = Perturbation.mean(self.b)
        self.epsilon = torch.full((1,), 0.5, dtype=self.classifier.dtype, device=self.classifier.device)
        self.leaves = {name: nn.Parameter(value.clone()) for name, value in self.parameters.items()}
        self.optimizer = torch.optim.Adam(self.leaves.values(), lr=RATE)

    def plain_step(self, batch: Batch, dropout: bool) -> None:
        """Train on one batch as anyone would: forward, backward, torch's own Adam."""
        with modes(self.classifier.module, self.setup.scope.modules, dropout, False), torch.enable_grad():
            loss = self.classifier.losses(batch, dict(self.leaves)).mean()
            self.optimizer.zero_grad()
            loss.backward()
        self.optimizer.step()

    def read(self, *parameters: dict[str, Tensor]) -> None:
        """Read the retention rows after the first parameters, and the corrected row after each."""
        with torch.no_grad():
            self.classifier.logits(self.retained, parameters[0])
            for each in parameters:
                self.classifier.logits(self.target, each)

    def plain(self) -> None:
        """Two plain steps on B_t, two on B, one forward pass of the retention rows."""
        for _ in range(2):
            self.plain_step(self.step.batch(0), dropout=True)
            self.plain_step(self.b, dropout=False)
        with torch.no_grad():
            self.classifier.logits(self.retained)

    def corrected(self) -> None:
        """One step of a correction, read."""
        *_, item = lockstep(self.step, self.parameters, self.state, self.epsilon, self.perturbation, 1)
        self.read(item.parameters, item.base_parameters)

    def stepped(self) -> None:
        """One step, B included."""
        self.step(self.parameters, self.state, 0 * self.epsilon, self.perturbation, 0)

    def with_tangent(self) -> None:
        """The same step with ∇_ε of parameters and moments at ε = 0."""
        for _ in tangent(self.step, self.parameters, self.state, self.perturbation, 0 * self.epsilon, 1):
            pass


def run() -> list[Measurement]:
    """Time both set-ups."""
    rows = BATCH + K + RETAINED
    cases = [Case(behind_prefix(text(rows, "last:1"))), Case(images(rows))]
    return [line for case in cases for line in (*corrections(case), *tangents(case), *together(case))]


def corrections(case: Case, repeats: int = REPEATS) -> list[Measurement]:
    """Compare a correction's step with its parts in plain PyTorch."""
    times = in_turns({"plain": case.plain, "lockstep": case.corrected}, repeats)
    about = f"{case.setup.name}: {case.setup.scope.name}, {case.setup.parameters:,} parameters, b = {BATCH}, k = {K}"
    return [
        measurement(f"plain: 2 steps on B_t, 2 on B, {RETAINED} rows read", times["plain"], times["plain"], note=about),
        measurement("correction step, read", times["lockstep"], times["plain"], target=Target(LOCKSTEP)),
    ]


def tangents(case: Case, repeats: int = REPEATS) -> list[Measurement]:
    """Compare a step that carries one tangent with the same step that carries none."""
    times = in_turns({"step": case.stepped, "tangent": case.with_tangent}, repeats)
    return [
        measurement("step, B included", times["step"], times["step"], note=case.setup.name),
        measurement("the same with a tangent", times["tangent"], times["step"], target=Target(TANGENT)),
    ]


def together(case: Case, counts: tuple[int, ...] = COUNTS, repeats: int = FEWER) -> list[Measurement]:
    """Compare M trajectories (each L − l_x/100 of one row x, the base among them) by vmap with one by one."""
    lines = []
    for count in counts:
        perturbations = alike(case.setup.rows, [[row] for row in range(count - 1)])
        epsilons = torch.full((count - 1, 1), -0.01, dtype=case.classifier.dtype, device=case.classifier.device)

        def follow(how: str, perturbations: list[Perturbation] = perturbations, epsilons: Tensor = epsilons) -> None:
            for _ in rollout(case.step, case.parameters, case.state, perturbations, epsilons, 1, how):
                pass

        times = in_turns({"sequential": lambda: follow("sequential"), "vmap": lambda: follow("vmap")}, repeats)
        base = times["sequential"]
        lines += [
            measurement(f"{count} trajectories, one by one", base, base, note=f"{case.setup.name}: a step of each"),
            measurement(f"{count} trajectories by vmap", times["vmap"], base),
        ]
    return lines
