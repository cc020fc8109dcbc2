"""What can be known of a correction on the page, before it runs: its rows and its faults."""

from collections.abc import Sequence
from typing import Any

from influence_core import checks
from influence_core.errors import UserError
from influence_core.rankings import RankedRow, Ranking
from influence_core.specs import CorrectionSetSpec, CorrectionSpec
from influence_core.validation import check_limit
from influence_core.workspace import Workspace
from pages.components.offering import unavailable

NOTED = 20  # examples whose rankings are read at each look at the form, about a second


def desired_label(workspace: Workspace, spec: CorrectionSpec) -> str:
    """Return the name of the desired label."""
    return workspace.label_names[checks.desired_label(workspace, spec)]


def ranking_of(workspace: Workspace, spec: CorrectionSpec) -> Ranking | None:
    """Return the ranking that the correction picks its rows from, if there is one and it is at hand."""
    return None if spec.strategy == "random" else workspace.ready(checks.ranking_spec(workspace, spec))


def taken(spec: CorrectionSpec, ranking: Ranking) -> list[RankedRow]:
    """Return the rows that the correction takes from its ranking."""
    return checks.candidates(spec, ranking, spec.strategy)[: spec.k]


def noted(workspace: Workspace, spec: CorrectionSpec) -> dict[str, Any]:
    """Return what the strategy will note of its rows, as a manifest does, as far as it is known before the run."""
    found: dict[str, Any] = {}
    if spec.strategy == "permuted":
        found["proponents_of"] = checks.ranked_example(workspace, spec)
    if (ranking := ranking_of(workspace, spec)) is None:
        return found
    rows = taken(spec, ranking)
    if spec.only_annotated:
        found |= {"spec": spec.model_dump(), "rows": [row.id for row in rows]}
    if spec.strategy == "opponents" and rows:
        desired = desired_label(workspace, spec)
        found |= {"desired": desired, "desired_share": sum(row.label == desired for row in rows) / len(rows)}
    return found


def noted_together(workspace: Workspace, spec: CorrectionSetSpec) -> dict[str, Any]:
    """Return the same of each of several examples, of those whose ranking is kept; nothing of very many."""
    if not (spec.strategy == "opponents" or spec.only_annotated) or len(spec.examples) > NOTED:
        return {}
    each = [noted(workspace, spec.alone(example)) for example in spec.examples]
    found: dict[str, Any] = {"examples": [one for one in each if "desired_share" in one], "of": len(each)}
    if spec.only_annotated and all("rows" in one for one in each):
        found |= {"spec": spec.model_dump(), "groups": [{"rows": one["rows"]} for one in each]}
    return found


def other_rows(workspace: Workspace, spec: CorrectionSpec, handed: Sequence[str]) -> bool:
    """Whether the run would pick other proponents than those handed over from Influence, as far as is known."""
    if spec.strategy != "proponents" or spec.only_annotated or not handed:
        return False
    ranking = ranking_of(workspace, spec)
    return ranking is not None and [row.id for row in ranking.proponents[: len(handed)]] != list(handed[: spec.k])


def check(workspace: Workspace, spec: CorrectionSpec, predicted: str) -> None:
    """Raise the `UserError` that the run would end with, as far as files and labels tell."""
    labels = workspace.labels().values
    checks.check_correction(workspace, spec, workspace.label_index(predicted), labels)
    check_limit(workspace, spec, [spec.example])
    if spec.strategy != "random" and (why := unavailable(workspace, spec)) is not None:
        raise UserError(why)
    if (ranking := ranking_of(workspace, spec)) is not None:  # otherwise the run ranks first
        checks.check_ranked(spec, ranking, "opponents" if spec.strategy == "opponents" else "proponents")
