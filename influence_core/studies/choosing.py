"""The rows of B that a strategy picks for a misprediction of a study: those that a correction picks."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from influence_core.attribution.explaining import run as explain
from influence_core.checks import ranked_example
from influence_core.correction.setting import Setting, choose, prepare
from influence_core.correction.strategies import Chosen
from influence_core.errors import UserError
from influence_core.events import Progress, through
from influence_core.settings import Method
from influence_core.specs import CorrectionSpec, CorrectionStudySpec, ExplainSpec, Order, Strategy
from influence_core.studies.cases import Case
from influence_core.study_checks import SPLIT
from influence_core.trajectory.streams import derive
from influence_core.workspace import Workspace


@dataclass(frozen=True)
class Cell:
    """One way to pick B; random rows depend on no ranking, so method and order are None."""

    strategy: Strategy
    method: Method | None
    by: Order | None


CONTROL = Cell("random", None, None)


def cells(spec: CorrectionStudySpec, methods: Sequence[Method]) -> list[Cell]:
    """Return the ways that a study compares, the control once."""
    ranked = [
        Cell(strategy, method, by)
        for method in methods
        for by in spec.orders
        for strategy in spec.strategies
        if strategy != "random"
    ]
    return [*ranked, *([CONTROL] if "random" in spec.strategies else [])]


@dataclass
class Choice:
    """Chooses rows, once for all shares."""

    spec: CorrectionStudySpec
    result: Path
    made: dict[tuple[str, Cell], Chosen | str] = field(default_factory=dict)

    def rows(self, case: Case, cell: Cell) -> Generator[Progress, None, Chosen | str]:
        """Return the rows, or why there are none in words."""
        if (case.example, cell) not in self.made:
            self.made[case.example, cell] = yield from self._rows(case, cell)
        return self.made[case.example, cell]

    def _rows(self, case: Case, cell: Cell) -> Generator[Progress, None, Chosen | str]:
        try:
            setting = yield from through(prepare(self.asked(case, cell), self.result), Setting)
            return (yield from through(choose(setting, self.result), Chosen))
        except UserError as error:  # too few rows, or no partner: this misprediction alone is left out of the cell
            return self._reason(case, cell, error)

    def _reason(self, case: Case, cell: Cell, error: UserError) -> str:
        """Return an error's words without the example's id, so that the same reason is counted as one."""
        said, names = str(error), {case.example}
        with suppress(UserError):  # no partner
            names.add(ranked_example(Workspace.open(self.spec.workspace), self.asked(case, cell)))
        for name in sorted(map(repr, names)):
            said = said.replace(f"example {name}", "it").replace(name, "it")
        return said

    def asked(self, case: Case, cell: Cell) -> CorrectionSpec:
        """Return the correction whose rows are taken.

        Random rows have a seed for each misprediction, not one draw for all with the same prediction.
        """
        spec, control = self.spec, cell.strategy == "random"
        return CorrectionSpec(
            workspace=spec.workspace,
            checkpoint=spec.checkpoint,
            scope=spec.scope,
            example=case.example,
            strategy=cell.strategy,
            method=cell.method,
            by=cell.by or "cosine",
            k=spec.k,
            batch_size=spec.batch_size,
            seed=derive(spec.seed, "random", case.row) if control else spec.seed,
        )

    def explained(self, workspace: Workspace, drawn: Sequence[Case], ways: Sequence[Cell]) -> Iterator[Progress]:
        """Compute what the rankings need, for all mispredictions and their partners in one pass; yields progress."""
        needed: dict[Method, dict[str, None]] = {}
        for cell in ways:
            if cell.method is not None:
                for case in drawn:
                    with suppress(UserError):  # no partner
                        example = ranked_example(workspace, self.asked(case, cell))
                        needed.setdefault(cell.method, {})[example] = None
        for method, examples in needed.items():
            asked = ExplainSpec(
                workspace=self.spec.workspace,
                checkpoint=self.spec.checkpoint,
                scope=self.spec.scope,
                method=method,
                split=SPLIT,
                examples=tuple(examples),
            )
            yield from (event for event in explain(asked, self.result) if isinstance(event, Progress))
