"""The part of ``correct`` that corrects several mispredictions together."""

import re
import tempfile
from pathlib import Path
from typing import Any

import typer

from influence_core.cli.output import emit, follow, given, number, table
from influence_core.cli.report_file import report_here, save_report
from influence_core.errors import UserError
from influence_core.events import Result, SetStep
from influence_core.groups import keep_groups, kept_groups
from influence_core.home import read_json
from influence_core.reports.cautions import caution, compared
from influence_core.reports.chosen import chosen_words, few_desired
from influence_core.reports.chosen_rows import scored_before
from influence_core.runs import registry
from influence_core.specs import GROUPS_KEY, CorrectionSetSpec
from influence_core.workspace import Workspace

FIELDS = ("step", "flipped", "retention", "divergence", "integrated_lr", "changed")
UNSAID = ("near_retention", "far_retention", "validation_loss")  # there where they are read
ENDING = ("flipped", "of", "flip_step", "steps", "examples", "retention", "checkpoint")
STOPS = ("retention_at_stop", "validation_loss_at_stop")


def grouped_by(workspace: Workspace, by: str | None, groups: str | None, column: str | None) -> dict[str, Any]:
    """Return what makes the groups as options of `CorrectionSetSpec`; a file of groups is checked and kept.

    ``groups`` is a file, or the key of kept groups, which a command that repeats a correction has. Raises
    `UserError` for options that do not go together, and what `keep_groups` and `kept_groups` raise.
    """
    if groups is None:
        if by == "given" or column is not None:
            what = "--group-by given" if by == "given" else f"--group-column {column}"
            raise UserError(f"{what} needs the groups: give --groups FILE, a table with the columns id and source")
        return given(group_by=by)
    if by not in (None, "given"):
        raise UserError(f"--groups {groups} gives the groups, --group-by {by} others: leave one of them out")
    path = Path(groups)
    try:
        there = path.exists()
    except (OSError, ValueError) as error:  # longer than a name can be
        raise UserError(f"--groups {groups[:40]!r}… is no path ({error.__class__.__name__}): give a file") from None
    if not there and re.fullmatch(GROUPS_KEY, groups):
        if column is not None:
            raise UserError(f"--group-column {column}: the kept groups {groups} have their column, leave it out")
        kept = kept_groups(workspace, groups)
    else:
        kept = keep_groups(workspace, path, column)
    return {"group_by": "given", "groups": kept.key}


def correct_together(
    workspace: Workspace, options: dict[str, Any], keep: str | None, report: Path | None, json: bool
) -> None:
    """Correct several mispredictions in one run; prints its steps, then which flipped when."""
    spec = workspace.spec(CorrectionSetSpec, {**options, "examples": tuple(options["examples"])})
    if keep is not None:
        workspace.checkpoint_folder(keep)  # refuses the name before anything slow
    outcome: dict[str, Any] = {}
    steps: list[SetStep] = []
    with tempfile.TemporaryDirectory() as temporary:
        result = Path(temporary)
        for event in follow(registry.start(spec, result)):
            if isinstance(event, Result):
                outcome = event.value
            elif isinstance(event, SetStep):
                steps.append(event)
                _print_step(event, json)
        about = read_json(result / "manifest.json")
        if few_desired(about):
            typer.echo(f"note: {chosen_words(about)}", err=True)
        if keep is not None:
            outcome["checkpoint"] = workspace.keep(result, keep).name
        if (said := caution(outcome)) is not None:
            typer.echo(f"note: {said}", err=True)
        page = "" if report is None else report_here(workspace, result, steps)
    if json:
        emit({name: outcome[name] for name in (*ENDING, *STOPS) if name in outcome})
    else:
        _print_outcome(outcome, about)
        if (said := chosen_words(about)) is not None and not few_desired(about):
            print(said)
    if report is not None:
        save_report("--report", report, page)


def _print_step(event: SetStep, json: bool) -> None:
    if json:
        examples = [each.model_dump() for each in event.examples]
        further = {name: value for name in UNSAID if (value := getattr(event, name)) is not None}
        emit({**{name: getattr(event, name) for name in FIELDS}, **further, "examples": examples})
        return
    print(
        f"step {event.step:>3}: {event.flipped} of {len(event.examples)} as desired, retention "
        f"{number(100 * event.retention)} %, distance {number(event.divergence)}",
        flush=True,
    )


def halves(outcome: dict[str, Any], corrected: str) -> str:
    """Say retention of the rows near to and far from ``corrected``, in brackets; nothing where it was not read."""
    if "near_retention" not in outcome:
        return ""
    near, far = (number(100 * outcome[f"{half}_retention"]) for half in ("near", "far"))
    return f" ({near} % of the half most similar to {corrected}, {far} % of the others)"


def stopped_by_loss(outcome: dict[str, Any], about: dict[str, Any]) -> str:
    """Say which validation loss ended a run, and above which limit; ``about`` is its manifest."""
    found, limit = outcome["validation_loss_at_stop"], about["spec"]["max_validation_loss"]
    return f"stopped at step {outcome['steps']}: validation loss was {number(found)}, above {number(limit)}"


def _print_outcome(outcome: dict[str, Any], about: dict[str, Any]) -> None:
    def when(step: int | None) -> str:
        return "–" if step is None else str(step)

    print(f"\n{outcome['flipped']} of {outcome['of']} are predicted as desired at step {outcome['steps']}")
    lines = [
        {
            "example": each["example"],
            "predicted": each["predicted"],
            "desired": each["desired"],
            "flipped at": when(each["flip_step"]),
            "by itself": when(each["base_flip_step"]),
            "probability at the end": number(each["probability"]),
            "at the end": "as desired" if each["flipped"] else "not" if each["flip_step"] is None else "lost again",
        }
        for each in outcome["examples"]
    ]
    table(lines, ("example", "predicted", "desired", "flipped at", "by itself", "probability at the end", "at the end"))
    print(f"retention {number(100 * outcome['retention'])} %{halves(outcome, 'those corrected')}")
    if "retention_at_end" in outcome:
        print(f"retention {number(100 * outcome['retention_at_end'])} % at the end, step {outcome['steps']}")
    if "retention_at_stop" in outcome:
        print(f"stopped at step {outcome['steps']}: retention was {number(100 * outcome['retention_at_stop'])} %")
    if "validation_loss_at_stop" in outcome:
        print(stopped_by_loss(outcome, about))
    if outcome["stale"]:
        print(f"{scored_before(outcome['stale'])}: build the index to refresh")
    for split, about in reversed(compared(outcome).items()):
        print(f"whole {split} set: {100 * about['before']:.2f} → {100 * about['after']:.2f} %", end="")
        print(f", fixed {len(about['fixed'])}, broken {len(about['broken'])}")
    if outcome["checkpoint"]:
        print(f"kept as {outcome['checkpoint']}")
