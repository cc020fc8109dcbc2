"""What a correction of several mispredictions works on: each checked as if alone, then what they share."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from influence_core.attribution.explaining import run as explain
from influence_core.checks import ranked_example
from influence_core.correction.setting import Setting, choose, prepare, retention_rows
from influence_core.correction.strategies import STRATEGIES, Chosen
from influence_core.errors import UserError
from influence_core.events import Progress, through
from influence_core.groups import Given, kept_groups
from influence_core.specs import CorrectionSetSpec, ExplainSpec, Split
from influence_core.trajectory.streams import derive
from influence_core.validation import check_limit
from influence_core.workspace import Labels, Workspace

SHARED = ("workspace", "checkpoint", "scope", "method", "settings", "target")  # of the spec and of its rankings


@dataclass(frozen=True)
class Together:
    """The mispredictions, and the rows whose predictions should stay."""

    workspace: Workspace
    spec: CorrectionSetSpec
    members: list[Setting]  # in the order asked for
    labels: Labels  # the training labels when the request was taken up
    retention_ids: list[str]
    given: Given | None = None  # the groups that a table gives


def prepare_all(spec: CorrectionSetSpec, result: Path) -> Iterator[Progress | Together]:
    """Check every example before anything slow; yields progress, then the setting.

    Raises `UserError` that counts those that cannot be corrected and says why the first of them cannot, and where
    the groups that the spec names are not kept.
    """
    workspace = Workspace.open(spec.workspace)
    given = None if spec.groups is None else kept_groups(workspace, spec.groups)
    members: list[Setting] = []
    refused: list[str] = []
    for example in spec.examples:
        try:
            members.append((yield from through(prepare(spec.alone(example), result), Setting)))
        except UserError as error:
            refused.append(str(error))
    if refused:
        also = "" if len(refused) == 1 else f" ({len(refused)} of {len(spec.examples)} cannot be corrected)"
        raise UserError(refused[0] + also)
    check_limit(workspace, spec, spec.examples)
    members = [replace(member, labels=members[0].labels) for member in members]  # whatever is relabelled meanwhile
    retained = retention_rows(workspace, list(spec.examples))
    yield Together(workspace, spec, members, members[0].labels, retained, given)


def choose_all(together: Together, result: Path) -> Iterator[Progress | list[Chosen]]:
    """Yield progress of the rankings, made in one pass for all, then each example's rows in the order of the members.

    Random rows have a seed for each example, not one draw for all with the same prediction.
    """
    if STRATEGIES[together.spec.strategy].needs_ranking:
        yield from _explained(together, result)
    found: list[Chosen] = []
    for number, member in enumerate(together.members):
        seed = derive(together.spec.seed, "random", member.row) if together.spec.strategy == "random" else None
        own = member if seed is None else replace(member, spec=member.spec.model_copy(update={"seed": seed}))
        found.append((yield from through(choose(own, result / f"example-{number}"), Chosen)))
    yield found


def _explained(together: Together, result: Path) -> Iterator[Progress]:
    """Compute what the rankings need, as far as it is not kept."""
    by_split: dict[Split, dict[str, None]] = {}
    for member in together.members:
        example = ranked_example(together.workspace, member.spec)
        by_split.setdefault(together.workspace.locate(example)[0], {})[example] = None
    shared = {name: getattr(together.spec, name) for name in SHARED}
    for split, examples in by_split.items():
        asked = ExplainSpec(**shared, split=split, examples=tuple(examples))
        yield from (event for event in explain(asked, result) if isinstance(event, Progress))
