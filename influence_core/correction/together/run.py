"""A correction of several mispredictions, step by step: which flipped when, joint retention, before and after."""

import math
from pathlib import Path
from typing import Any

from influence_core.correction.comparing import compare
from influence_core.correction.reading import evaluated
from influence_core.correction.run import above, below
from influence_core.correction.saving import leave, noted, rows_of_group
from influence_core.correction.strategies import Chosen
from influence_core.correction.together.grouping import Named, grouped
from influence_core.correction.together.reading import SetReader, first_flips
from influence_core.correction.together.setting import Together, choose_all, prepare_all
from influence_core.correction.training import Training, training
from influence_core.errors import RunFailedError
from influence_core.events import Events, Result, SetStep, through
from influence_core.home import write_json
from influence_core.models.prefix import open_scope
from influence_core.runs.stopping import stop_requested
from influence_core.sizes import fills, record_size
from influence_core.specs import CorrectionSetSpec
from influence_core.trajectory.lockstep import Lockstep, lockstep
from influence_core.trajectory.start import optimizer_of


def run(spec: CorrectionSetSpec, result: Path) -> Events:
    """Correct together; yields progress, a `SetStep` per step from step 0, then the result.

    Stops ``after_flip`` steps after the first step at which all are predicted as desired, or by the other
    rules of a correction. What it leaves can be kept and replayed as a single correction's can.
    """
    together = yield from through(prepare_all(spec, result), Together)
    chosen: list[Chosen] = yield from through(choose_all(together, result), list)
    groups = grouped(together, chosen)
    workspace = together.workspace
    few = not fills(workspace, spec)
    opened = open_scope(workspace, spec.checkpoint, spec.scope, only_kept=few)  # after the rankings, which may keep it
    optimizer = optimizer_of(workspace.checkpoint(spec.checkpoint), spec.optimizer, spec.learning_rate)
    asked = [each.group for each in groups]
    cursor = together.labels.cursor
    own = yield from through(
        training(workspace, opened, spec, optimizer, spec.optimizer_state, asked, cursor), Training
    )
    record_size(workspace, spec.checkpoint, opened.scope.name, sum(each.numel() for each in own.parameters.values()))
    reader = SetReader(together, opened)
    steps: list[SetStep] = []
    last: Lockstep | None = None
    try:
        for last in lockstep(own.step, own.parameters, own.start.state, own.epsilon, own.perturbation, spec.steps):
            seen = reader.read(last)
            if not all(math.isfinite(value) for value in (seen.divergence, *(each.loss for each in seen.examples))):
                at, last = last.t, None  # nothing of this can be kept
                raise RunFailedError(
                    f"the correction diverged at step {at} (a loss is not finite): "
                    f"lower the learning rate, {optimizer.learning_rate:g}"
                )
            steps.append(seen)
            yield seen
            if _over(spec, steps) or stop_requested(result):
                break
    finally:
        if last is not None:
            facts = {**_facts(together, chosen, groups), **noted(near_rows=reader.retained.near_ids)}
            leave(workspace, spec, cursor, opened, optimizer, own.start, last, result, facts)
    assert last is not None
    outcome = {**outcome_of(together, steps), "stale": max(each.stale for each in chosen)}
    reached = evaluated(last.parameters, last.optimizer_state)
    comparing = compare(workspace, spec.checkpoint, opened, reached, result)
    outcome.update((yield from through(comparing, dict)))
    write_json(result / "result.json", outcome)
    yield Result(value=outcome)


def _over(spec: CorrectionSetSpec, steps: list[SetStep]) -> bool:
    flip, last = SetStep.all_flipped(steps), steps[-1]
    return (flip is not None and last.step >= flip + spec.after_flip) or below(spec, last) or above(spec, last)


def _facts(together: Together, chosen: list[Chosen], groups: list[Named]) -> dict[str, Any]:
    """Return what the manifest says of what was corrected, and by which rows."""
    workspace, names = together.workspace, together.workspace.label_names
    return {
        "stale": max(each.stale for each in chosen),
        "examples": [
            {
                "example": member.spec.example,
                "predicted": names[member.predicted],
                "desired": names[member.desired],
                **noted(proponents_of=own.proponents_of, desired_share=own.desired_share),
            }
            for member, own in zip(together.members, chosen, strict=True)
        ],
        "groups": [
            {
                "name": each.name,
                "epsilon": each.group.epsilon,
                **rows_of_group(workspace, each.group.numbers, each.group.labels),
            }
            for each in groups
        ],
        **noted(given=_source_of(together)),
        "epsilon": sum(each.group.epsilon for each in groups),
        "retention_rows": together.retention_ids,
    }


def _source_of(together: Together) -> dict[str, str] | None:
    """Say which file gave the groups: the table itself may be gone when the manifest is read."""
    given = together.given
    return None if given is None else {"file": given.file, "column": given.column}


def outcome_of(together: Together, steps: list[SetStep]) -> dict[str, Any]:
    """Return the last line's fields: how many flipped, and of each when; retention when all had, else at the last step.

    ``flipped`` counts those that are predicted as desired at the end; one with a ``flip_step`` that is
    not among them was lost again. ``retention_at_end`` and those of its halves are there where steps
    followed the last flip.
    """
    names, last, spec = together.workspace.label_names, steps[-1], together.spec
    desired = [names[member.desired] for member in together.members]
    flips = first_flips(steps, desired)
    flip = SetStep.all_flipped(steps)
    at = last if flip is None else next(step for step in steps if step.step == flip)
    return {
        "flipped": last.flipped,
        "of": len(desired),
        "flip_step": flip,
        "examples": [
            {
                "example": member.spec.example,
                "predicted": names[member.predicted],
                "desired": want,
                "flip_step": own,
                "base_flip_step": base,
                "probability": reading.probability,
                "flipped": reading.prediction == want,
            }
            for member, want, (own, base), reading in zip(together.members, desired, flips, last.examples, strict=True)
        ],
        "retention": at.retention,
        "checkpoint": None,
        "steps": last.step,
        **noted(
            near_retention=at.near_retention,
            far_retention=at.far_retention,
            retention_at_end=last.retention if at is not last else None,
            near_retention_at_end=last.near_retention if at is not last else None,
            far_retention_at_end=last.far_retention if at is not last else None,
            retention_at_stop=last.retention if below(spec, last) else None,
            validation_loss_at_stop=last.validation_loss if above(spec, last) else None,
        ),
    }
