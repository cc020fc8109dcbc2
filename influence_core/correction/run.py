"""A correction, step by step: lockstep with the uncorrected run, flip, retention, before and after."""

import math
from itertools import repeat
from pathlib import Path
from typing import Any

from influence_core.correction.comparing import compare
from influence_core.correction.predicting import tangents
from influence_core.correction.reading import Reader, evaluated
from influence_core.correction.saving import noted, save
from influence_core.correction.setting import Setting, choose, prepare
from influence_core.correction.strategies import Chosen
from influence_core.correction.training import Group, Training, training
from influence_core.errors import RunFailedError
from influence_core.events import Events, Result, SetStep, Step, through
from influence_core.home import write_json
from influence_core.models.prefix import open_scope
from influence_core.runs.stopping import stop_requested
from influence_core.sizes import fills, record_size
from influence_core.specs import Correcting, CorrectionSpec
from influence_core.trajectory.lockstep import Lockstep, lockstep
from influence_core.trajectory.start import optimizer_of
from influence_core.validation import check_limit


def run(spec: CorrectionSpec, result: Path) -> Events:
    """Correct; yields progress, a `Step` per step from step 0, then the result.

    Stops ``after_flip`` steps after the flip, below ``min_retention``, above ``max_validation_loss``, at ``steps``,
    or when asked to (`runs.stopping`). The last parameters and optimizer state are left in ``result`` however the run
    ends, so that they can be kept. With ``predict`` each step also says what influence predicts of it (`predicting`).
    """
    setting = yield from through(prepare(spec, result), Setting)
    check_limit(setting.workspace, spec, [spec.example])
    chosen = yield from through(choose(setting, result), Chosen)
    workspace = setting.workspace
    few = not fills(workspace, spec)
    opened = open_scope(workspace, spec.checkpoint, spec.scope, only_kept=few)  # after the ranking, which may keep it
    optimizer = optimizer_of(workspace.checkpoint(spec.checkpoint), spec.optimizer, spec.learning_rate)
    group = Group(chosen.numbers, chosen.labels, spec.weight_of(len(chosen.numbers)))
    cursor = setting.labels.cursor
    asked = training(workspace, opened, spec, optimizer, spec.optimizer_state, [group], cursor)
    own = yield from through(asked, Training)
    record_size(workspace, spec.checkpoint, opened.scope.name, sum(each.numel() for each in own.parameters.values()))
    reader = Reader(setting, opened, group.epsilon)
    steps: list[Step] = []
    last: Lockstep | None = None
    desired = workspace.label_names[setting.desired]
    point = (own.step, own.parameters, own.start.state)
    predicted = tangents(*point, own.perturbation, own.epsilon, spec.steps) if spec.predict else repeat(None)
    try:
        both = lockstep(*point, own.epsilon, own.perturbation, spec.steps)
        for last, slopes in zip(both, predicted, strict=False):
            seen = reader.read(last, slopes)
            if not (math.isfinite(seen.loss) and math.isfinite(seen.divergence)):
                at, last = last.t, None  # nothing of this can be kept
                raise RunFailedError(
                    f"the correction diverged at step {at} (its loss is not finite): "
                    f"lower the learning rate, {optimizer.learning_rate:g}"
                )
            steps.append(seen)
            yield seen
            if over(spec, steps, desired) or stop_requested(result):
                break
    finally:
        if last is not None:
            save(setting, opened, optimizer, own.start, chosen, last, result, reader.retained.near_ids)
    assert last is not None
    outcome = {**_outcome(spec, steps, desired), "stale": chosen.stale}
    outcome.update(noted(proponents_of=chosen.proponents_of, desired_share=chosen.desired_share))
    reached = evaluated(last.parameters, last.optimizer_state)
    comparing = compare(workspace, spec.checkpoint, opened, reached, result)
    outcome.update((yield from through(comparing, dict)))
    write_json(result / "result.json", outcome)
    yield Result(value=outcome)


def flip_step(steps: list[Step], desired: str) -> int | None:
    """Return the first step whose prediction is the desired label, or None."""
    return next((step.step for step in steps if step.prediction == desired), None)


def over(spec: CorrectionSpec, steps: list[Step], desired: str) -> bool:
    """Return whether a stop rule of the spec holds at the last of the steps made so far."""
    flip, last = flip_step(steps, desired), steps[-1]
    return (flip is not None and last.step >= flip + spec.after_flip) or below(spec, last) or above(spec, last)


def below(spec: Correcting, step: Step | SetStep) -> bool:
    """Return whether retention is so low that the run ends."""
    return spec.min_retention is not None and step.retention < spec.min_retention


def above(spec: Correcting, step: Step | SetStep) -> bool:
    """Return whether the validation loss is so high that the run ends."""
    limit, found = spec.max_validation_loss, step.validation_loss
    return limit is not None and found is not None and not found <= limit  # what is no number ends it too


def _outcome(spec: CorrectionSpec, steps: list[Step], desired: str) -> dict[str, Any]:
    """Return the last line's fields (CLI): retention at the flip, otherwise at the last step.

    ``retention_at_stop`` and ``validation_loss_at_stop`` are there where these ended the run; ``retention_at_end``
    and those of its halves where steps followed the flip, ``lost_again`` where after them the prediction is not the
    desired one.
    """
    flip = flip_step(steps, desired)
    base = next((step.step for step in steps if step.base_prediction == desired), None)
    at = next(step for step in steps if step.step == flip) if flip is not None else steps[-1]
    return {
        "flipped": flip is not None,
        "flip_step": flip,
        "base_flip_step": base,
        "retention": at.retention,
        "checkpoint": None,
        "steps": steps[-1].step,
        **noted(
            near_retention=at.near_retention,
            far_retention=at.far_retention,
            retention_at_end=steps[-1].retention if at is not steps[-1] else None,
            near_retention_at_end=steps[-1].near_retention if at is not steps[-1] else None,
            far_retention_at_end=steps[-1].far_retention if at is not steps[-1] else None,
            lost_again=True if flip is not None and steps[-1].prediction != desired else None,
            retention_at_stop=steps[-1].retention if below(spec, steps[-1]) else None,
            validation_loss_at_stop=steps[-1].validation_loss if above(spec, steps[-1]) else None,
        ),
    }
