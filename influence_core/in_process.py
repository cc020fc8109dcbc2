"""What a workspace runs in the process that asks: scripts, tests and the command line."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import ValidationError

from influence_core.errors import UserError
from influence_core.events import Events, Result
from influence_core.rankings import Ranking, Suspects
from influence_core.runs import registry
from influence_core.specs import (
    AnySpec,
    CorrectionSpec,
    ExplainSpec,
    IndexSpec,
    RankSpec,
    Spec,
    SuspectsSpec,
    one_line,
)

if TYPE_CHECKING:
    from influence_core.workspace import Checkpoint, Workspace

S = TypeVar("S", bound=Spec)


class InProcess:
    """The runs of a workspace; options are the fields of each run's spec."""

    name: str

    def index(self, **options: Any) -> dict[str, Any]:
        """Build (or finish) the ABIF index; returns its summary."""
        return self.outcome(self.spec(IndexSpec, options))

    def rank(self, example: str, **options: Any) -> Ranking:
        """Rank the training rows for one test row."""
        return Ranking(**self.outcome(self.spec(RankSpec, {"example": example, **options})))

    def ready(self, spec: RankSpec) -> Ranking | None:
        """Return the ranking if it follows from what is cached, without torch; otherwise None."""
        return registry.ready(cast("Workspace", self), spec)

    def explain(self, **options: Any) -> dict[str, Any]:
        """Compute what the rankings of all mispredictions need, many at a time; returns how many and how long."""
        return self.outcome(self.spec(ExplainSpec, options))

    def suspects(self, **options: Any) -> Suspects:
        """Rank the training rows by their influence on themselves."""
        return Suspects(**self.outcome(self.spec(SuspectsSpec, options)))

    def correct(self, example: str, result: Path | None = None, **options: Any) -> Events:
        """Run a correction, step by step.

        What it leaves (parameters, manifest) goes into ``result`` if given, from where `keep` takes it.
        """
        yield from _events(self.spec(CorrectionSpec, {"example": example, **options}), result)

    def keep(self, result: Path, name: str) -> "Checkpoint":
        """Make what a correction left in ``result`` a checkpoint of this workspace."""
        from influence_core.keeping import keep

        return keep(cast("Workspace", self), result, name)

    def spec(self, kind: type[S], options: dict[str, Any]) -> S:
        """Build a validated spec for this workspace; `UserError` says in one line what is wrong."""
        try:
            return kind(**{"workspace": self.name, **options})
        except ValidationError as error:
            raise UserError(one_line(error)) from None

    def outcome(self, spec: AnySpec) -> dict[str, Any]:
        """Run a spec to its end and return its result."""
        for event in _events(spec, None):
            if isinstance(event, Result):
                return event.value
        raise RuntimeError(f"the run {spec!r} ended without a result")


def _events(spec: AnySpec, result: Path | None) -> Events:
    """Run a spec in a folder that is removed afterwards unless one is given."""
    if result is not None:
        yield from registry.start(spec, result)
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield from registry.start(spec, Path(temporary))
